"""Partitions on kafka-python without any group: one `read_committed` consumer, put where the caller wants to read.

Reading costs what it costs to take bytes from the socket and records out of them, half and half: some 50,000
snapshots of 2 KiB per second on two busy cores; `python -m bench.recovery` measures it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import OffsetOutOfRangeError

from daemon.core.records import Record
from daemon.errors import TickcastError
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection
from daemon.transport.kafka_bounds import Bounds
from daemon.transport.kafka_client import READING, close_in_time, connect, translate
from daemon.transport.kafka_records import bring_ours
from daemon.transport.port import Readable

#: Of 1, 2, 4, 8 and 16 MiB the fastest for snapshots of 2 KiB, and the memory of one fetch stays small.
FETCH_BYTES = 2 * 1024 * 1024
#: The broker holds a fetch this long at the end of a partition; it also bounds how late a mere marker is noticed.
FETCH_MAX_WAIT_MS = 20
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
        self._bounds = Bounds(self._admin, timeout_seconds)
        self._consumer: KafkaConsumer | None = None
        #: Where the consumer stands; None where that is not known.
        self._place: tuple[TopicPartition, int] | None = None

    def bounds(self, topic: Readable, partition: int) -> tuple[int, int]:
        """Return the first retained offset and the high watermark, as `Reader.bounds` says."""
        return self._bounds.of(self._topics[topic], partition)

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
                self._bounds.check(tp.topic, partition, offset)
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
                self._bounds.check(tp.topic, tp.partition, offset, now=True)
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

    def _explained(self, error: Exception, tp: TopicPartition, offset: int) -> TickcastError:
        refused = isinstance(error, OffsetOutOfRangeError)
        explained = self._bounds.explain(tp.topic, tp.partition, offset) if refused else None
        return explained or translate(error, f"reading {tp.topic}-{tp.partition} from {offset}")

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
