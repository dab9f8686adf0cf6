"""What the state topic holds of one partition: the newest record of every key. For recovery, and for tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress

import numpy as np

from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.core.instrument import Instrument
from daemon.core.marker import Marker
from daemon.core.pin import Pin, PinError
from daemon.core.records import Record
from daemon.core.snapshot import Snapshot, SnapshotError, decode
from schemas import ResetCause

#: Instrument names are short and printable; anything else was not written by us.
NAME_LENGTH_MAX = 64


class Stored:
    """The newest records of a partition of the state topic, as they are read."""

    def __init__(self) -> None:
        #: Key -> value, marker and pin not among them.
        self.values: dict[bytes, bytes] = {}
        self._marker: bytes | None = None
        self._pin: bytes | None = None

    def add(self, records: Iterable[Record]) -> None:
        """Take the next records, in offset order."""
        for record in records:
            key, value = record.key, record.value
            if key == markers.KEY:
                self._marker = value
            elif key == pins.KEY:
                self._pin = value
            elif key is not None:
                self.values.pop(key, None)
                if value is not None:
                    self.values[key] = value

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield key and value of all states, the marker last."""
        yield from self.values.items()
        if self._marker is not None:
            yield markers.KEY, self._marker

    @property
    def unmarked(self) -> bool:
        """True where there are records, and no marker among them."""
        return bool(self.values) and self._marker is None

    def marker(self) -> Marker | None:
        """Return the newest marker; None where there is none.

        Raises
        ------
        MarkerError : there is one that cannot be read
        """
        return None if self._marker is None else markers.decode(self._marker)

    def pin(self) -> Pin | None:
        """Return the newest pin that stands here or that the marker repeats; one that cannot be read is none."""
        found: Pin | None = None
        with suppress(PinError):
            found = None if self._pin is None else pins.decode(self._pin)
        with suppress(markers.MarkerError):
            marker = self.marker()
            found = pins.newest(found, None if marker is None else marker.pin)
        return found

    def snapshots(self, marker: Marker) -> Iterator[tuple[bytes, Snapshot | SnapshotError]]:
        """Yield what every key holds: its snapshot, or why it holds none that belongs to the marker."""
        for key, value in self.values.items():
            yield key, _read(key, value, marker)

    def taken(self, marker: Marker) -> Iterator[tuple[bytes, Snapshot | SnapshotError]]:
        """Yield what `snapshots` does, and let go of every value: they are as large as the states that come of them."""
        for key in list(self.values):
            yield key, _read(key, self.values.pop(key), marker)


def blank(key: bytes, marker: Marker) -> Snapshot:
    """Return the snapshot of an instrument of which nothing is left."""
    gone = Instrument(key.decode(), -1, [], ResetCause.COLD)
    return Snapshot(marker.revision, marker.next_offset, gone, np.empty(0, np.float32))


def is_instrument(key: bytes) -> bool:
    """Say whether a key can be an instrument's name."""
    try:
        name = key.decode()
    except UnicodeDecodeError:
        return False
    return 0 < len(name) <= NAME_LENGTH_MAX and name.isprintable()


def _read(key: bytes, value: bytes, marker: Marker) -> Snapshot | SnapshotError:
    if not is_instrument(key):
        return SnapshotError("the key is no instrument")
    try:
        snapshot = decode(key.decode(), value)
    except SnapshotError as error:
        return error
    if snapshot.revision != marker.revision:
        return SnapshotError(f"it is of revision {snapshot.revision}, the marker of {marker.revision}")
    if not snapshot.is_reset and snapshot.next_offset > marker.next_offset:
        return SnapshotError(f"it is at {snapshot.next_offset}, ahead of the marker at {marker.next_offset}")
    return snapshot
