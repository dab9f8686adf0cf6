"""Clusters with one face, the real one by either client: what the contract suite needs beside the ports themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, Protocol

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.structs import OffsetAndMetadata

from daemon.core.records import Message, Record
from daemon.transport.admin import grow_topics
from daemon.transport.connection import Connection, transactional_id
from daemon.transport.kafka_reader import KafkaReader
from daemon.transport.kafka_sink import KafkaSink
from daemon.transport.kafka_source import KafkaSource
from daemon.transport.memory import MemoryReader, MemorySink, MemorySource
from daemon.transport.memory_group import Membership
from daemon.transport.memory_log import MemoryLog
from daemon.transport.port import Readable, Reader, Role, Sink, Source
from tests.kafka_fixture import make_topics

PARTITIONS = 4
GROUP = "group"
CLIENTS = ("kafka-python", "librdkafka")

Isolation = Literal["read_committed", "read_uncommitted"]


class End(Protocol):
    """Ends an open transaction."""

    def __call__(self, *, committed: bool) -> None: ...


class World(Protocol):
    """A cluster of one test, with empty topics."""

    def source(self, instance: str = "0") -> Source: ...
    def sink(self, instance: str = "0") -> Sink: ...
    def reader(self) -> Reader: ...
    def produce(self, messages: Iterable[Message]) -> None:
        """Write ticks outside any transaction."""
        ...

    def produce_transaction(self, messages: Iterable[Message], *, committed: bool) -> None:
        """Write ticks in a transaction and end it."""
        ...

    def begin(self, topic: Readable, messages: Iterable[Message]) -> End:
        """Write records in somebody else's transaction, and leave it open until the function returned is called."""
        ...

    def hang(self, instance: str, message: Message, offsets: dict[int, int], group_metadata: object) -> End:
        """Leave a transaction of this instance open, as a killed process does."""
        ...

    def read(self, role: Role, isolation: Isolation = "read_committed") -> list[Record]:
        """Return everything such a reader finds in an output topic, by partition and offset."""
        ...

    def expel(self, instance: str) -> None:
        """Take a member out of the group without its knowledge."""
        ...

    def trim(self, partition: int, first: int) -> None:
        """Delete the ticks of a partition before the offset `first`."""
        ...

    def recreate(self) -> None:
        """Delete the topic of the ticks and create it anew, empty."""
        ...

    def grow(self, partitions: int) -> None:
        """Add partitions to every topic."""
        ...

    def close(self) -> None: ...


class MemoryWorld:
    """The log in memory."""

    def __init__(self) -> None:
        self.log = MemoryLog(PARTITIONS)

    def source(self, instance: str = "0") -> Source:
        return MemorySource(self.log, group_id=GROUP, instance_id=instance)

    def sink(self, instance: str = "0") -> Sink:
        return MemorySink(self.log, group_id=GROUP, instance_id=instance)

    def reader(self) -> Reader:
        return MemoryReader(self.log)

    def produce(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.log.produce(message.partition, message.key, message.value, message.headers)

    def produce_transaction(self, messages: Iterable[Message], *, committed: bool) -> None:
        self.begin("ticks", messages)(committed=committed)

    def begin(self, topic: Readable, messages: Iterable[Message]) -> End:
        claim = self.log.claim("somebody")
        self.log.begin(claim)
        for message in messages:
            self.log.append(claim, topic, message)
        return partial(self.log.end, claim)

    def hang(self, instance: str, message: Message, offsets: dict[int, int], group_metadata: object) -> End:
        assert isinstance(group_metadata, Membership)
        claim = self.log.claim(transactional_id(GROUP, instance))
        self.log.begin(claim)
        self.log.append(claim, "forecasts", message)
        self.log.add_offsets(claim, group_metadata, offsets)
        return partial(self.log.end, claim)

    def read(self, role: Role, isolation: Isolation = "read_committed") -> list[Record]:
        return list(self.log.read(role, isolation))

    def expel(self, instance: str) -> None:
        self.log.group(GROUP).expel(instance)

    def trim(self, partition: int, first: int) -> None:
        self.log.trim("ticks", partition, first)

    def recreate(self) -> None:
        self.log.recreate("ticks")

    def grow(self, partitions: int) -> None:
        self.log.grow(partitions)

    def close(self) -> None:
        pass


class KafkaWorld:
    """A real broker; topics and group are the test's own."""

    #: How the modules of the client begin.
    adapter = "kafka"
    source_class: Callable[..., Source] = KafkaSource
    sink_class: Callable[..., Sink] = KafkaSink

    def __init__(self, bootstrap: str) -> None:
        self._connection = Connection(bootstrap)
        self.topics = make_topics(bootstrap, "contract", PARTITIONS)
        self.group = f"{GROUP}-{self.topics.ticks}"
        self.written: dict[Role, str] = {
            "forecasts": self.topics.forecasts,
            "state": self.topics.state,
            "dead_letters": self.topics.dead_letters,
        }
        self.read_back: dict[Readable, str] = {"ticks": self.topics.ticks, "state": self.topics.state}
        self._close: list[Callable[[], None]] = []

    def source(self, instance: str = "0") -> Source:
        source = self.source_class(
            self._connection, topic=self.topics.ticks, group_id=self.group, instance_id=instance, timeout_seconds=20
        )
        self._close.append(lambda: source.close(leave=True))
        return source

    def sink(self, instance: str = "0") -> Sink:
        sink = self.sink_class(
            self._connection,
            topics=self.written,
            ticks_topic=self.topics.ticks,
            group_id=self.group,
            instance_id=instance,
            timeout_seconds=20,
        )
        self._close.append(sink.close)
        return sink

    def reader(self, timeout_seconds: float = 5) -> Reader:
        reader = KafkaReader(self._connection, self.read_back, timeout_seconds=timeout_seconds)
        self._close.append(reader.close)
        return reader

    def produce(self, messages: Iterable[Message]) -> None:
        producer = self._producer()
        self._send(producer, messages)
        producer.flush(10)

    def produce_transaction(self, messages: Iterable[Message], *, committed: bool) -> None:
        self.begin("ticks", messages)(committed=committed)

    def begin(self, topic: Readable, messages: Iterable[Message]) -> End:
        producer = self._begin(f"somebody-{self.group}")
        self._send(producer, messages, topic)
        producer.flush(10)
        return partial(end_transaction, producer)

    def hang(self, instance: str, message: Message, offsets: dict[int, int], group_metadata: object) -> End:
        producer = self._begin(transactional_id(self.group, instance))
        self._send(producer, [message], "forecasts")
        producer.flush(10)
        positions = {TopicPartition(self.topics.ticks, p): OffsetAndMetadata(at, "", -1) for p, at in offsets.items()}
        producer.send_offsets_to_transaction(positions, group_metadata)
        return partial(end_transaction, producer)

    def read(self, role: Role, isolation: Isolation = "read_committed") -> list[Record]:
        topic = getattr(self.topics, role)
        consumer = KafkaConsumer(isolation_level=isolation, auto_offset_reset="earliest", **self._options())
        try:
            partitions = [TopicPartition(topic, partition) for partition in consumer.partitions_for_topic(topic)]
            consumer.assign(partitions)
            ends = consumer.end_offsets(partitions)
            records: list[Record] = []
            while any(consumer.position(tp) < ends[tp] for tp in partitions):
                for batch in consumer.poll(timeout_ms=200).values():
                    records += batch
        finally:
            consumer.close()
        return sorted(records, key=lambda record: (record.partition, record.offset))

    def expel(self, instance: str) -> None:
        admin = KafkaAdminClient(**self._options())
        admin.remove_group_members(self.group, [MemberToRemove(group_instance_id=instance)])
        admin.close()

    def trim(self, partition: int, first: int) -> None:
        admin = KafkaAdminClient(**self._options())
        admin.delete_records({TopicPartition(self.topics.ticks, partition): first})
        admin.close()

    def recreate(self) -> None:
        self.delete_ticks()
        admin = KafkaAdminClient(**self._options())
        admin.create_topics({self.topics.ticks: {"num_partitions": PARTITIONS}}, wait_for_metadata=True)
        admin.close()

    def delete_ticks(self) -> None:
        """Delete the topic of the ticks; it is gone on return."""
        admin = KafkaAdminClient(**self._options())
        admin.delete_topics([self.topics.ticks])
        while self.topics.ticks in admin.list_topics():
            pass
        admin.close()

    def grow(self, partitions: int) -> None:
        list(grow_topics(self._connection, self.topics, partitions))

    def patch(self, monkeypatch: pytest.MonkeyPatch, part: Literal["sink", "source"], **bounds: float) -> None:
        """Set bounds of the sinks or sources to be built."""
        for name, seconds in bounds.items():
            monkeypatch.setattr(f"daemon.transport.{self.adapter}_{part}.{name}", seconds)

    def close(self) -> None:
        for close in reversed(self._close):
            close()

    def _options(self) -> dict[str, object]:
        return self._connection.client_options()

    def _producer(self, **options: object) -> KafkaProducer:
        producer = KafkaProducer(**self._options(), **options)
        self._close.append(lambda: producer.close(timeout=5))
        return producer

    def _begin(self, writer: str) -> KafkaProducer:
        producer = self._producer(transactional_id=writer)
        producer.init_transactions()
        producer.begin_transaction()
        return producer

    def _send(self, producer: KafkaProducer, messages: Iterable[Message], role: Role | Readable = "ticks") -> None:
        topic = getattr(self.topics, role)
        for m in messages:
            producer.send(topic, m.value, m.key, headers=list(m.headers), partition=m.partition)


def real_world(client: str, bootstrap: str) -> KafkaWorld:
    """Return a real broker by one of `CLIENTS`; skips where the client is not installed."""
    if client == "kafka-python":
        return KafkaWorld(bootstrap)
    pytest.importorskip("confluent_kafka", reason="the extra librdkafka is not installed")
    from tests.contract.librd_world import LibrdWorld

    return LibrdWorld(bootstrap)


def source_class(client: str) -> Any:
    """Return the `Source` of one of `CLIENTS`; skips where the client is not installed."""
    if client == "kafka-python":
        return KafkaSource
    return pytest.importorskip(
        "daemon.transport.librd_source", reason="the extra librdkafka is not installed"
    ).LibrdSource


def end_transaction(producer: Any, *, committed: bool) -> None:
    """End the transaction of a producer of either client."""
    if committed:
        producer.commit_transaction()
    else:
        producer.abort_transaction()
