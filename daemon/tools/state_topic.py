"""Looks at the state topic from outside, at any time, also while the group writes to it.

A checkpoint is one transaction that ends with its marker, so what has been read counts only up to the last marker: a
look that ends in the middle of a checkpoint shows the one before. Resets by an operator and pins stand behind the
marker and count as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.core.marker import Marker
from daemon.core.records import Record
from daemon.core.snapshot import SnapshotError, decode
from daemon.errors import BrokerUnavailable
from daemon.stored import Stored, is_instrument
from daemon.transport.port import Reader

READ_SECONDS = 0.1
#: Records in one read; some 2 MB of snapshots.
READ_RECORDS = 1000
#: How long a transaction may hold the end up: that of a killed instance ends after 10 s, plus up to 10 s until the
#: broker looks.
PATIENCE_SECONDS = 30.0
#: How far before the end the newest marker is looked for: behind it stands the end of its transaction, and what an
#: operator has reset since.
LOOK_BACK = (8, 512, 32_768)
#: A mere look does not wait for open transactions.
GLANCE_SECONDS = 1.0


def read_stored(
    reader: Reader,
    partition: int,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    monotonic: Callable[[], float] = time.monotonic,
) -> Stored:
    """Return what the state topic holds of a partition, up to the high watermark found at the start at least.

    Raises
    ------
    BrokerUnavailable : no broker answers, or an open transaction holds the end up
    TopicError, AccessDenied
    """
    stored = Stored()
    waiting: list[Record] = []
    offset, end = reader.bounds("state", partition)
    # Compaction may take away what we have not reached yet in favour of something behind `end`. What is written while
    # the first round runs is read by a second one, which takes no time in which anything could be compacted.
    for _ in range(2):
        for records in _reads(reader, partition, offset, end, patience_seconds, monotonic):
            for record in records:
                waiting.append(record)
                if record.key == markers.KEY:
                    stored.add(waiting)
                    waiting = []
        offset, end = max(offset, end), reader.bounds("state", partition)[1]
    stored.add(record for record in waiting if record.key == pins.KEY or _is_reset(record))
    return stored


def newest_marker(
    reader: Reader,
    partition: int,
    *,
    patience_seconds: float = GLANCE_SECONDS,
    look_back_max: int | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Marker | None:
    """Return the newest marker of a partition without reading its snapshots; None where there is none.

    An open transaction is not waited for: then it is the newest of what is committed before it.

    Parameters
    ----------
    look_back_max : read no more than so many offsets before the end; None reads all where no marker is found

    Raises
    ------
    MarkerError : there is one that cannot be read
    BrokerUnavailable, TopicError, AccessDenied
    """
    first, end = reader.bounds("state", partition)
    if look_back_max is not None:
        first = max(first, end - look_back_max)
    for start in sorted({max(first, end - back) for back in (*LOOK_BACK, end - first)}, reverse=True):
        found = Stored()
        try:
            for records in _reads(reader, partition, start, end, patience_seconds, monotonic):
                found.add(record for record in records if record.key == markers.KEY)
        except BrokerUnavailable:
            if start == first and found.marker() is None:
                raise
        marker = found.marker()
        if marker is not None:
            return marker
    return None


def _reads(
    reader: Reader, partition: int, offset: int, end: int, patience_seconds: float, monotonic: Callable[[], float]
) -> Iterator[list[Record]]:
    moved = monotonic()
    while offset < end:
        records, next_offset = reader.read("state", partition, offset, READ_SECONDS, READ_RECORDS)
        yield list(records)
        if next_offset > offset:
            moved = monotonic()
        elif monotonic() - moved > patience_seconds:
            raise BrokerUnavailable(
                f"partition {partition} of the state topic could not be read to its end for {patience_seconds:g} s: "
                "the broker is away, or a killed instance left a transaction open; try again"
            )
        offset = next_offset


def _is_reset(record: Record) -> bool:
    if record.key is None or record.value is None or not is_instrument(record.key):
        return False
    try:
        return decode(record.key.decode(), record.value).is_reset
    except SnapshotError:
        return False
