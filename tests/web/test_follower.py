"""Following topics without a group on a real Kafka: where it begins, and what it does when things change under it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from daemon.dev.broker import start_broker
from daemon.errors import BrokerUnavailable, TopicError
from daemon.transport.connection import Connection
from daemon.transport.kafka_follower import LOOK_BACK_RECORDS_MAX, LOOK_BACK_RECORDS_MIN, KafkaFollower
from daemon.transport.offsets import When
from daemon.transport.port import Readable

pytestmark = pytest.mark.kafka

PATIENCE_SECONDS = 90.0
PARTITIONS = 2
#: Records of a test are written after this.
START_MS = round(time.time() * 1000)
HOUR_MS = 3_600_000


class Stage:
    """Two topics of a test, and what a follower of them read."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.connection = Connection(bootstrap)
        self.topics: Mapping[Readable, str] = {"ticks": f"{name}-ticks", "forecasts": f"{name}-forecasts"}
        self.admin = KafkaAdminClient(bootstrap_servers=bootstrap)
        self.create()
        self.followers: list[KafkaFollower] = []
        self.values: list[bytes] = []
        self.anew_count = 0

    def create(self, *names: str) -> None:
        wanted = names or tuple(self.topics.values())
        self.admin.create_topics({name: {"num_partitions": PARTITIONS, "replication_factor": 1} for name in wanted})

    def send(self, role: Readable, *values: bytes, at_ms: int | None = None, partition: int = 0) -> None:
        """Write records, as of now where no time is given."""
        now_ms = round(time.time() * 1000)
        producer = KafkaProducer(bootstrap_servers=self.connection.bootstrap_servers, linger_ms=5)
        for value in values:
            producer.send(self.topics[role], value, partition=partition, timestamp_ms=at_ms or now_ms)
        producer.flush()
        producer.close()

    def follower(self, since: When | None = None) -> KafkaFollower:
        made = KafkaFollower(self.connection, self.topics, since=since)
        self.followers.append(made)
        return made

    def read(self, follower: KafkaFollower, until: Callable[[], bool]) -> None:
        """Poll until the condition holds; a broker that is away for a while is what a follower has to bear."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until():
            assert time.monotonic() < deadline, (len(self.values), self.values[-3:])
            try:
                followed = follower.poll(0.1)
            except BrokerUnavailable:
                continue
            if followed.anew:
                self.anew_count += 1
                self.values.clear()
            for role in ("ticks", "forecasts"):
                self.values += [record.value or b"" for record in followed.records.get(role, ())]

    def close(self) -> None:
        for follower in self.followers:
            follower.close()
        self.admin.close()


@pytest.fixture
def stage(kafka: str, request: pytest.FixtureRequest) -> Iterator[Stage]:
    made = Stage(kafka, "follow" + str(abs(hash(request.node.name))))
    yield made
    made.close()


def test_it_reads_both_topics_from_the_last_minute_on_and_then_live(stage: Stage) -> None:
    stage.send("ticks", *[b"old"] * LOOK_BACK_RECORDS_MIN, at_ms=START_MS - HOUR_MS)
    stage.send("ticks", *[b"tick"] * LOOK_BACK_RECORDS_MIN)
    stage.send("forecasts", b"forecast", partition=1)
    follower = stage.follower()
    stage.read(follower, lambda: b"forecast" in stage.values and stage.values.count(b"tick") == LOOK_BACK_RECORDS_MIN)
    assert b"old" not in stage.values
    stage.send("ticks", b"live")
    stage.read(follower, lambda: stage.values[-1] == b"live")
    assert stage.anew_count == 1


def test_of_a_topic_that_has_been_quiet_it_reads_the_last_records(stage: Stage) -> None:
    stage.send("ticks", *[b"%d" % n for n in range(LOOK_BACK_RECORDS_MIN)], at_ms=START_MS - HOUR_MS)
    stage.read(stage.follower(), lambda: stage.values[-1:] == [b"%d" % (LOOK_BACK_RECORDS_MIN - 1)])
    assert LOOK_BACK_RECORDS_MIN // PARTITIONS <= len(stage.values) <= LOOK_BACK_RECORDS_MIN // PARTITIONS + 1


def test_of_a_busy_topic_it_leaves_out_what_would_keep_a_page_waiting(stage: Stage) -> None:
    stage.send("ticks", *[b"%d" % n for n in range(LOOK_BACK_RECORDS_MAX)])
    stage.read(stage.follower(), lambda: stage.values[-1:] == [b"%d" % (LOOK_BACK_RECORDS_MAX - 1)])
    assert len(stage.values) <= LOOK_BACK_RECORDS_MAX // PARTITIONS + 1


@pytest.mark.parametrize(
    ("since", "expected"),
    [("earliest", [b"old", b"new"]), ("latest", []), (START_MS - 1, [b"new"])],
    ids=["earliest", "latest", "time"],
)
def test_it_begins_where_it_is_told(stage: Stage, since: When, expected: list[bytes]) -> None:
    stage.send("ticks", b"old", at_ms=START_MS - HOUR_MS)
    stage.send("ticks", b"new")
    follower = stage.follower(since)
    stage.read(follower, lambda: stage.anew_count == 1 and len(stage.values) == len(expected))
    stage.send("ticks", b"live")
    stage.read(follower, lambda: b"live" in stage.values)
    assert stage.values == [*expected, b"live"]


def test_a_topic_that_is_missing_is_named(stage: Stage) -> None:
    missing: dict[Readable, str] = {"ticks": stage.topics["ticks"], "forecasts": "no-such-topic"}
    follower = KafkaFollower(stage.connection, missing)
    with pytest.raises(TopicError, match=r"no-such-topic.*topics create"):
        follower.poll(0.1)
    follower.close()


def test_a_topic_that_is_created_anew_begins_anew(stage: Stage) -> None:
    stage.send("ticks", b"before", b"before")
    follower = stage.follower()
    stage.read(follower, lambda: len(stage.values) == 2)
    stage.admin.delete_topics([stage.topics["ticks"]])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while stage.topics["ticks"] in stage.admin.list_topics():
        assert time.monotonic() < deadline
    stage.create(stage.topics["ticks"])
    stage.send("ticks", b"after")
    stage.read(follower, lambda: stage.values == [b"after"])
    assert stage.anew_count == 2


def test_partitions_that_are_added_are_read(stage: Stage) -> None:
    follower = stage.follower()
    stage.send("ticks", b"before")
    stage.read(follower, lambda: stage.values == [b"before"])
    stage.admin.create_partitions({stage.topics["ticks"]: PARTITIONS + 1})
    stage.read(follower, lambda: stage.anew_count == 2)
    stage.send("ticks", b"after", partition=PARTITIONS)
    stage.read(follower, lambda: b"after" in stage.values)
    assert sorted(stage.values) == [b"after", b"before"]


def test_it_goes_on_where_it_stood_when_the_broker_comes_back(tmp_path: Path) -> None:
    with start_broker(None, tmp_path) as broker:
        stage = Stage(broker.bootstrap, "follow")
        stage.send("ticks", b"1", b"2")
        follower = stage.follower()
        stage.read(follower, lambda: len(stage.values) == 2)
        broker.stop()
        with pytest.raises(BrokerUnavailable):
            poll_on(follower)
    with start_broker(broker.port, tmp_path):
        stage.send("ticks", b"3")
        stage.read(follower, lambda: len(stage.values) == 3)
        assert (stage.values, stage.anew_count) == ([b"1", b"2", b"3"], 1)
        stage.close()


def poll_on(follower: KafkaFollower) -> None:
    """Poll until it raises; a poll that brings nothing is no failure yet."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        follower.poll(0.1)
