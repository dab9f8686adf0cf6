"""Who takes part, with which settings, and how each is started."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers.environments import HERE, java_of, python_of
from bench.peers.kafka_streams.export import export
from bench.peers.run_settings import RunSettings
from bench.rig import Rig
from daemon.config import KafkaSettings, TopicSettings
from daemon.dev.broker_java import KAFKA_VERSION
from daemon.dev.child import to_toml
from daemon.model.bundle import Bundle

EXACTLY, AT_LEAST, NONE = "exactly once", "at least once", "none"
CHECKOUT = HERE.parents[1]
#: The peers in Python.
PROGRAMS = {
    "quix": "bench.peers.quix.app",
    "bytewax": "bench.peers.bytewax.start",
    "keras": "bench.peers.keras.loop",
}
#: One thread a process, in every Python peer as in tickcast; TensorFlow has its own pool and keeps it.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Contestant:
    """One line of the table."""

    #: Short, of letters, digits and dashes: names topics, groups and folders.
    key: str
    #: Folder of the peer's program; also the key of `NAMES`.
    peer: str
    guarantee: str
    #: What stands in the table beside the name.
    setting: str
    #: Ticks whose throughput is measured: some ten seconds of work.
    ticks: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name and version for people."""
        return NAMES[self.peer]

    @property
    def missing(self) -> str | None:
        """Say why it cannot take part; None where it can."""
        if self.options.get("client") == "librdkafka" and "client" not in KafkaSettings.model_fields:
            return "this checkout has no second client"
        return None

    def command(self, on: Rig, topics: TopicSettings, bundle: Path, cache: Path) -> tuple[list[str], dict[str, str]]:
        """Return what starts it and its environment; called once, for a restart is the same command."""
        directory = on.directory / self.key
        directory.mkdir(parents=True)
        environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **ONE_THREAD}
        told = RunSettings(
            on.bootstrap, topics.ticks, topics.forecasts, self.key, str(bundle), str(directory), dict(self.options)
        )
        if self.peer == "tickcast":
            return _tickcast(self, on, topics, bundle, directory), environment
        if self.peer == "kafka_streams":
            return [*java_of(cache), *_streams_arguments(told)], environment
        environment |= told.write(directory / "run.json")
        return [str(python_of(self.peer, cache)), "-m", PROGRAMS[self.peer]], environment


def _tickcast(contestant: Contestant, on: Rig, topics: TopicSettings, bundle: Path, directory: Path) -> list[str]:
    settings = on.settings(contestant.key, topics, bundle) | {"metrics": {"port": 0}}
    settings["kafka"] |= contestant.options
    config = directory / "tickcast.toml"
    config.write_text(to_toml(settings), "utf-8")
    return [sys.executable, "-m", "daemon.cli.main", "run", "--config", str(config)]


def _streams_arguments(told: RunSettings) -> list[str]:
    model = Path(told.directory) / "model.bin"
    export(Bundle.load(told.bundle), model)
    places = [told.bootstrap, told.ticks, told.forecasts, told.group, str(model), told.directory]
    return ["Main", *places, told.options["guarantee"], str(told.options["commit_ms"])]


def _pinned(peer: str, package: str) -> str:
    text = (HERE / peer / "requirements.txt").read_text("utf-8")
    found = re.search(rf"^{package}==(\S+)", text, re.MULTILINE)
    assert found is not None, f"{peer} does not pin {package}"
    return found[1]


NAMES = {
    "tickcast": "tickcast",
    "quix": f"Quix Streams {_pinned('quix', 'quixstreams')}",
    "bytewax": f"Bytewax {_pinned('bytewax', 'bytewax')}",
    "kafka_streams": f"Kafka Streams {KAFKA_VERSION}",
    "keras": f"plain Keras {_pinned('keras', 'keras')} loop",
}


def _quix(key: str, seconds: float, setting: str, *, exactly_once: bool = True) -> Contestant:
    options = {"commit_interval": seconds, "exactly_once": exactly_once}
    return Contestant(f"quix-{key}", "quix", EXACTLY if exactly_once else AT_LEAST, setting, 40_000, options)


def _streams(key: str, guarantee: str, commit_ms: int, setting: str) -> Contestant:
    said = EXACTLY if guarantee == "exactly_once_v2" else AT_LEAST
    options = {"guarantee": guarantee, "commit_ms": commit_ms}
    return Contestant(f"streams-{key}", "kafka_streams", said, setting, 200_000, options)


def _bytewax(seconds: int, setting: str) -> Contestant:
    return Contestant(f"bytewax-{seconds}", "bytewax", AT_LEAST, setting, 100_000, {"snapshot_seconds": seconds})


CONTESTANTS = (
    Contestant("tickcast-python", "tickcast", EXACTLY, "kafka-python (default)", 150_000),
    Contestant("tickcast-librdkafka", "tickcast", EXACTLY, "librdkafka", 300_000, {"client": "librdkafka"}),
    _streams("eos-100", "exactly_once_v2", 100, "one thread, commits every 100 ms (default)"),
    _streams("eos-10", "exactly_once_v2", 10, "one thread, commits every 10 ms"),
    _streams("alo", "at_least_once", 30_000, "one thread, commits every 30 s (default)"),
    _quix("eos-5000", 5.0, "commits every 5 s (default)"),
    _quix("eos-100", 0.1, "commits every 0.1 s"),
    _quix("eos-20", 0.02, "commits every 0.02 s"),
    _quix("alo", 5.0, "commits every 5 s (default)", exactly_once=False),
    _bytewax(10, "snapshots every 10 s (default)"),
    _bytewax(1, "snapshots every 1 s"),
    Contestant("keras-call", "keras", NONE, "`model(x)`", 1_000, {"call": "call"}),
    Contestant("keras-predict", "keras", NONE, "`model.predict(x)`", 200, {"call": "predict"}),
)
