"""The raw rows of tick files, as they stand: in file order, bad ones counted, nothing mended.

The daemon's intake refuses what it cannot use and says how much; here is what its refusals come from.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.tick_files import BadRow, read_every_row
from schemas.tick import TS_NS_MIN

F64 = NDArray[np.float64]

#: Rows between two calls of the listener.
LISTEN_ROWS = 20_000
#: Kinds of bad rows that are told apart; the rest is one.
KINDS_MAX = 50
#: An integer time up to so many of a unit since the epoch is counted in that unit (seconds up to the year 5138).
TIME_UNITS = ((10**11, "seconds", 10**9), (10**14, "milliseconds", 10**6), (TS_NS_MIN, "microseconds", 10**3))


@dataclass
class Sheet:
    """The readable rows of one instrument, in file order."""

    name: str
    ts: array[int] = field(default_factory=lambda: array("q"))
    bid: array[float] = field(default_factory=lambda: array("d"))
    ask: array[float] = field(default_factory=lambda: array("d"))
    #: Where each row stands, e.g. "line 7".
    places: list[str] = field(default_factory=list)
    #: 1 where every value of a row, its time included, is that of the row before.
    repeats: array[int] = field(default_factory=lambda: array("b"))
    _last: dict[str, Any] = field(default_factory=dict)

    def add(self, place: str, tick: dict[str, Any]) -> None:
        """Append a row."""
        self.ts.append(tick["ts"])
        self.bid.append(tick.get("bid", np.nan))
        self.ask.append(tick.get("ask", np.nan))
        self.places.append(place)
        self.repeats.append(tick == self._last)
        self._last = tick

    def __len__(self) -> int:
        return len(self.ts)


@dataclass
class BadRows:
    """Rows that are bad in the same way."""

    column: str
    problem: str
    first: str
    example: str
    count: int = 0


@dataclass
class Sheets:
    """All rows of the files."""

    row_count: int = 0
    by_instrument: dict[str, Sheet] = field(default_factory=dict)
    bad: list[BadRows] = field(default_factory=list)
    #: Rows whose time is an integer in another unit than nanoseconds, by unit.
    time_units: Counter[str] = field(default_factory=Counter)
    #: How many readable rows hold each of the producer's own fields.
    fields: Counter[str] = field(default_factory=Counter)

    @property
    def readable_count(self) -> int:
        """Rows that are ticks by their form."""
        return sum(map(len, self.by_instrument.values()))

    def whole_fields(self) -> list[str]:
        """Return the fields that every readable row holds."""
        return sorted(name for name, count in self.fields.items() if count == self.readable_count)

    def note_bad(self, place: str, error: BadRow) -> None:
        """Count a bad row."""
        kind = next((each for each in self.bad if (each.column, each.problem) == (error.column, error.problem)), None)
        if kind is None:
            kind = BadRows(error.column, error.problem, place, str(error.value)[:40])
            if len(self.bad) < KINDS_MAX:
                self.bad.append(kind)
        kind.count += 1
        unit = time_unit(error.value) if error.column in ("ts", "ts_ns") else None
        if unit is not None:
            self.time_units[unit] += 1


def time_unit(value: object) -> str | None:
    """Return the unit in which an integer time too small for nanoseconds is counted."""
    text = str(value)
    if not text.isdecimal():
        return None
    return next((unit for limit, unit, _ in TIME_UNITS if 10**7 < int(text) < limit), None)


def read_sheets(paths: Sequence[Path], listen: Callable[[int], None] = lambda count: None) -> Sheets:
    """Read every row once.

    Parameters
    ----------
    listen : called with the number of rows read, now and then

    Raises
    ------
    TickFileError : a file is missing or no table of ticks
    """
    sheets = Sheets()
    for place, found in read_every_row(paths):
        if sheets.row_count % LISTEN_ROWS == 0:
            listen(sheets.row_count)
        sheets.row_count += 1
        if isinstance(found, BadRow):
            sheets.note_bad(place, found)
            continue
        name = found["instrument"]
        if name not in sheets.by_instrument:
            sheets.by_instrument[name] = Sheet(name)
        sheets.by_instrument[name].add(place, found)
        sheets.fields.update(list(found.get("fields", ())))
    return sheets


def good_ticks(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yield the ticks of the rows that are ticks by their form."""
    return (found for _, found in read_every_row(paths) if not isinstance(found, BadRow))
