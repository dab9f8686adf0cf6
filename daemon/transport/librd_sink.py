"""The output topics on librdkafka: one transaction per batch, and a new producer after any that failed.

What a fence means is told in `kafka_sink`; it is the same here. librdkafka counts the records of a transaction itself:
a commit fails where any of them was not delivered, so no record has to be followed up. Why it was not, only its
delivery report says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition
from kafka import KafkaAdminClient

from daemon.errors import BrokerUnavailable, TopicError, TransactionFailed
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection, transactional_id
from daemon.transport.kafka_client import close_in_time
from daemon.transport.kafka_hanging import end_hanging, read_last
from daemon.transport.kafka_sink import (
    ABORT_TIMEOUT_SECONDS,
    ASK_TIMEOUT_SECONDS,
    BATCH_BYTES,
    CLOSE_TIMEOUT_SECONDS,
    FINAL,
    METADATA_TIMEOUT_SECONDS,
    REQUEST_TIMEOUT_SECONDS,
    TRANSACTION_TIMEOUT_SECONDS,
)
from daemon.transport.knock import reach
from daemon.transport.librd_client import ClientLog, Password, client_options, reason, translate
from daemon.transport.librd_source import Membership
from daemon.transport.port import Outgoing, Role

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

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


class LibrdSink:
    """A `Sink` on one transactional producer at a time.

    Every call is bounded, and a transaction has until its coordinator would abort it anyway. What then still hangs is
    abandoned with its producer, which the next `open` fences.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        topics: Mapping[Role, str],
        ticks_topic: str,
        group_id: str,
        instance_id: str,
        timeout_seconds: float = 60.0,
    ) -> None:
        self._connection = connection
        self._topics = dict(topics)
        self._ticks_topic = ticks_topic
        self._group_id = group_id
        self._instance_id = instance_id
        self._transactional_id = transactional_id(group_id, instance_id)
        self._admin = AdminLine(connection)
        self._timeout_seconds = timeout_seconds
        self._producer: Producer | None = None
        self._password: Password | None = None
        #: How many partitions each topic has, as far as the producer knows.
        self._partition_counts: dict[str, int] = {}
        #: Why the first record of this transaction that was not delivered was not.
        self._undelivered: KafkaError | None = None

    def open(self) -> None:
        """Claim our transactional id: fences and aborts what an earlier holder left open, ends what Kafka left open.

        Call it again after `TransactionFailed`, before reading committed offsets: only then is it settled whether a
        commit whose answer was lost has happened.

        Raises
        ------
        BrokerUnavailable, AccessDenied
        TopicError : an output topic does not exist
        """
        self._discard()
        self._producer = producer = reach(self._connection, self._timeout_seconds, lambda _: self._build())
        self._password = Password(self._connection, producer)
        try:
            last = self._ask(lambda admin: read_last(admin, self._transactional_id))
            producer.init_transactions(TRANSACTION_TIMEOUT_SECONDS)
            topics = self._topics.values()
            self._ask(lambda admin: end_hanging(admin, self._group_id, self._instance_id, topics, last))
            self._look_up_topics(producer)
        except Exception as error:
            self._discard()
            ours = translate(error, f"claiming the transactional id {self._transactional_id}")
            raise (ours if isinstance(ours, FINAL) else BrokerUnavailable(str(ours))) from error
        finally:
            self._admin.close()

    def commit(self, outgoing: Outgoing, offsets: Mapping[int, int], group_metadata: object) -> None:
        """Do as `Sink.commit` says; the records carry the time of publishing.

        Raises
        ------
        TransactionFailed : nothing of it is visible, unless the answer to the commit itself was lost: after the next
            `open` the committed offsets tell
        Fenced : another process has taken over our place in the group
        AccessDenied : a right is missing
        TopicError : a topic refuses a record for good, e.g. for its size
        """
        assert offsets, "a transaction without offsets is not fenced"
        assert isinstance(group_metadata, Membership)
        if self._producer is None or self._password is None:
            self.open()
        producer, password = self._producer, self._password
        assert producer is not None
        assert password is not None
        password.renew()
        producer.poll(0)  # what librdkafka has asked for since the last one: a token
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_SECONDS
        positions = [TopicPartition(self._ticks_topic, partition, at) for partition, at in offsets.items()]
        try:
            if any(max(offsets) >= count for count in self._partition_counts.values()):
                self._look_up_topics(producer)  # topics grow
            while not self._write(producer, outgoing, positions, group_metadata, deadline):
                producer.abort_transaction(_left(deadline))
        except BaseException as error:
            cause = self._cause(producer, error)
            self._abort(producer)
            self._discard()
            if not isinstance(error, Exception):
                raise  # a signal's exception: nothing may be left open, nothing to explain
            ours = translate(cause, "writing a transaction")
            if isinstance(ours, FINAL):
                raise ours from error
            raise TransactionFailed(str(ours)) from error

    def close(self) -> None:
        """Abort what is open and close the producer. Bounded in time, never raises."""
        self._discard()

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
                    raise TopicError(
                        f"cannot write to {topic}, partition {partition}: {reason(error.args[0])}; "
                        "see `tickcast topics check`"
                    ) from error

    def _produce_patiently(self, producer: Producer, deadline: float, *args: Any, **options: Any) -> None:
        """Produce one record once there is room for it."""
        while True:
            producer.poll(ROOM_SECONDS)
            with suppress(BufferError):
                producer.produce(*args, **options)
                return
            if time.monotonic() > deadline:
                raise BrokerUnavailable("the records of a transaction were not taken within its time")

    def _ask(self, question: Callable[[KafkaAdminClient], Answer]) -> Answer:
        return self._admin.ask(question, "looking for transactions that Kafka left open", ASK_TIMEOUT_SECONDS)

    def _look_up_topics(self, producer: Producer) -> None:
        """Learn the partitions of the output topics; librdkafka refuses records for others."""
        for topic in self._topics.values():
            found = producer.list_topics(topic, METADATA_TIMEOUT_SECONDS).topics[topic]
            if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise TopicError(f"the topic {topic} does not exist; `tickcast topics create` makes it")
            if found.error is not None:
                raise KafkaException(found.error)
            self._partition_counts[topic] = len(found.partitions)

    def _cause(self, producer: Producer, error: BaseException) -> BaseException:
        """Return why a transaction failed: librdkafka says it in a delivery report, or to whoever begins the next."""
        if self._undelivered is not None:
            return KafkaException(self._undelivered)  # type: ignore[no-any-return]
        if isinstance(error, KafkaException) and error.args[0].code() == KafkaError._STATE:
            try:
                producer.begin_transaction()
            except KafkaException as told:
                return told  # type: ignore[no-any-return]
        return error

    def _abort(self, producer: Producer) -> None:
        """Abort if the client can still do so: a process that ends now would else block readers until the timeout."""
        try:
            producer.abort_transaction(ABORT_TIMEOUT_SECONDS)
        except KafkaException as error:  # fenced, or already aborted by the coordinator: the first error says more
            _log.debug("the transaction could not be aborted: %s", reason(error.args[0]))

    def _discard(self) -> None:
        """Let go of the producer without writing what it still holds: its end waits for requests on their way."""
        if self._producer is not None:
            close = partial(_end, [self._producer])
            self._producer = self._password = None
            close_in_time(close, CLOSE_TIMEOUT_SECONDS, "producer")


def _end(held: list[Producer]) -> None:
    """Drop a producer, which ends with its last reference; its own `close` tries to deliver, and hung at exit."""
    held.pop().purge()


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
