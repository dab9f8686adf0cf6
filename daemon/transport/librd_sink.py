"""The output topics on librdkafka.

librdkafka counts the records of a transaction itself: a commit fails where any of them was not delivered, so no record
has to be followed up. Why it was not, only its delivery report says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from daemon.errors import BrokerUnavailable, TickcastError, TopicError
from daemon.transport.kafka_client import close_in_time
from daemon.transport.knock import reach
from daemon.transport.librd_client import ClientLog, Password, client_options, reason, translate
from daemon.transport.librd_source import Membership
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

#: Records leave while the rest of the batch is still being handed over, and while the offsets are sent.
LINGER_MS = 1
#: A delivery must fail within the transaction, or a lost record would only show after it.
DELIVERY_TIMEOUT_SECONDS = 8.0
#: The size of a value is for the topics to limit: a dead letter is larger than the tick it holds.
MAX_REQUEST_BYTES = 32 * 1024 * 1024
#: Slept on every "previous transaction still completing": at its default of 100 every transaction took 110 ms.
RETRY_BACKOFF_MS = 2
#: Of the records that wait to be sent; their bytes are bounded too, and who meets a bound waits for room.
QUEUE_RECORDS = 1_000_000
QUEUE_KIB = 256 * 1024
ROOM_SECONDS = 0.05


class Renewed(NamedTuple):
    """A producer, and its password as it is now."""

    producer: Producer
    password: Password


class LibrdSink(TransactionalSink[Renewed]):
    """A `Sink` on librdkafka's transactional producer."""

    #: How many partitions each topic has, as far as the producer knows.
    _partition_counts: Mapping[str, int] = {}
    #: Why the first record of this transaction that was not delivered was not.
    _undelivered: KafkaError | None = None

    def close(self) -> None:
        """Let go of the producer, see `TransactionalSink.close`: its end waits for requests on their way."""
        if self._held is not None:
            end = partial(_end, [self._held.producer])
            self._held = None
            close_in_time(end, CLOSE_TIMEOUT_SECONDS, "producer")

    def _connect(self) -> Renewed:
        self._undelivered = None
        producer = reach(self._connection, self._timeout_seconds, lambda _: self._build())
        return Renewed(producer, Password(self._connection, producer))

    def _build(self) -> Producer:
        options = {
            "client.id": f"tickcast-{self._instance_id}",
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": int(TRANSACTION_TIMEOUT_SECONDS * 1000),
            "socket.timeout.ms": int(REQUEST_TIMEOUT_SECONDS * 1000),
            "request.timeout.ms": int(REQUEST_TIMEOUT_SECONDS * 1000),
            "delivery.timeout.ms": int(DELIVERY_TIMEOUT_SECONDS * 1000),
            "compression.type": "lz4",
            "linger.ms": LINGER_MS,
            "batch.size": BATCH_BYTES,
            "message.max.bytes": MAX_REQUEST_BYTES,
            "retry.backoff.ms": RETRY_BACKOFF_MS,
            "queue.buffering.max.messages": QUEUE_RECORDS,
            "queue.buffering.max.kbytes": QUEUE_KIB,
            "delivery.report.only.error": True,
            "on_delivery": self._on_delivery,
        }
        return Producer(client_options(self._connection) | options, logger=ClientLog())

    def _on_delivery(self, error: KafkaError, _: Message) -> None:
        self._undelivered = self._undelivered or error

    def _claim(self) -> None:
        self._producing.producer.init_transactions(TRANSACTION_TIMEOUT_SECONDS)

    def _learn_partitions(self) -> None:
        """Learn them; librdkafka refuses records for others."""
        counts = {}
        for topic in self._topics.values():
            found = self._producing.producer.list_topics(topic, METADATA_TIMEOUT_SECONDS).topics[topic]
            if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise missing(topic)
            if found.error is not None:
                raise KafkaException(found.error)
            counts[topic] = len(found.partitions)
        self._partition_counts = counts

    def _transact(self, outgoing: Outgoing, offsets: Mapping[int, int], group_metadata: object) -> None:
        assert isinstance(group_metadata, Membership)
        producer, password = self._producing
        password.renew()
        producer.poll(0)  # what librdkafka has asked for since the last one: a token
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_SECONDS
        positions = [TopicPartition(self._ticks_topic, partition, at) for partition, at in offsets.items()]
        if any(max(offsets) >= count for count in self._partition_counts.values()):
            self._learn_partitions()  # topics grow
        while not self._write(producer, outgoing, positions, group_metadata, deadline):
            producer.abort_transaction(_left(deadline))

    def _write(
        self,
        producer: Producer,
        outgoing: Outgoing,
        positions: list[TopicPartition],
        membership: Membership,
        deadline: float,
    ) -> bool:
        """Write one transaction; return False where the group's generation moved while it was written.

        Such a one is to be aborted and written again. To start over instead would have every member that stays replay
        its ticks whenever another one comes or goes.
        """
        self._undelivered = None
        producer.begin_transaction()
        self._send(producer, outgoing, deadline)
        try:
            producer.send_offsets_to_transaction(positions, membership.metadata(), _left(deadline))
        except KafkaException as error:
            if error.args[0].code() == KafkaError.ILLEGAL_GENERATION and membership.holds:
                return False
            raise
        producer.commit_transaction(_left(deadline))
        return True

    def _send(self, producer: Producer, outgoing: Outgoing, deadline: float) -> None:
        produce = producer.produce
        for role, messages in outgoing.messages.items():
            topic = self._topics[role]
            for partition, key, value, headers in messages:
                if value is None and key is None:
                    value = b""  # kafka-python can write no record with neither, and both clients write the same
                try:
                    if headers:
                        produce(topic, value, key, partition, headers=list(headers))
                    else:
                        produce(topic, value, key, partition)
                except BufferError:  # the checkpoint of very many instruments
                    self._produce_patiently(producer, deadline, topic, value, key, partition, headers=list(headers))
                except KafkaException as error:  # no such partition, or larger than any topic takes
                    what = f"cannot write to {topic}, partition {partition}: {reason(error.args[0])}"
                    raise remedied(TopicError, what) from error

    def _produce_patiently(self, producer: Producer, deadline: float, *args: Any, **options: Any) -> None:
        """Produce one record once there is room for it."""
        while True:
            producer.poll(ROOM_SECONDS)
            with suppress(BufferError):
                producer.produce(*args, **options)
                return
            if time.monotonic() > deadline:
                raise BrokerUnavailable("the records of a transaction were not taken within its time")

    def _abort(self) -> None:
        try:
            self._producing.producer.abort_transaction(ABORT_TIMEOUT_SECONDS)
        except KafkaException as error:  # fenced, or already aborted by the coordinator: the first error says more
            _log.debug("the transaction could not be aborted: %s", reason(error.args[0]))

    def _explain(self, error: Exception, doing: str) -> TickcastError:
        """Explain what went wrong: librdkafka says it in a delivery report, or to whoever begins the next one."""
        if self._undelivered is not None:
            return translate(KafkaException(self._undelivered), doing)
        if self._held is not None and isinstance(error, KafkaException) and error.args[0].code() == KafkaError._STATE:
            try:
                self._held.producer.begin_transaction()
            except KafkaException as told:
                return translate(told, doing)
        return translate(error, doing)


def _end(held: list[Producer]) -> None:
    """Drop a producer, which ends with its last reference; its own `close` tries to deliver, and hung at exit."""
    held.pop().purge()


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
