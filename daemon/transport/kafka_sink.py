"""The output topics on kafka-python's connections."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from kafka import TopicPartition
from kafka.structs import ConsumerGroupMetadata

from daemon.core.records import Message
from daemon.errors import TickcastError, TopicError
from daemon.transport.kafka_client import close_in_time, connect, reason, translate
from daemon.transport.kafka_producer import TransactionalProducer
from daemon.transport.lane import Lane
from daemon.transport.port import Outgoing
from daemon.transport.remedies import missing, remedied
from daemon.transport.transactional_sink import (
    ABORT_TIMEOUT_SECONDS,
    BATCH_BYTES,
    CLOSE_TIMEOUT_SECONDS,
    METADATA_TIMEOUT_SECONDS,
    REQUEST_TIMEOUT_SECONDS,
    TRANSACTION_TIMEOUT_SECONDS,
    TransactionalSink,
)

_log = logging.getLogger(__name__)

#: What the producer gets to end a call by itself, before it is abandoned.
OVERTIME_SECONDS = 1.0


class Laned(NamedTuple):
    """A producer that is called on a thread of its own: a signal finds ours waiting and nothing else."""

    producer: TransactionalProducer
    lane: Lane

    def call(self, function: Callable[[TransactionalProducer, float], None], seconds: float) -> None:
        """Let the producer do something within a time."""
        self.lane.call(lambda: function(self.producer, seconds), seconds + OVERTIME_SECONDS)


class KafkaSink(TransactionalSink[Laned]):
    """A `Sink` on our own producer of transactions."""

    def close(self) -> None:
        """Let go of the producer, see `TransactionalSink.close`."""
        held, self._held = self._held, None
        if held is None:
            return
        producer, lane = held
        if not lane.blocked:
            close_in_time(lambda: lane.call(producer.close, CLOSE_TIMEOUT_SECONDS), CLOSE_TIMEOUT_SECONDS, "producer")
        lane.close()

    def _connect(self) -> Laned:
        producer = connect(
            TransactionalProducer,
            self._connection,
            self._timeout_seconds,
            client_id=f"tickcast-{self._instance_id}",
            transactional_id=self._transactional_id,
            transaction_timeout_ms=int(TRANSACTION_TIMEOUT_SECONDS * 1000),
            request_timeout_ms=int(REQUEST_TIMEOUT_SECONDS * 1000),
            batch_bytes=BATCH_BYTES,
        )
        return Laned(producer, Lane("sink"))

    def _claim(self) -> None:
        self._producing.call(TransactionalProducer.claim, TRANSACTION_TIMEOUT_SECONDS)

    def _learn_partitions(self) -> None:
        topics = list(self._topics.values())
        self._producing.call(lambda producer, seconds: producer.learn(topics, seconds), METADATA_TIMEOUT_SECONDS)
        for topic in topics:
            if not self._partitions_of(topic):
                raise missing(topic)

    def _transact(self, outgoing: Outgoing, offsets: Mapping[int, int], group_metadata: object) -> None:
        assert isinstance(group_metadata, ConsumerGroupMetadata)
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_SECONDS
        messages = {self._topics[role]: each for role, each in outgoing.messages.items()}
        positions = {TopicPartition(self._ticks_topic, partition): offset for partition, offset in offsets.items()}
        self._require_partitions(messages)
        self._producing.call(
            lambda producer, seconds: producer.transact(messages, positions, group_metadata, seconds),
            deadline - time.monotonic(),
        )

    def _require_partitions(self, messages: Mapping[str, Sequence[Message]]) -> None:
        """Make sure that the partitions written to exist; topics grow, so look again where one is new.

        Raises
        ------
        TopicError : one does not exist
        """
        wanted = {topic: {message.partition for message in each} for topic, each in messages.items()}
        if all(partitions <= self._partitions_of(topic) for topic, partitions in wanted.items()):
            return
        self._learn_partitions()
        for topic, partitions in wanted.items():
            for partition in sorted(partitions - self._partitions_of(topic)):
                raise remedied(TopicError, f"cannot write to {topic}: there is no partition {partition}")

    def _partitions_of(self, topic: str) -> frozenset[int]:
        return self._producing.producer.partitions_of(topic)

    def _abort(self) -> None:
        if self._producing.lane.blocked:
            return
        try:
            self._producing.call(TransactionalProducer.abort, ABORT_TIMEOUT_SECONDS)
        except Exception as error:  # fenced, or already aborted by the coordinator: the first error says more
            _log.debug("the transaction could not be aborted: %s", reason(error))

    def _explain(self, error: Exception, doing: str) -> TickcastError:
        return translate(error, doing)
