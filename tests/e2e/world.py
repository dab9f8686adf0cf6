"""A small world for end-to-end tests: topics of their own, a bundle, daemons, and a count of outcomes against ticks."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

from daemon.config import TopicSettings
from daemon.dev.child import ChildDaemon
from daemon.dev.replay import partition_of
from schemas import HEADER_PREFIX, Forecast
from tests.kafka_fixture import make_topics

PARTITIONS = 4
PATIENCE_SECONDS = 60.0
#: A topic's default max.message.bytes: the whole batch.
LIMIT = 1_048_588


class World:
    """One set of topics, one bundle, and the daemons of one test."""

    def __init__(self, bootstrap: str, directory: Path, bundle: Path) -> None:
        self.bootstrap = bootstrap
        self.directory = directory
        self.topics: TopicSettings = make_topics(bootstrap, "e2e", PARTITIONS)
        self.bundle = bundle
        self.producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=2, max_request_size=2 * LIMIT)
        self.sent: list[tuple[int, int]] = []
        self.daemons: list[ChildDaemon] = []

    def settings(self, instance: str = "0", **sections: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        settings: dict[str, dict[str, Any]] = {
            "kafka": {
                "bootstrap_servers": self.bootstrap,
                "group_id": self.topics.ticks + "-group",
                "instance_id": instance,
            },
            "topics": self.topics.model_dump(),
            "model": {"bundle": str(self.bundle)},
        }
        for section, keys in sections.items():
            settings[section] = settings.get(section, {}) | dict(keys)
        return settings

    def daemon(self, instance: str = "0", **sections: Mapping[str, Any]) -> ChildDaemon:
        made = ChildDaemon(self.directory, self.settings(instance, **sections), name=f"daemon-{instance}")
        self.daemons.append(made)
        return made.start()

    def send(self, value: bytes | None, key: bytes | None, partition: int) -> tuple[int, int]:
        found = self.producer.send(self.topics.ticks, value, key, partition=partition).get(30)
        self.sent.append((partition, found.offset))
        return self.sent[-1]

    def send_quotes(self, count: int, instruments: int = 12) -> None:
        """Send quotes of instruments that take turns, stamped now."""
        self.send_ticks(
            {"instrument": f"I{n % instruments}", "ts": time.time_ns(), "bid": 100 + n % 7, "ask": 101 + n % 7}
            for n in range(count)
        )

    def send_ticks(self, ticks: Iterable[Mapping[str, Any]]) -> None:
        """Send ticks, each instrument to one partition, and wait until they are acknowledged."""
        futures = []
        for tick in ticks:
            name = tick["instrument"]
            futures.append(self.producer.send(
                self.topics.ticks, json.dumps(tick).encode(), name.encode(), partition=partition_of(name, PARTITIONS)
            ))  # fmt: skip
        self.producer.flush()
        self.sent += [(f.value.partition, f.value.offset) for f in futures]

    def close(self) -> None:
        """Stop what runs."""
        self.producer.close()
        for daemon in self.daemons:
            daemon.stop()

    def outcomes(self) -> list[ConsumerRecord]:
        """Read all committed forecasts and dead letters."""
        return read_topics(self.bootstrap, self.topics.forecasts, self.topics.dead_letters)

    def await_outcomes(self) -> list[ConsumerRecord]:
        """Wait until every tick sent has an outcome, then check that each has exactly one."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found := self.outcomes()) < len(self.sent):
            assert time.monotonic() < deadline, (
                f"{len(found)} outcomes for {len(self.sent)} ticks; {[daemon.tail() for daemon in self.daemons]}"
            )
        assert Counter(map(origin, found)) == Counter(self.sent)
        return found


def read_topics(bootstrap: str, *topics: str) -> list[ConsumerRecord]:
    """Read all committed records of topics; within a partition they stand in offset order."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed", enable_auto_commit=False)
    places = [TopicPartition(topic, p) for topic in topics for p in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(places)
    found: list[ConsumerRecord] = []
    while any(consumer.position(place) < ends[place] for place in places):
        for records in consumer.poll(200, max_records=10_000).values():
            found += records
    consumer.close()
    return found


def origin(record: ConsumerRecord) -> tuple[int, int]:
    """Return partition and offset of the tick that an outcome belongs to."""
    if record.headers:
        headers = dict(record.headers)
        return int(headers[HEADER_PREFIX + "partition"]), int(headers[HEADER_PREFIX + "offset"])
    forecast = Forecast.model_validate_json(record.value)
    assert record.key == forecast.instrument.encode()
    _, partition, offset = forecast.id.rsplit("-", 2)
    assert int(partition) == record.partition
    return int(partition), int(offset)


def await_that(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s: {what}"
        time.sleep(0.02)
