"""When committed forecasts come out of each partition, seen by a `read_committed` consumer in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import Self

from kafka import KafkaConsumer, TopicPartition

from bench.rig import PARTITIONS

POLL_SECONDS = 0.2
#: Longer than any recovery that is worth a figure.
PATIENCE_SECONDS = 60.0


class Watch:
    """Notes the arrivals of forecasts while the block runs."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            fetch_max_wait_ms=20,
        )
        places = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        self._consumer.assign(places)
        self._consumer.seek_to_end()
        for place in places:
            self._consumer.position(place)  # settles where the end is now
        #: Of each partition, per poll that brought something: Unix time of the arrival, and the time at which the
        #: newest of these forecasts was written.
        self._arrivals: list[list[tuple[float, float]]] = [[] for _ in places]
        self._stopping = False
        self._thread = threading.Thread(target=self._look, name="watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._thread.join()
        self._consumer.close()

    def firsts_after(self, moment: float) -> list[float]:
        """Wait until each partition has brought a forecast written after `moment`; return when they came."""
        deadline = time.time() + PATIENCE_SECONDS
        while None in (found := [self._first_after(partition, moment) for partition in range(PARTITIONS)]):
            if time.time() > deadline:
                raise SystemExit(f"no new forecast from each partition within {PATIENCE_SECONDS:.0f} s: {found}")
            time.sleep(0.05)
        return [at for at in found if at is not None]

    def longest_gaps(self, begin: float, end: float) -> list[float]:
        """Return, for each partition, the longest time between two arrivals of which one lies between the times."""
        return [_longest_gap([at for at, _ in arrivals], begin, end) for arrivals in self._arrivals]

    def _first_after(self, partition: int, moment: float) -> float | None:
        return next((at for at, written in self._arrivals[partition] if written > moment), None)

    def _look(self) -> None:
        while not self._stopping:
            found = self._consumer.poll(POLL_SECONDS * 1000, max_records=10_000)
            now = time.time()
            for place, records in found.items():
                self._arrivals[place.partition].append((now, records[-1].timestamp / 1000))


def _longest_gap(arrivals: Sequence[float], begin: float, end: float) -> float:
    return max((after - before for before, after in pairwise(arrivals) if after > begin and before < end), default=0.0)
