"""Clusters for the doctor: a healthy service, and topics and groups with known faults, all on a real Kafka."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourceType,
)
from kafka.errors import RetriableError
from kafka.structs import OffsetAndMetadata

from daemon.config import Settings, TopicSettings
from daemon.dev.broker import Broker, free_port, start_broker
from daemon.dev.broker_properties import HOST
from daemon.doctor.cluster import examine_cluster
from daemon.doctor.finding import Report
from daemon.transport.admin import create_topics
from daemon.transport.admin_client import coordinated
from daemon.transport.connection import Connection
from daemon.transport.kafka_view import ClusterView
from tests.kafka_fixture import AUTHORIZER, topic_names

#: Long enough for a machine that four others use, too.
PATIENCE_SECONDS = 60.0
#: Lets a producer write to a partition of which its coordinator has not heard, as clients of before Kafka 4 could.
UNVERIFIED = {"transaction.partition.verification.enable": "false"}
#: What the daemon cannot live with, or not well.
BAD_SETTINGS = {
    "auto.create.topics.enable": "true",
    "transaction.max.timeout.ms": "5000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "60000",
    "group.min.session.timeout.ms": "20000",
    "offsets.retention.minutes": "60",
}


class Patient:
    """Topics and a group of their own."""

    def __init__(self, bootstrap: str, directory: Path, name: str, partitions: int = 2, copies: int = 1) -> None:
        self.bootstrap = bootstrap
        self.directory = directory
        self.topics: TopicSettings = topic_names(name)
        create_topics(Connection(bootstrap), self.topics, partitions, copies)
        self.group = f"{self.topics.ticks}-group"
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        self.producer = KafkaProducer(bootstrap_servers=bootstrap)

    def settings(self, **sections: Mapping[str, Any]) -> Settings:
        plain: dict[str, dict[str, Any]] = {
            "kafka": {"bootstrap_servers": self.bootstrap, "group_id": self.group},
            "topics": self.topics.model_dump(),
            "model": {"bundle": str(self.directory / "bundle"), "bundles": str(self.directory / "bundles")},
        }
        return Settings(**{name: plain.get(name, {}) | dict(sections.get(name, {})) for name in {*plain, *sections}})

    def report(self, **options: Any) -> Report:
        return examine_cluster(self.settings(), **{"watch_seconds": 0.5, **options})

    def send(
        self, tick: Mapping[str, Any] | bytes, key: bytes | None, partition: int = 0, at_ms: int | None = None
    ) -> None:
        """Write one tick; `at_ms` is its Kafka timestamp."""
        value = tick if isinstance(tick, bytes) else json.dumps(tick).encode()
        self.producer.send(self.topics.ticks, value, key, partition=partition, timestamp_ms=at_ms).get(30)

    def write_state(self, key: bytes, value: bytes, partition: int) -> None:
        self.producer.send(self.topics.state, value, key, partition=partition).get(30)

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Set the offsets of the group, which has no members yet."""
        places = {TopicPartition(self.topics.ticks, at): OffsetAndMetadata(to, "", -1) for at, to in offsets.items()}
        coordinated(lambda: self.admin.alter_group_offsets(self.group, places))

    def configure(self, topic: str, **values: str) -> None:
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=values)])

    def allow(self, kind: ResourceType, name: str, operation: ACLOperation, user: str = "User:ANONYMOUS") -> None:
        """Add a rule on a resource, which takes everything else on it away."""
        self.admin.create_acls([ACL(user, "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))])

    def close(self) -> None:
        self.producer.close(timeout=5)
        self.admin.close()


def quote(name: str = "A", ts: int | None = None, **values: Any) -> dict[str, Any]:
    """Return a quote of now."""
    return {"instrument": name, "ts": ts or time.time_ns(), "bid": 100.0, "ask": 101.0, **values}


@contextmanager
def feeding(send: Callable[[], object]) -> Iterator[None]:
    """Send one tick after the other from a thread until the block ends."""
    stop = threading.Event()

    def feed() -> None:
        while not stop.is_set():
            send()
            stop.wait(0.01)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)


def await_that(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s: {what}"
        time.sleep(0.05)


@dataclass
class Pair:
    """A cluster of two brokers; the second one has bad settings, and can be killed."""

    one: Broker
    two: Broker
    #: A listener of the first one that sends clients on to a port where nobody listens.
    dead_end: str

    @property
    def servers(self) -> str:
        return f"{self.one.bootstrap},{self.two.bootstrap}"


@contextmanager
def running_pair(directory: Path) -> Iterator[Pair]:
    """Run two brokers."""
    port, controller_port, dead_end, nobody = (free_port() for _ in range(4))
    one = AUTHORIZER | {
        "listeners": f"PLAINTEXT://{HOST}:{port},DEAD://{HOST}:{dead_end},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port},DEAD://{HOST}:{nobody}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DEAD:PLAINTEXT",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
    }
    with start_broker(port, directory / "one", properties=one) as first:
        _make_internal_topics(first.bootstrap)
        _join(directory / "one/log/meta.properties", directory / "two/log/meta.properties")
        second_port = free_port(but=nobody)
        here = dict.fromkeys(("listeners", "advertised.listeners"), f"PLAINTEXT://{HOST}:{second_port}")
        two = one | BAD_SETTINGS | {"process.roles": "broker", "node.id": "2"} | here
        with start_broker(second_port, directory / "two", properties=two) as second:
            yield Pair(first, second, f"{HOST}:{dead_end}")


def _make_internal_topics(bootstrap: str) -> None:
    """Have Kafka make its own topics while there is one broker, so that they outlive the other."""
    view = ClusterView(Connection(bootstrap))
    view.may_join("anybody")
    view.may_write_as("anybody", "anybody")
    view.close()


def _join(first: Path, second: Path) -> None:
    """Write what formatting a second broker of the same cluster would."""
    known = dict(line.split("=", 1) for line in first.read_text().splitlines() if "=" in line)
    lines = ("version=1", f"cluster.id={known['cluster.id']}", "node.id=2", "directory.id=dGlja2Nhc3QtdHdvLWRpcg")
    second.parent.mkdir(parents=True)
    second.write_text("\n".join(lines) + "\n")


def leaders(admin: KafkaAdminClient, topic: str) -> list[int]:
    """Return who leads each partition, -1 for nobody; empty while the client asks a broker that is gone."""
    try:
        (described,) = admin.describe_topics([topic])
    except RetriableError:
        return []
    return [each["leader_id"] for each in described["partitions"]]
