"""Puts ticks into a topic: as fast as they go, in the pace they were made in, or a multiple of that.

The key is the instrument, and the partition follows from it alone, so all ticks of an instrument stay in order.
"""

from __future__ import annotations

import contextlib
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from daemon.errors import TopicError
from daemon.transport.connection import Connection
from daemon.transport.kafka_client import connect, translate

#: Records on their way at most. The client's own buffer has no bound, so a slow broker would otherwise fill the memory.
IN_FLIGHT_MAX = 10_000
#: How long a record may take to be acknowledged, and how long a broker and the topic are looked for at the start.
TIMEOUT_SECONDS = 30.0
START_TIMEOUT_SECONDS = 10.0


def partition_of(instrument: str, partition_count: int) -> int:
    """Return the partition of an instrument: CRC-32 of its name, the same in every process and language."""
    return zlib.crc32(instrument.encode()) % partition_count


def paced(
    ticks: Iterable[Mapping[str, Any]],
    speed: float,
    *,
    now: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] = time.sleep,
) -> Iterator[Mapping[str, Any]]:
    """Yield ticks when they are due: `speed` seconds of event time in a second; 0 does not wait at all.

    The pace is held against the first tick, so waits that were too long are made up for.
    """
    start = first = None
    for tick in ticks:
        if speed > 0:
            if start is None or first is None:  # now, and not before it was made: that may have taken long
                start, first = now(), tick["ts"]
            early = start + (tick["ts"] - first) / 1e9 / speed - now()
            if early > 0:
                wait(early)
        yield tick


class TickProducer:
    """Writes ticks to a topic, each at least once acknowledged, none twice, in order.

    Parameters
    ----------
    connection : the cluster
    topic : must exist

    Raises
    ------
    BrokerUnavailable, TopicError, AccessDenied : at once, and later when the broker goes away
    """

    def __init__(self, connection: Connection, topic: str) -> None:
        self._topic = topic
        #: Ticks that the broker has acknowledged.
        self.acknowledged_count = 0
        self._in_flight: deque[Any] = deque()
        self._producer: KafkaProducer = connect(
            KafkaProducer,
            connection,
            START_TIMEOUT_SECONDS,
            enable_idempotence=True,
            acks="all",
            compression_type="lz4",
            linger_ms=5,
            batch_size=256 * 1024,
            max_block_ms=int(START_TIMEOUT_SECONDS * 1000),
            delivery_timeout_ms=int(TIMEOUT_SECONDS * 1000),
            # An integer: the client writes it into the request, and its sender thread dies of a float.
            request_timeout_ms=int(TIMEOUT_SECONDS * 500),
        )
        self._partition_count = self._find_topic()
        #: Partition of each instrument, remembered.
        self._partitions: dict[str, int] = {}

    def _find_topic(self) -> int:
        try:
            return len(self._producer.partitions_for(self._topic))
        except KafkaTimeoutError as error:
            self._producer.close(timeout=0)
            raise TopicError(f"there is no topic {self._topic}; create it with `tickcast topics create`") from error
        except KafkaError as error:
            self._producer.close(timeout=0)
            raise translate(error, f"looking for topic {self._topic}") from error

    def send(self, tick: Mapping[str, Any]) -> None:
        """Send one tick; waits while too many are on their way."""
        instrument = tick["instrument"]
        partition = self._partitions.get(instrument)
        if partition is None:
            partition = self._partitions[instrument] = partition_of(instrument, self._partition_count)
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            self._settle(IN_FLIGHT_MAX // 2)
        future = self._producer.send(self._topic, orjson.dumps(tick), instrument.encode(), partition=partition)
        self._in_flight.append(future)

    def flush(self) -> None:
        """Wait until every tick sent is acknowledged."""
        self._settle(0)

    def _settle(self, remaining: int) -> None:
        """Wait for the oldest records until so many are left, and check each."""
        while len(self._in_flight) > remaining:
            try:
                self._in_flight[0].get(timeout=TIMEOUT_SECONDS)
            except KafkaError as error:
                doing = f"writing to {self._topic}, after {self.acknowledged_count} acknowledged ticks"
                raise translate(error, doing) from error
            self._in_flight.popleft()
            self.acknowledged_count += 1

    def close(self) -> None:
        """Let the client go; what `flush` has not seen acknowledged is uncertain."""
        with contextlib.suppress(KafkaError):  # what cannot be delivered has been reported by `flush`
            self._producer.close(timeout=1.0)
