"""Transactions of the tools: records of any topic and offsets of a group without members, all or nothing.

The daemon's own sink is made for one batch after the other under a membership. A tool writes rarely, so every
transaction gets its whole time, and what fails ends the command.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Self

from kafka import KafkaProducer, TopicPartition
from kafka.errors import InvalidProducerEpochError, KafkaError, KafkaTimeoutError, ProducerFencedError
from kafka.producer.future import FutureRecordMetadata
from kafka.structs import ConsumerGroupMetadata, OffsetAndMetadata

from daemon.core.records import Message
from daemon.errors import Fenced, TopicError
from daemon.transport.connection import Connection
from daemon.transport.kafka_client import connect, let_go, reason, translate
from daemon.transport.lane import Lane
from daemon.transport.remedies import remedied

_log = logging.getLogger(__name__)

#: Also how long a tool that is killed inside a transaction can hold readers up, plus 10 s until the broker looks.
TRANSACTION_SECONDS = 30.0
#: One request and one delivery fail within the transaction, or a lost record would only show after it.
REQUEST_SECONDS = 10.0
DELIVERY_SECONDS = 20.0
CONNECT_SECONDS = 15.0
CLOSE_SECONDS = 2.0


class KafkaWriter:
    """Writes transactions under one transactional id; opening it fences whoever held the id before.

    Raises
    ------
    BrokerUnavailable, AccessDenied : the id cannot be claimed
    """

    def __init__(self, connection: Connection, transactional_id: str) -> None:
        self._transactional_id = transactional_id
        self._producer: KafkaProducer = connect(
            KafkaProducer,
            connection,
            CONNECT_SECONDS,
            client_id="tickcast-writer",
            transactional_id=transactional_id,
            transaction_timeout_ms=int(TRANSACTION_SECONDS * 1000),
            acks="all",
            compression_type="lz4",
            linger_ms=50,
            batch_size=256 * 1024,
            max_request_size=32 * 1024 * 1024,
            retry_backoff_ms=2,
            request_timeout_ms=int(REQUEST_SECONDS * 1000),
            delivery_timeout_ms=int(DELIVERY_SECONDS * 1000),
            max_block_ms=int(CONNECT_SECONDS * 1000),
            metrics_enabled=False,
        )
        self._lane = Lane("writer")
        try:
            self._lane.call(self._producer.init_transactions, TRANSACTION_SECONDS)
        except Exception as error:
            self.close()
            raise translate(error, f"claiming the transactional id {transactional_id}") from error

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Begin a transaction; commit it at the end of the block, abort it when the block raises.

        Raises
        ------
        Fenced : somebody else has opened the transactional id; nothing of it is visible
        BrokerUnavailable : it failed; nothing of it is visible, unless only the answer to the commit was lost
        TopicError, AccessDenied : nothing of it is visible
        """
        transaction = Transaction(self._producer, self._lane)
        self._producer.begin_transaction()
        try:
            yield transaction
            transaction.flush()
            self._lane.call(self._producer.commit_transaction, transaction.left_seconds)
        except BaseException as error:
            self._abort()
            if not isinstance(error, KafkaError):
                raise
            if isinstance(error, ProducerFencedError | InvalidProducerEpochError):
                raise Fenced(
                    f"another command has taken the transactional id {self._transactional_id} over, or the transaction "
                    f"took longer than {TRANSACTION_SECONDS:g} s; nothing of it was written, see what the other did"
                ) from error
            raise translate(error, "writing a transaction") from error

    def close(self) -> None:
        """Let the producer go. Bounded in time, never raises."""
        self._lane.close()
        let_go(self._producer, CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _abort(self) -> None:
        if self._lane.blocked:
            return
        try:
            self._lane.call(self._producer.abort_transaction, CLOSE_SECONDS)
        except Exception as error:  # fenced, or aborted by the coordinator: the first error says more
            _log.debug("the transaction could not be aborted: %s", reason(error))


class Transaction:
    """One transaction that is open."""

    def __init__(self, producer: KafkaProducer, lane: Lane) -> None:
        self._producer = producer
        self._lane = lane
        self._deadline = time.monotonic() + TRANSACTION_SECONDS
        self._futures: list[FutureRecordMetadata] = []

    @property
    def left_seconds(self) -> float:
        """Time until the coordinator aborts it."""
        return max(0.1, self._deadline - time.monotonic())

    def send(self, topic: str, message: Message) -> None:
        """Write a record; whether the broker took it shows at `flush`.

        Raises
        ------
        TopicError : there is no such topic or partition
        """
        try:
            future = self._producer.send(
                topic, message.value, message.key, list(message.headers), partition=message.partition
            )
        except (ValueError, KafkaTimeoutError, AssertionError) as error:
            raise remedied(TopicError, f"cannot write to {topic}: {reason(error)}") from error
        self._futures.append(future)

    def flush(self) -> None:
        """Wait until every record stands in the log; kafka-python would commit without one that was refused."""
        self._producer.flush(self.left_seconds)
        for future in self._futures:
            if future.exception is not None:
                raise future.exception
            if not future.is_done:
                raise KafkaTimeoutError("a record was neither delivered nor refused")
        self._futures.clear()

    def commit_offsets(self, group_id: str, topic: str, offsets: Mapping[int, int]) -> None:
        """Let the offsets of a group that never has members become committed together with the records."""
        positions = {TopicPartition(topic, p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
        group = ConsumerGroupMetadata(group_id=group_id)
        self._lane.call(lambda: self._producer.send_offsets_to_transaction(positions, group), self.left_seconds)
