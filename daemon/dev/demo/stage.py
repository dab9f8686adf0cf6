"""Sets the demo up: model, broker, topics, daemon, and the clients of the demo itself."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka.errors import KafkaError
from rich.console import Console

from daemon.config import ENV_PREFIX, TopicSettings
from daemon.dev.broker import Broker, find_broker, start_broker
from daemon.dev.broker_java import JARS_DIRECTORY, KAFKA_VERSION
from daemon.dev.child import ChildDaemon
from daemon.dev.demo.disease import told
from daemon.dev.demo.feed import FileTicks, SimulatedTicks, Ticks
from daemon.dev.demo.model import KeptModel, MeasuredDisease
from daemon.dev.demo.page import ChildPage
from daemon.dev.demo.reader import OutcomeReader
from daemon.dev.demo.table import Facts
from daemon.dev.replay import TickProducer
from daemon.errors import LocalBrokerError
from daemon.transport.admin import create_topics
from daemon.transport.connection import Connection

PARTITIONS = 4
#: How often the daemon's metrics are asked for its canary; each time costs the reader a few milliseconds.
PROBE_SECONDS = 2.0
#: For a daemon whose broker is gone; it has nothing left to save.
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class DemoOptions:
    """What is to be shown."""

    #: How long the market is open.
    seconds: float
    #: A tick file instead of the simulated market.
    ticks: Path | None
    #: A bundle instead of one trained on the spot.
    bundle: Path | None
    #: Train anew where a model is kept.
    fresh: bool
    #: Where broker, model and logs live.
    directory: Path
    #: Where the live page listens; None shows none.
    page_port: int | None


@dataclass
class Stage:
    """Everything that runs while the market is open."""

    ticks: Ticks
    broker: Broker
    daemon: ChildDaemon
    producer: TickProducer
    reader: OutcomeReader
    facts: Facts = field(default_factory=Facts)
    _probe_due: float = 0.0

    def runs(self) -> bool:
        """Whether the daemon lives.

        Raises
        ------
        LocalBrokerError : the broker does not; nothing more can be read or counted
        """
        if not self.broker.is_running():
            raise LocalBrokerError(f"the broker ended while the market was open; see {self.broker.log_file}")
        return self.daemon.process.poll() is None

    def probe(self, *, at_once: bool = False) -> None:
        """Ask the daemon for its canary, when it is time."""
        if not at_once and time.monotonic() < self._probe_due:
            return
        self._probe_due = time.monotonic() + PROBE_SECONDS
        try:
            metrics = self.daemon.metrics()
        except OSError:
            return  # it is ending; what it said last stays
        self.facts.probe_runs = int(metrics.get("tickcast_probe_runs_total", 0))
        self.facts.probe_variance = metrics["tickcast_probe_variance"] if self.facts.probe_runs else None


def prepare(options: DemoOptions, console: Console, exits: ExitStack) -> Stage:
    """Start all that the market needs, and say what is being done; `exits` ends it.

    Raises
    ------
    TickcastError : a part did not come up
    """
    _forget_environment()
    directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    ticks: Ticks = FileTicks(options.ticks) if options.ticks else SimulatedTicks()
    sections: dict[str, Any] = {"session": [{"match": "*", "rule": "gap", "gap_seconds": ticks.gap_seconds}]}
    if options.bundle is None:
        broker, bundle = _broker_and_model(KeptModel(directory, ticks, sections), options.fresh, console, exits)
    else:
        broker, bundle = _start_broker(directory, console, exits), options.bundle.resolve()
    connection, topics = Connection(broker.bootstrap), TopicSettings()
    create_topics(connection, topics, partitions=PARTITIONS)
    sections["kafka"] = {"bootstrap_servers": broker.bootstrap, "group_id": "tickcast-demo"}
    sections["model"] = {"bundle": str(bundle)}
    page = None
    if options.page_port is not None:  # it starts while the daemon does
        page = exits.enter_context(ChildPage(directory, sections, options.page_port))
    daemon = _start_daemon(directory, sections, console, exits)
    reader = exits.enter_context(closing(OutcomeReader(connection, topics, PARTITIONS)))
    producer = TickProducer(connection, topics.ticks)
    exits.callback(_let_go, producer)
    if page is not None:
        console.print(f"page     {page.told()}", soft_wrap=True)
    console.print(f"market   {ticks.present_title}; Ctrl-C closes it\n")
    return Stage(ticks, broker, daemon, producer, reader)


def _broker_and_model(model: KeptModel, fresh: bool, console: Console, exits: ExitStack) -> tuple[Broker, Path]:
    """Bring up both; where no model is kept, Kafka starts while TensorFlow is being imported."""
    lines = None if fresh else model.lines()
    if lines is not None:
        console.print("\n".join(lines))
        return _start_broker(model.directory, console, exits), model.bundle
    console.print("first run: importing TensorFlow, starting Kafka, training; about a minute")
    measured = exits.enter_context(MeasuredDisease(model.directory))
    broker = _start_broker(model.directory, console, exits)
    answers = measured.wait()
    console.print("\n".join(told(answers)))
    console.print(f"train    {model.ticks.past_title}")
    model.train(answers)
    return broker, model.bundle


def _start_broker(directory: Path, console: Console, exits: ExitStack) -> Broker:
    """Start Kafka with empty topics: all that is read from them is of this run."""
    home = directory / "broker"
    if find_broker(home) is None:  # otherwise `start_broker` refuses, and the records of the other one stay
        shutil.rmtree(home, ignore_errors=True)
    if not JARS_DIRECTORY.is_dir():
        console.print(f"kafka    fetching Apache Kafka {KAFKA_VERSION} (45 MB, once)")
    began = time.monotonic()
    broker = exits.enter_context(start_broker(None, home))
    console.print(f"kafka    {KAFKA_VERSION} answers at {broker.bootstrap} after {time.monotonic() - began:.1f} s")
    return broker


def _start_daemon(directory: Path, sections: dict[str, Any], console: Console, exits: ExitStack) -> ChildDaemon:
    daemon = ChildDaemon(directory, sections)
    daemon.log.unlink(missing_ok=True)
    exits.callback(daemon.stop, STOP_SECONDS)
    began = time.monotonic()
    daemon.start().wait_ready()
    console.print(f"daemon   ready after {time.monotonic() - began:.1f} s, its log is {_near(daemon.log)}")
    return daemon


def _let_go(producer: TickProducer) -> None:
    with suppress(KafkaError):  # ticks that a dead broker never took: the books say so already
        producer.close()


def _forget_environment() -> None:
    """Settings in the environment win over files: a daemon of the demo must not find the user's own cluster there."""
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        del os.environ[name]


def _near(path: Path) -> Path:
    """Return the path as seen from here, where it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
