"""The output topics on kafka-python: one transaction per batch, and a new producer after any that failed.

Why a failed producer is never used again: what has become of its transaction is not known, and claiming the
transactional id anew settles it.

What a fence means. `ProducerFencedError` and `InvalidProducerEpochError` say that the coordinator gave our
transactional id a newer epoch: because our own transaction was older than its timeout, or because another producer was
opened with the id. The first is our own affair, and a rebuilt producer goes on. The second happens only when one
instance of one group runs twice (`transactional_id`), and then the ids of group membership, which are the same too,
decide: the process that joined the group last owns the name, and the offsets of the other are refused with
`FencedInstanceIdError` from then on. So a fenced producer is `TransactionFailed`, a fenced member is `Fenced`: the
newer of two processes may lose a transaction to the older one but survives it, and the older one always ends. Were a
fenced producer a reason to exit, the two could end each other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.structs import ConsumerGroupMetadata

from daemon.core.records import Message
from daemon.errors import AccessDenied, BrokerUnavailable, Fenced, TopicError, TransactionFailed
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection, transactional_id
from daemon.transport.kafka_client import close_in_time, connect, reason, translate
from daemon.transport.kafka_hanging import end_hanging, read_last
from daemon.transport.kafka_producer import TransactionalProducer
from daemon.transport.lane import Lane
from daemon.transport.port import Outgoing, Role

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: How long a killed process can block `read_committed` readers and the next owner; Kafka Streams chose the same.
TRANSACTION_TIMEOUT_SECONDS = 10.0
#: Below it, so that a request whose answer was lost is sent again within the transaction.
REQUEST_TIMEOUT_SECONDS = 5.0
#: Of keys and values: a partition gets one batch per round trip, so batches must be large; below the brokers' default
#: of 1 MiB for a batch, compressed or not.
BATCH_BYTES = 256 * 1024
ABORT_TIMEOUT_SECONDS = 3.0
#: What the producer gets to end a call by itself, before it is abandoned.
OVERTIME_SECONDS = 1.0
#: For the question where the partitions are.
METADATA_TIMEOUT_SECONDS = 3.0
CLOSE_TIMEOUT_SECONDS = 5.0
#: For each of two questions about transactions that hang; above the patience with leaders and coordinators in them.
ASK_TIMEOUT_SECONDS = 45.0

#: Failures that no new producer mends; everything else is `TransactionFailed`.
FINAL = (AccessDenied, Fenced, TopicError)


class KafkaSink:
    """A `Sink` on one transactional producer at a time.

    Every call is bounded, and runs on a `Lane` so that a signal finds its thread waiting and nothing else: a
    transaction has until its coordinator would abort it anyway. What then still hangs is abandoned with its producer,
    which the next `open` fences.
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
        self._producer: TransactionalProducer | None = None
        self._lane: Lane | None = None

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
        self._producer = connect(
            TransactionalProducer,
            self._connection,
            self._timeout_seconds,
            client_id=f"tickcast-{self._instance_id}",
            transactional_id=self._transactional_id,
            transaction_timeout_ms=int(TRANSACTION_TIMEOUT_SECONDS * 1000),
            request_timeout_ms=int(REQUEST_TIMEOUT_SECONDS * 1000),
            batch_bytes=BATCH_BYTES,
        )
        self._lane = Lane("sink")
        try:
            last = self._ask(lambda admin: read_last(admin, self._transactional_id))
            self._call(TransactionalProducer.claim, TRANSACTION_TIMEOUT_SECONDS)
            topics = self._topics.values()
            self._ask(lambda admin: end_hanging(admin, self._group_id, self._instance_id, topics, last))
            self._learn_partitions()
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
        if self._producer is None or self._lane is None:
            self.open()
        assert isinstance(group_metadata, ConsumerGroupMetadata)
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_SECONDS
        messages = {self._topics[role]: each for role, each in outgoing.messages.items()}
        positions = {TopicPartition(self._ticks_topic, partition): offset for partition, offset in offsets.items()}
        try:
            self._require_partitions(messages)
            self._call(
                lambda producer, seconds: producer.transact(messages, positions, group_metadata, seconds),
                deadline - time.monotonic(),
            )
        except BaseException as error:
            self._abort()
            self._discard()
            if not isinstance(error, Exception):
                raise  # a signal's exception: nothing may be left open, nothing to explain
            ours = translate(error, "writing a transaction")
            if isinstance(ours, FINAL):
                raise ours from error
            raise TransactionFailed(str(ours)) from error

    def close(self) -> None:
        """Abort what is open and close the producer. Bounded in time, never raises."""
        self._discard()

    def _ask(self, question: Callable[[KafkaAdminClient], Answer]) -> Answer:
        return self._admin.ask(question, "looking for transactions that Kafka left open", ASK_TIMEOUT_SECONDS)

    def _call(self, function: Callable[[TransactionalProducer, float], None], seconds: float) -> None:
        """Let the producer do something within a time."""
        producer, lane = self._producer, self._lane
        assert producer is not None
        assert lane is not None
        lane.call(lambda: function(producer, seconds), seconds + OVERTIME_SECONDS)

    def _learn_partitions(self) -> None:
        """Look where the partitions of the output topics are.

        Raises
        ------
        TopicError : one of the topics does not exist
        """
        topics = list(self._topics.values())
        self._call(lambda producer, seconds: producer.learn(topics, seconds), METADATA_TIMEOUT_SECONDS)
        for topic in topics:
            if not self._partitions_of(topic):
                raise TopicError(f"the topic {topic} does not exist; `tickcast topics create` makes it")

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
                raise TopicError(
                    f"cannot write to {topic}: there is no partition {partition}; see `tickcast topics check`"
                )

    def _partitions_of(self, topic: str) -> frozenset[int]:
        assert self._producer is not None
        return self._producer.partitions_of(topic)

    def _abort(self) -> None:
        """Abort if the client can still do so: a process that ends now would else block readers until the timeout."""
        assert self._lane is not None
        if self._lane.blocked:
            return
        try:
            self._call(TransactionalProducer.abort, ABORT_TIMEOUT_SECONDS)
        except Exception as error:  # fenced, or already aborted by the coordinator: the first error says more
            _log.debug("the transaction could not be aborted: %s", reason(error))

    def _discard(self) -> None:
        producer, lane = self._producer, self._lane
        self._producer = self._lane = None
        if producer is None or lane is None:
            return
        if not lane.blocked:
            close_in_time(lambda: lane.call(producer.close, CLOSE_TIMEOUT_SECONDS), CLOSE_TIMEOUT_SECONDS, "producer")
        lane.close()
