"""Follows the pin of a group: the newest one that stands in the state topic, or that a marker there repeats."""

from __future__ import annotations

from collections.abc import Iterable

from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.core.pin import PARTITION, Pin, PinError, newest
from daemon.core.records import Record
from daemon.errors import TopicError
from daemon.logs import facts, log
from daemon.transport.port import Reader

#: A read that brings nothing returns after this.
READ_SECONDS = 0.05
#: Records in one read; some 2 MB of snapshots.
READ_RECORDS = 1000
#: How far before the end the newest marker is looked for by who has not read the partition yet. Behind it stand the
#: end of its transaction, and what operators have written since.
LOOK_BACK = (8, 512, 32_768)


class PinFollower:
    """Reads the partition on, look by look; the first one begins at the newest marker.

    A pin that was written just before the newest marker, by whose writer it was not known yet, is not found so. The
    owner of the partition reads all of it when it begins, finds the pin, and repeats it in its next marker; whoever has
    to be sure reads all of it too (`tools.pinning.pin_in_force`).

    Parameters
    ----------
    reader : nobody else's, so that reading on costs nothing but what it brings
    """

    def __init__(self, reader: Reader, group_id: str) -> None:
        self._reader = reader
        self._group_id = group_id
        self._offset: int | None = None
        #: The newest pin so far.
        self.pin: Pin | None = None

    def look(self) -> Pin | None:
        """Read what has been committed since the last look; return the newest pin so far.

        Raises
        ------
        BrokerUnavailable, TopicError, AccessDenied
        """
        try:
            self._offset = self._begin() if self._offset is None else self._read_on(self._offset)[0]
        except TopicError:  # the topic was created anew, or what we stood at was deleted
            self._offset = None
            raise
        return self.pin

    def _begin(self) -> int:
        first, end = self._reader.bounds("state", PARTITION)
        offset = end
        for start in sorted({max(first, end - back) for back in (*LOOK_BACK, end - first)}, reverse=True):
            offset, met = self._read_on(start)
            if met:
                break
        return offset

    def _read_on(self, offset: int) -> tuple[int, bool]:
        """Read to where the end or an open transaction holds us up; return that place, and whether we met a marker."""
        met = False
        while True:
            records, next_offset = self._reader.read("state", PARTITION, offset, READ_SECONDS, READ_RECORDS)
            met |= self._take(records)
            if next_offset == offset:
                return offset, met
            offset = next_offset

    def _take(self, records: Iterable[Record]) -> bool:
        met = False
        for record in records:
            if record.key == markers.KEY:
                met = True
                self._heed(_repeated(record.value))
            elif record.key == pins.KEY:
                self._heed(_written(record.value))
        return met

    def _heed(self, pin: Pin | None) -> None:
        if pin is not None and pin.group_id == self._group_id:
            self.pin = newest(self.pin, pin)


def _repeated(value: bytes | None) -> Pin | None:
    try:
        return markers.decode(value or b"").pin
    except markers.MarkerError:  # recovery says what is wrong with it
        return None


def _written(value: bytes | None) -> Pin | None:
    try:
        return pins.decode(value)
    except PinError as error:
        log.error("a pin in the state topic cannot be read, it does not count", extra=facts(error=str(error)))
        return None
