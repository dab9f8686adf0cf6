"""What every benchmark needs: a real broker, topics of its own for every run, ticks in them, the daemon on them.

Ratios are taken within one run on one machine; the absolute figures beside them only give the scale.
"""

from __future__ import annotations

import platform
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from daemon.compiled import is_compiled
from daemon.config import TopicSettings
from daemon.core.spec import Column, Output
from daemon.dev.broker import start_broker
from daemon.dev.child import ChildDaemon
from daemon.dev.replay import TickProducer
from daemon.model.bundle import Bundle
from daemon.tick_files import read_ticks
from daemon.training.options import DEFAULT_COLUMNS
from daemon.transport.admin import create_topics
from daemon.transport.connection import Connection
from tests.bundles import tiny_bundle

PARTITIONS = 4
#: Each against its own bare loop; the package of the second is an extra.
CLIENTS = ("kafka-python", "librdkafka")
PACKAGES = {"kafka-python": "kafka-python", "librdkafka": "confluent-kafka"}
IDLE_SECONDS = 10.0
#: A scrape takes the daemon some milliseconds; more of them would be measured too.
SCRAPE_SECONDS = 1.0
#: The columns that `tickcast train` gives a model unless told otherwise.
COLUMNS = tuple(Column(feature, "running") for feature in DEFAULT_COLUMNS)
OUTPUTS = tuple(
    Output(h, volatile=True, scale=h**0.5, residual_variance=1.0, residual_quantiles=((0.01, -2.3), (0.99, 2.3)))
    for h in (1, 5, 10, 50)
)


@dataclass(frozen=True)
class Rig:
    """One broker and a folder for everything else."""

    bootstrap: str
    directory: Path

    def topics(self, name: str, ticks: str | None = None) -> TopicSettings:
        """Create the topics of one run; `ticks` names an input topic that is there already."""
        topics = TopicSettings(
            ticks=ticks or f"{name}-ticks",
            forecasts=f"{name}-forecasts",
            state=f"{name}-state",
            dead_letters=f"{name}-dead-letters",
        )
        create_topics(Connection(self.bootstrap), topics, PARTITIONS)
        return topics

    def settings(
        self,
        name: str,
        topics: TopicSettings,
        bundle: Path,
        instance: str = "0",
        client: str = CLIENTS[0],
        **pipeline: Any,
    ) -> dict[str, dict[str, Any]]:
        """Return the settings of an instance of the group `name`."""
        return {
            "kafka": {
                "client": client,
                "bootstrap_servers": self.bootstrap,
                "group_id": name,
                "instance_id": instance,
            },
            "topics": topics.model_dump(),
            "model": {"bundle": str(bundle)},
            "pipeline": pipeline,
        }

    def daemon(
        self, name: str, topics: TopicSettings, bundle: Path, instance: str = "0", **options: Any
    ) -> ChildDaemon:
        """Return an instance of the group `name` on these topics; `options` are those of `settings`."""
        settings = self.settings(name, topics, bundle, instance, **options)
        return ChildDaemon(self.directory, settings, name=f"{name}-{instance}")

    def fill(self, topic: str, ticks: Iterable[Mapping[str, Any]]) -> int:
        """Produce ticks, each instrument to one partition; return how many."""
        producer = TickProducer(Connection(self.bootstrap), topic)
        for tick in ticks:
            producer.send(tick)
        producer.flush()
        producer.close()
        return producer.acknowledged_count

    def read(self, topic: str) -> Iterator[Any]:
        """Yield every committed record of a topic, partition by partition."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, isolation_level="read_committed", enable_auto_commit=False
        )
        for partition in range(PARTITIONS):
            here = TopicPartition(topic, partition)
            consumer.assign([here])
            consumer.seek_to_beginning(here)
            end = consumer.end_offsets([here])[here]
            while consumer.position(here) < end:
                for records in consumer.poll(500, max_records=10_000).values():
                    yield from records
        consumer.close()


@contextmanager
def rig(directory: Path) -> Iterator[Rig]:
    """Start a broker for the benchmarks."""
    with start_broker(None, directory / "kafka") as broker:
        yield Rig(broker.bootstrap, directory)


def bench_bundle(directory: Path) -> Bundle:
    """Write a bundle of 2 x LSTM(64), the default features, four horizons; speed does not ask for the weights."""
    return tiny_bundle(directory, units=64, layers=2, columns=COLUMNS, outputs=OUTPUTS)


def made_ticks(count: int, instruments: int, *, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Yield quotes of many instruments that take turns at random."""
    rng = random.Random(seed)
    start = time.time_ns() - count * 1_000_000
    mids = [100.0 + i for i in range(instruments)]
    for n in range(count):
        i = rng.randrange(instruments)
        mids[i] *= 1 + rng.gauss(0, 1e-4)
        yield {
            "instrument": f"INST{i:04}",
            "ts": start + n * 1_000_000,
            "bid": round(mids[i] - 0.01, 4),
            "ask": round(mids[i] + 0.01, 4),
            "bid_size": round(rng.expovariate(1), 3),
            "ask_size": round(rng.expovariate(1), 3),
        }


def real_ticks(path: Path, count: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the ticks of a file."""
    return islice(read_ticks([path], in_order=False), count)


def wait_for_ticks(daemon: ChildDaemon, count: int) -> None:
    """Wait until the daemon has committed so many outcomes; give up when nothing moves."""
    seen, since = -1.0, time.monotonic()
    while seen < count:
        now = outcomes(daemon)
        if now > seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > IDLE_SECONDS:
            raise SystemExit(f"the daemon stopped at {seen:.0f} of {count} ticks: {daemon.tail()}")
        time.sleep(SCRAPE_SECONDS)


def outcomes(daemon: ChildDaemon) -> float:
    """Return the committed outcomes of this process; what it replayed for its states is none of them."""
    metrics = daemon.metrics()
    return sum(metrics[f'tickcast_ticks_total{{outcome="{outcome}"}}'] for outcome in ("forecast", "dead_letter"))


def write_section(document: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, opened, rest = document.read_text("utf-8").partition(begin)
    _, closed, tail = rest.partition(end)
    if not (opened and closed):
        raise SystemExit(f"{document} has no section between {begin.strip()} and {end}")
    document.write_text(head + begin + text + end + tail, "utf-8")


def machine(clients: Sequence[str] = CLIENTS[:1]) -> str:
    """Say where the figures come from."""
    packages = [PACKAGES[client] for client in clients]
    return f"{computer(*packages, 'numpy', 'pydantic')}, Apache Kafka 4.3.1"


def computer(*packages: str) -> str:
    """Say when and on what something was measured, and with which versions of packages."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    code = "compiled core, " if is_compiled() else ""
    return f"{datetime.now(UTC).date()}, {cpu}, {code}Python {platform.python_version()}, {versions}"


def median(values: Sequence[float]) -> float:
    """Return the middle value."""
    return sorted(values)[len(values) // 2]
