"""Transactions that the cluster calls complete and holds open all the same: ended as they were decided."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import ClusterAuthorizationFailedError
from kafka.producer.transaction_manager import TxnOffsetCommitHandler
from kafka.structs import OffsetAndMetadata

from daemon.core.records import Message
from daemon.dev.broker import start_broker
from daemon.errors import AccessDenied, TopicError
from daemon.transport import kafka_hanging
from daemon.transport.connection import transactional_id
from daemon.transport.kafka_hanging import OFFSETS_TOPIC, find_hanging, offsets_partition
from tests.contract.members import forecast, owning, settled
from tests.contract.worlds import KafkaWorld

pytestmark = pytest.mark.kafka

#: Lets a producer write to a partition of which its coordinator has not heard, as clients of before Kafka 4 could.
UNVERIFIED = {"transaction.partition.verification.enable": "false"}


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with start_broker(None, Path(tmp_path_factory.mktemp("kafka")), properties=UNVERIFIED) as broker:
        yield broker.bootstrap


@pytest.fixture
def world(bootstrap: str) -> Iterator[KafkaWorld]:
    world = KafkaWorld(bootstrap)
    yield world
    world.close()


class Careless:
    """A producer that writes without telling its coordinator: to partition 0, while its transaction is elsewhere."""

    def __init__(self, world: KafkaWorld, instance: str = "0") -> None:
        self._world = world
        self.producer: KafkaProducer = world._begin(transactional_id(world.group, instance))
        self._manager = self.producer._transaction_manager

    def write(self, value: str, partition: int, *, told: bool) -> None:
        """Write a forecast; untold, nobody but the partition's leader hears of it."""
        if not told:
            self._manager._partitions_in_transaction.add(TopicPartition(self._world.topics.forecasts, partition))
        self._world._send(self.producer, [Message(partition, b"key", value.encode())], "forecasts")
        self.producer.flush(10)

    def commit_offsets(self, offsets: dict[int, int], group_metadata: object) -> None:
        """Let offsets wait for the end of the transaction, of which the coordinator knows nothing."""
        for partition, offset in offsets.items():
            tp = TopicPartition(self._world.topics.ticks, partition)
            self._manager._pending_txn_offset_commits[tp] = OffsetAndMetadata(offset, "", -1)
        handler = TxnOffsetCommitHandler(self._manager, group_metadata, self._manager._pending_txn_offset_commits, None)
        with self._manager._lock:
            self._manager._enqueue_request(handler)
        self.producer._sender.wakeup()
        assert handler.result.wait(10_000)


def forecasts(world: KafkaWorld) -> list[bytes | None]:
    return [record.value for record in world.read("forecasts")]


def hanging_in(world: KafkaWorld) -> list[int]:
    admin = KafkaAdminClient(**world._options())
    try:
        found = find_hanging(admin, world.group, [world.topics.forecasts])
    finally:
        admin.close()
    return [each.partition.partition for each in found]


@pytest.mark.parametrize("committed", [True, False])
def test_what_hangs_is_ended_as_its_transaction_was(world: KafkaWorld, committed: bool) -> None:
    careless = Careless(world)
    careless.write("there", 1, told=True)
    careless.write("left", 0, told=False)
    (careless.producer.commit_transaction if committed else careless.producer.abort_transaction)()
    assert hanging_in(world) == [0]
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    assert hanging_in(world) == []
    sink.commit(forecast("next"), {0: 1}, source.group_metadata())
    assert forecasts(world) == ([b"left", b"next", b"there"] if committed else [b"next"])


def test_what_hung_before_an_unfinished_transaction_had_been_committed(world: KafkaWorld) -> None:
    careless = Careless(world)
    careless.write("there", 1, told=True)
    careless.write("left", 0, told=False)
    careless.producer.commit_transaction()
    careless.producer.begin_transaction()
    careless.write("unfinished", 1, told=True)
    world.sink().open()
    assert forecasts(world) == [b"left", b"there"]


def test_nothing_is_guessed(world: KafkaWorld) -> None:
    Careless(world).write("left", 0, told=False)
    with pytest.raises(TopicError, match=rf"{world.topics.forecasts}-0 from offset 0.*kafka-transactions"):
        world.sink().open()
    assert hanging_in(world) == [0]


@pytest.mark.parametrize("committed", [True, False])
def test_offsets_that_hang_are_ended_too(world: KafkaWorld, committed: bool) -> None:
    source = owning(world.source()).source
    careless = Careless(world)
    careless.write("there", 1, told=True)
    careless.commit_offsets({0: 7}, source.group_metadata())
    (careless.producer.commit_transaction if committed else careless.producer.abort_transaction)()
    assert source.committed([0]) == {}, "nobody can tell yet"
    sink = world.sink()
    sink.open()
    assert settled(source, [0]) == {0: 7 if committed else None}
    sink.commit(forecast("next"), {1: 1}, source.group_metadata())
    assert settled(source, [0, 1]) == {0: 7 if committed else None, 1: 1}


def test_what_hangs_with_its_offsets_has_not_counted(world: KafkaWorld) -> None:
    source = owning(world.source()).source
    careless = Careless(world)
    careless.write("left", 0, told=False)
    careless.commit_offsets({0: 7}, source.group_metadata())
    world.sink().open()
    assert forecasts(world) == []
    assert settled(source, [0]) == {0: None}


def test_an_instance_that_is_gone_is_seen_to_and_one_that_is_there_sees_to_itself(world: KafkaWorld) -> None:
    for instance in ("gone", "there"):
        careless = Careless(world, instance)
        careless.write(f"{instance} 1", 1, told=True)
        careless.write(f"{instance} 0", 0 if instance == "gone" else 2, told=False)
        careless.producer.commit_transaction()
    owning(world.source("there"))
    assert hanging_in(world) == [0, 2]
    world.sink("0").open()
    assert hanging_in(world) == [2]
    world.sink("there").open()
    assert sorted(value or b"" for value in forecasts(world)) == [b"gone 0", b"gone 1", b"there 0", b"there 1"]


def test_a_transaction_in_work_does_not_hang(world: KafkaWorld) -> None:
    source = owning(world.source("busy")).source
    end = world.hang("busy", Message(0, b"key", b"slow"), {0: 1}, source.group_metadata())
    assert hanging_in(world) == []
    world.sink("0").open()
    end(committed=True)
    assert forecasts(world) == [b"slow"]
    assert settled(source, [0]) == {0: 1}


def test_without_the_right_it_is_said_what_is_needed(world: KafkaWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    careless = Careless(world)
    careless.write("there", 1, told=True)
    careless.write("left", 0, told=False)
    careless.producer.commit_transaction()

    async def refuse(*_: object) -> None:
        raise ClusterAuthorizationFailedError

    monkeypatch.setattr(kafka_hanging, "_write_marker", refuse)  # a broker whose own rights are taken stops working
    with pytest.raises(AccessDenied, match=r"-0 from offset 0.*CLUSTER_ACTION.*it was committed"):
        world.sink().open()


@pytest.mark.parametrize("letter", "abcdefgh")
def test_the_offsets_of_a_group_are_where_the_cluster_keeps_them(world: KafkaWorld, letter: str) -> None:
    world.group = f"{world.group}-{letter}"  # hashes of either sign
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    end = world.hang("0", forecast("a").messages["forecasts"][0], {0: 1}, source.group_metadata())
    admin = KafkaAdminClient(**world._options())
    id_ = transactional_id(world.group, "0")
    (offsets,) = (tp for tp in admin.describe_transactions([id_])[id_].topic_partitions if tp.topic == OFFSETS_TOPIC)
    partitions = len(admin.describe_topics([OFFSETS_TOPIC])[0]["partitions"])
    admin.close()
    end(committed=False)
    assert partitions > 1
    assert offsets_partition(world.group, partitions) == offsets.partition
