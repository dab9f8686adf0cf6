"""Partitions on kafka-python without any group: one `read_committed` consumer, put where the caller wants to read.

The high watermark comes from an admin client beside it: the end that a `read_committed` consumer is told is the last
stable offset, below the checkpoint of a transaction that is just being committed. Asking both bounds takes 3 ms.

Reading costs what it costs to take bytes from the socket and records out of them, half and half: some 50,000
snapshots of 2 KiB per second on two busy cores; `python -m bench.recovery` measures it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import OffsetOutOfRangeError, UnknownTopicOrPartitionError
from kafka.protocol.consumer import IsolationLevel

from daemon.core.records import Record
from daemon.errors import TickcastError, TopicError
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection
from daemon.transport.kafka_client import READING, close_in_time, connect, translate
from daemon.transport.kafka_records import bring_ours
from daemon.transport.port import Readable

_log = logging.getLogger(__name__)

#: Of 1, 2, 4, 8 and 16 MiB the fastest for snapshots of 2 KiB, and the memory of one fetch stays small.
FETCH_BYTES = 2 * 1024 * 1024
#: The broker holds a fetch this long at the end of a partition; it also bounds how late a mere marker is noticed.
FETCH_MAX_WAIT_MS = 20
#: A partition that brings nothing is looked up this often: kafka-python fetches from a deleted topic in silence.
CHECK_SECONDS = 1.0
CLOSE_TIMEOUT_SECONDS = 1.0


class KafkaReader:
    """A `Reader` that connects with its first call.

    kafka-python may spin for ever in the poll after one that raised, so after any failure the consumer is thrown away,
    and the next call builds another.
    """

    def __init__(
        self, connection: Connection, topics: Mapping[Readable, str], *, timeout_seconds: float = 10.0
    ) -> None:
        """Take the topics' names, and how long to wait for a broker before `BrokerUnavailable`."""
        self._connection = connection
        self._topics = dict(topics)
        self._timeout_seconds = timeout_seconds
        self._admin = AdminLine(connection)
        self._consumer: KafkaConsumer | None = None
        #: Where the consumer stands; None where that is not known.
        self._place: tuple[TopicPartition, int] | None = None
        #: When it was last made sure that the partition at hand exists, on the monotonic clock.
        self._checked = 0.0

    def bounds(self, topic: Readable, partition: int) -> tuple[int, int]:
        """Return the first retained offset and the high watermark, as `Reader.bounds` says."""
        return self._bounds(TopicPartition(self._topics[topic], partition))

    def read(
        self, topic: Readable, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[Sequence[Record], int]:
        """Read on from `offset`, as `Reader.read` says.

        Going on where the last call ended costs nothing; any other place costs a round trip, and what was fetched in
        advance for the last place is thrown away.
        """
        tp = TopicPartition(self._topics[topic], partition)
        try:
            consumer = self._standing_at(tp, offset)
            records, position = _read_on(consumer, tp, offset, timeout_seconds, max_records)
            if not records and position == offset:
                self._check(tp, offset)
        except Exception as error:
            self._discard()
            raise self._explained(error, tp, offset) from error
        self._place = (tp, position)
        return records, position

    def close(self) -> None:
        """Let the connections go. Bounded in time, never raises."""
        self._discard()
        self._admin.close()

    def _standing_at(self, tp: TopicPartition, offset: int) -> KafkaConsumer:
        consumer = self._consumer or self._connect()
        if self._place != (tp, offset):
            if self._place is None or self._place[0] != tp:
                self._checked = 0.0
                self._check(tp, offset)
                consumer.assign([tp])
            consumer.seek(tp, offset)
            self._place = (tp, offset)
        return consumer

    def _connect(self) -> KafkaConsumer:
        self._consumer = connect(
            KafkaConsumer,
            self._connection,
            self._timeout_seconds,
            client_id="tickcast-reader",
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
            **READING,
        )
        bring_ours(self._consumer)
        return self._consumer

    def _check(self, tp: TopicPartition, offset: int) -> None:
        """Make sure that there is such a place; kafka-python waits in silence for a partition that does not exist."""
        if time.monotonic() < self._checked + CHECK_SECONDS:
            return
        first, end = self._bounds(tp)
        if not first <= offset <= end:
            raise _out_of_range(tp, offset, first, end)
        self._checked = time.monotonic()

    def _bounds(self, tp: TopicPartition) -> tuple[int, int]:
        def ask(admin: KafkaAdminClient) -> tuple[int, int]:
            first, end = (
                admin.list_partition_offsets({tp: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED)[tp].offset
                for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
            )
            return first, end

        try:
            return self._admin.ask(ask, f"reading the bounds of {_name(tp)}", self._timeout_seconds)
        except TickcastError as error:
            if isinstance(error.__cause__, UnknownTopicOrPartitionError):
                raise TopicError(
                    f"there is no {_name(tp)}, or no right to see it; `tickcast topics check` tells which"
                ) from error
            raise

    def _explained(self, error: Exception, tp: TopicPartition, offset: int) -> TickcastError:
        if isinstance(error, OffsetOutOfRangeError):
            try:
                return _out_of_range(tp, offset, *self._bounds(tp))
            except TickcastError as unknown:
                _log.debug("the bounds of %s cannot be told: %s", _name(tp), unknown)
        return translate(error, f"reading {_name(tp)} from {offset}")

    def _discard(self) -> None:
        """Let go of the consumer without waiting for one that does not answer."""
        consumer, self._consumer, self._place = self._consumer, None, None
        if consumer is not None:
            close = partial(consumer.close, autocommit=False, timeout_ms=CLOSE_TIMEOUT_SECONDS * 1000)
            close_in_time(close, CLOSE_TIMEOUT_SECONDS, "reader")


def _read_on(
    consumer: KafkaConsumer, tp: TopicPartition, offset: int, timeout_seconds: float, max_records: int
) -> tuple[Sequence[Record], int]:
    """Poll until something came or the time is up.

    A poll that meets only markers and aborted records moves on and goes on waiting; polling in slices tells the caller.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        left_ms = max(0.0, (deadline - time.monotonic()) * 1000)
        records = consumer.poll(timeout_ms=min(left_ms, FETCH_MAX_WAIT_MS), max_records=max_records).get(tp, ())
        position = consumer.position(tp, timeout_ms=FETCH_MAX_WAIT_MS)
        if records or position > offset or left_ms <= FETCH_MAX_WAIT_MS:
            return records, position


def _out_of_range(tp: TopicPartition, offset: int, first: int, end: int) -> TopicError:
    return TopicError(
        f"{_name(tp)} does not hold offset {offset}, only {first} to {end}: "
        + (
            "the records were deleted by retention or by hand"
            if offset < first
            else "the topic was created anew or its end was lost"
        )
        + "; keep records longer, or start with another [kafka] group_id and [topics] state"
    )


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}-{tp.partition}"
