"""The output topics on kafka-python: one transaction per batch, and a new producer after any that failed.

Why a failed producer is never used again: after an aborted transaction kafka-python 3.0.12 keeps the offsets that were
to be committed, and the next transaction commits them too, rewinding whoever owns those partitions now (measured).

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
from collections.abc import Callable, Mapping
from typing import TypeVar

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.producer.future import FutureRecordMetadata
from kafka.structs import OffsetAndMetadata

from daemon.errors import AccessDenied, BrokerUnavailable, Fenced, TopicError, TransactionFailed
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection, transactional_id
from daemon.transport.kafka_client import connect, let_go, reason, translate
from daemon.transport.kafka_hanging import end_hanging, read_last
from daemon.transport.kafka_topic import refresh
from daemon.transport.lane import Lane
from daemon.transport.port import Outgoing, Role

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

#: How long a killed process can block `read_committed` readers and the next owner; Kafka Streams chose the same.
TRANSACTION_TIMEOUT_SECONDS = 10.0
#: One request and one delivery must fail within the transaction, or a lost record would only show after it.
REQUEST_TIMEOUT_SECONDS = 5.0
DELIVERY_TIMEOUT_SECONDS = 8.0
#: `commit` flushes, so lingering costs no latency; without it the sender thread wakes up for single records.
LINGER_MS = 100
#: A partition sends one batch per round trip, so batches must be large; uncompressed, below the brokers' default of
#: 1 MiB for a batch.
BATCH_BYTES = 256 * 1024
#: The size of a value is for the topics to limit: a dead letter is larger than the tick it holds.
MAX_REQUEST_BYTES = 32 * 1024 * 1024
#: Slept on every "previous transaction still completing": often, when small batches follow each other. At 10 the
#: mean commit at 1,000 ticks/s took 14 ms, at 2 it took 8 to 10.
RETRY_BACKOFF_MS = 2
ABORT_TIMEOUT_SECONDS = 3.0
#: Asked for when a transaction writes to a partition that the producer has not heard of: topics grow.
METADATA_TIMEOUT_SECONDS = 3.0
CLOSE_TIMEOUT_SECONDS = 5.0
#: For each of two questions about transactions that hang; above the patience with leaders and coordinators in them.
ASK_TIMEOUT_SECONDS = 45.0

#: Failures that no new producer mends; everything else is `TransactionFailed`.
FINAL = (AccessDenied, Fenced, TopicError)


class KafkaSink:
    """A `Sink` on one transactional producer at a time.

    Every call is bounded: those that can wait for ever run on a `Lane`, and a transaction has until its coordinator
    would abort it anyway. What then still hangs is abandoned with its producer, which the next `open` fences.
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
        self._producer: KafkaProducer | None = None
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
        producer = connect(
            KafkaProducer,
            self._connection,
            self._timeout_seconds,
            client_id=f"tickcast-{self._instance_id}",
            transactional_id=self._transactional_id,
            transaction_timeout_ms=int(TRANSACTION_TIMEOUT_SECONDS * 1000),
            acks="all",
            compression_type="lz4",
            linger_ms=LINGER_MS,
            batch_size=BATCH_BYTES,
            max_request_size=MAX_REQUEST_BYTES,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            request_timeout_ms=int(REQUEST_TIMEOUT_SECONDS * 1000),
            delivery_timeout_ms=int(DELIVERY_TIMEOUT_SECONDS * 1000),
            max_block_ms=int(TRANSACTION_TIMEOUT_SECONDS * 1000),
            metrics_enabled=False,
        )
        self._producer, self._lane = producer, Lane("sink")
        try:
            last = self._ask(lambda admin: read_last(admin, self._transactional_id))
            producer.init_transactions()
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
        if self._producer is None or self._lane is None:
            self.open()
        producer, lane = self._producer, self._lane
        assert producer is not None
        assert lane is not None
        deadline = time.monotonic() + TRANSACTION_TIMEOUT_SECONDS
        try:
            self._learn_partitions(producer, max(offsets))
            producer.begin_transaction()
            futures = self._send(producer, outgoing)
            producer.flush(deadline - time.monotonic())
            _check(futures)
            positions = {
                TopicPartition(self._ticks_topic, partition): OffsetAndMetadata(offset, "", -1)
                for partition, offset in offsets.items()
            }
            lane.call(
                lambda: producer.send_offsets_to_transaction(positions, group_metadata), deadline - time.monotonic()
            )
            lane.call(producer.commit_transaction, deadline - time.monotonic())
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

    def _send(self, producer: KafkaProducer, outgoing: Outgoing) -> list[FutureRecordMetadata]:
        send = producer.send
        futures: list[FutureRecordMetadata] = []
        for role, messages in outgoing.messages.items():
            topic = self._topics[role]
            try:
                for partition, key, value, headers in messages:
                    if value is None and key is None:
                        value = b""  # kafka-python refuses to write a record with neither; other clients write them
                    futures.append(send(topic, value, key, list(headers), partition))
            except (ValueError, KafkaTimeoutError) as error:  # no such partition, no such topic
                raise TopicError(f"cannot write to {topic}: {reason(error)}; see `tickcast topics check`") from error
        return futures

    def _ask(self, question: Callable[[KafkaAdminClient], Answer]) -> Answer:
        return self._admin.ask(question, "looking for transactions that Kafka left open", ASK_TIMEOUT_SECONDS)

    def _look_up_topics(self, producer: KafkaProducer) -> None:
        """Learn the partitions of the output topics now, not inside the first transaction."""
        for topic in self._topics.values():
            try:
                producer.partitions_for(topic)
            except KafkaTimeoutError as error:
                raise TopicError(f"the topic {topic} does not exist; `tickcast topics create` makes it") from error

    def _learn_partitions(self, producer: KafkaProducer, highest: int) -> None:
        """Look again where partitions are written to that were not there yet; kafka-python would refuse them."""
        if any(highest not in producer.partitions_for(topic) for topic in self._topics.values()):
            refresh(producer._metadata, METADATA_TIMEOUT_SECONDS)

    def _abort(self) -> None:
        """Abort if the client can still do so: a process that ends now would else block readers until the timeout."""
        assert self._producer is not None
        assert self._lane is not None
        if self._lane.blocked:
            return
        try:
            self._lane.call(self._producer.abort_transaction, ABORT_TIMEOUT_SECONDS)
        except Exception as error:  # fenced, or already aborted by the coordinator: the first error says more
            _log.debug("the transaction could not be aborted: %s", reason(error))

    def _discard(self) -> None:
        producer, lane = self._producer, self._lane
        self._producer = self._lane = None
        if producer is None or lane is None:
            return
        lane.close()
        let_go(producer, CLOSE_TIMEOUT_SECONDS)


def _check(futures: list[FutureRecordMetadata]) -> None:
    """Raise the first failure: kafka-python commits a transaction although a record of it expired or was refused."""
    for future in futures:
        if future.exception is not None:
            raise future.exception
        if not future.is_done:
            raise KafkaTimeoutError("a record was neither delivered nor refused")
