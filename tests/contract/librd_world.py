"""The real cluster by librdkafka."""

from __future__ import annotations

from functools import partial

import confluent_kafka

from daemon.core.records import Message
from daemon.transport.connection import transactional_id
from daemon.transport.librd_reader import LibrdReader
from daemon.transport.librd_sink import LibrdSink
from daemon.transport.librd_source import LibrdSource, Membership
from daemon.transport.port import Reader
from tests.contract.worlds import End, KafkaWorld, end_transaction


class LibrdWorld(KafkaWorld):
    """The same broker by librdkafka; only what is under test, and what takes a membership of it, is another."""

    adapter = "librd"
    source_class = LibrdSource
    sink_class = LibrdSink

    def reader(self, timeout_seconds: float = 5) -> Reader:
        reader = LibrdReader(self._connection, self.read_back, group_id=self.group, timeout_seconds=timeout_seconds)
        self._close.append(reader.close)
        return reader

    def hang(self, instance: str, message: Message, offsets: dict[int, int], group_metadata: object) -> End:
        assert isinstance(group_metadata, Membership)
        producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": self._connection.bootstrap_servers,
                "transactional.id": transactional_id(self.group, instance),
            }
        )
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(self.topics.forecasts, message.value, message.key, message.partition)
        producer.flush(20)
        positions = [confluent_kafka.TopicPartition(self.topics.ticks, p, at) for p, at in offsets.items()]
        producer.send_offsets_to_transaction(positions, group_metadata.metadata(), 20)
        return partial(end_transaction, producer)
