"""Partitions on librdkafka without any group: one `read_committed` consumer, put where the caller wants to read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from daemon.core.records import Record
from daemon.errors import TickcastError
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection
from daemon.transport.kafka_bounds import Bounds
from daemon.transport.kafka_client import close_in_time
from daemon.transport.knock import reach
from daemon.transport.librd_client import AWAY, ClientLog, client_options, translate
from daemon.transport.librd_records import READING, take
from daemon.transport.port import Readable

#: A partition and the next offset to read there.
Place = tuple[str, int, int]

CLOSE_TIMEOUT_SECONDS = 1.0


class LibrdReader:
    """A `Reader` that connects with its first call; after any failure the next call connects anew."""

    def __init__(
        self, connection: Connection, topics: Mapping[Readable, str], *, group_id: str, timeout_seconds: float = 10.0
    ) -> None:
        """Take the topics' names, and how long to wait for a broker before `BrokerUnavailable`.

        Parameters
        ----------
        group_id : librdkafka wants one; it neither joins the group nor commits
        """
        self._connection = connection
        self._topics = dict(topics)
        self._group_id = group_id
        self._timeout_seconds = timeout_seconds
        self._admin = AdminLine(connection)
        self._bounds = Bounds(self._admin, timeout_seconds)
        self._consumer: Consumer | None = None
        #: Where the consumer stands; None where that is not known.
        self._place: Place | None = None

    def bounds(self, topic: Readable, partition: int) -> tuple[int, int]:
        """Return the first retained offset and the high watermark, as `Reader.bounds` says."""
        return self._bounds.of(self._topics[topic], partition)

    def read(
        self, topic: Readable, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[Sequence[Record], int]:
        """Read on from `offset`, as `Reader.read` says.

        Going on where the last call ended costs nothing; at any other place librdkafka begins anew.
        """
        place = (self._topics[topic], partition, offset)
        try:
            consumer = self._standing_at(place)
            records, next_offset = _read_on(consumer, place, timeout_seconds, max_records)
            if not records and next_offset == offset:
                self._bounds.check(*place)
        except Exception as error:
            self._discard()
            raise self._explained(error, place) from error
        self._place = (place[0], partition, next_offset)
        return records, next_offset

    def close(self) -> None:
        """Let the connections go. Bounded in time, never raises."""
        self._discard()
        self._admin.close()

    def _standing_at(self, place: Place) -> Consumer:
        consumer = self._consumer or self._connect()
        if self._place != place:
            if self._place is None or self._place[:2] != place[:2]:
                self._bounds.check(*place, now=True)
            consumer.assign([TopicPartition(*place)])
            self._place = place
        return consumer

    def _connect(self) -> Consumer:
        options = {"client.id": "tickcast-reader", "group.id": self._group_id, **READING}
        self._consumer = reach(
            self._connection,
            self._timeout_seconds,
            lambda _: Consumer(client_options(self._connection) | options, logger=ClientLog()),
        )
        return self._consumer

    def _explained(self, error: Exception, place: Place) -> TickcastError:
        topic, partition, offset = place
        refused = isinstance(error, KafkaException) and error.args[0].code() == KafkaError._AUTO_OFFSET_RESET
        explained = self._bounds.explain(*place) if refused else None
        return explained or translate(error, f"reading {topic}-{partition} from {offset}")

    def _discard(self) -> None:
        """Let go of the consumer without waiting for one that does not answer."""
        consumer, self._consumer, self._place = self._consumer, None, None
        if consumer is not None:
            close_in_time(consumer.close, CLOSE_TIMEOUT_SECONDS, "reader")


def _read_on(
    consumer: Consumer, place: Place, timeout_seconds: float, max_records: int
) -> tuple[Sequence[Record], int]:
    """Wait until something came, if only the end behind markers and aborted records, or the time is up."""
    topic, partition, offset = place
    deadline = time.monotonic() + timeout_seconds
    while True:
        left = max(0.0, deadline - time.monotonic())
        taken = take(consumer, topic, left, max_records)
        for error in taken.errors:
            if error.code() not in AWAY:
                raise KafkaException(error)
        next_offset = taken.next_offsets.get(partition, offset)
        if taken.records or next_offset > offset or not left:
            return taken.records, next_offset
