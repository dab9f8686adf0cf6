"""What was forecast and what happened, per instrument, as columns: some 130 bytes a tick with four horizons.

A *tape* holds the forecasts of one instrument in log order. What happened to a forecast `h` ticks ahead stands `h` rows
further down, if that row is of the same session.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: A price level below this is none; its logarithm stays finite.
LEVEL_MIN = 1e-300


@dataclass(frozen=True)
class Ahead:
    """The rows of a tape that have an outcome at one horizon; arrays of one length, moves from the row's price."""

    horizon: int
    ts: NDArray[np.int64]
    #: What happened, and what was forecast: log returns, or price differences for models of those.
    move: F64
    forecast: F64
    #: Ends of the interval; NaN where it was not known.
    lower: F64
    upper: F64
    #: Time between the tick and its outcome.
    seconds: F64


@dataclass(frozen=True)
class Tape:
    """The forecasts of one instrument; arrays have one row per forecast, levels one column per horizon."""

    instrument: str
    horizons: tuple[int, ...]
    ts: NDArray[np.int64]
    price: F64
    #: Number of the session each row is in, from 0.
    session: NDArray[np.intp]
    #: False for rows before the instrument's first quote, whose prices are trades.
    quoted: Bools
    mean: F64
    lower: F64
    upper: F64
    #: Moves are differences of prices, not their log returns.
    differences: bool = False

    @cached_property
    def counts(self) -> Bools:
        """Rows that are judged: from the first quote on; all of them where there is no quote at all."""
        return self.quoted if self.quoted.any() else np.ones_like(self.quoted)

    def ahead(self, column: int, begin_ts: int) -> Ahead:
        """Return the judged rows of one horizon.

        Parameters
        ----------
        column : place of the horizon
        begin_ts : rows before this event time are not judged
        """
        horizon = self.horizons[column]
        rows = np.arange(max(len(self.ts) - horizon, 0))
        later = rows + horizon
        rows = rows[(self.session[later] == self.session[rows]) & self.counts[rows] & (self.ts[rows] >= begin_ts)]
        later = rows + horizon
        price = self.price[rows]
        move, forecast, lower, upper = (
            self._move(price, level)
            for level in (
                self.price[later],
                self.mean[rows, column],
                self.lower[rows, column],
                self.upper[rows, column],
            )
        )
        seconds = (self.ts[later] - self.ts[rows]) * 1e-9
        return Ahead(horizon, self.ts[rows], move, forecast, lower, upper, seconds)

    def _move(self, price: F64, level: F64) -> F64:
        if self.differences:
            return level - price
        moved: F64 = np.log(np.maximum(level, LEVEL_MIN) / price)
        return moved


class Recorder:
    """Grows one tape per instrument from payloads.

    Parameters
    ----------
    horizons : as the model has them
    differences : moves are differences of prices
    """

    def __init__(self, horizons: Sequence[int], *, differences: bool = False) -> None:
        self._horizons = tuple(horizons)
        self._differences = differences
        self._columns: dict[str, _Columns] = {}
        self._unknown = [float("nan")] * len(self._horizons)

    def add(self, payload: Mapping[str, Any], *, quote: bool) -> None:
        """Append one forecast.

        Parameters
        ----------
        payload : with the keys of `Forecast`
        quote : its tick holds a quote
        """
        columns = self._columns.get(payload["instrument"])
        if columns is None:
            columns = self._columns[payload["instrument"]] = _Columns()
        reset = payload["reset"]
        # a state that overflowed starts anew within its session
        columns.sessions += reset is not None and reset != "non_finite"
        columns.quoted |= quote
        columns.ts.append(payload["ts"])
        columns.price.append(payload["price"])
        columns.session.append(columns.sessions)
        columns.quotes.append(columns.quoted)
        columns.mean.extend(payload["mean"])
        columns.lower.extend(payload["lower"] or self._unknown)
        columns.upper.extend(payload["upper"] or self._unknown)

    def tapes(self) -> list[Tape]:
        """Return the tapes so far, by name; the columns are not copied, so nothing may be added afterwards."""
        return [self._tape(name, columns) for name, columns in sorted(self._columns.items())]

    def _tape(self, name: str, columns: _Columns) -> Tape:
        mean, lower, upper = (
            np.frombuffer(column).reshape(-1, len(self._horizons))
            for column in (columns.mean, columns.lower, columns.upper)
        )
        return Tape(
            instrument=name,
            horizons=self._horizons,
            ts=np.frombuffer(columns.ts, np.int64),
            price=np.frombuffer(columns.price),
            session=np.frombuffer(columns.session, np.intc).astype(np.intp),
            quoted=np.frombuffer(columns.quotes, np.bool_),
            mean=mean,
            lower=lower,
            upper=upper,
            differences=self._differences,
        )


class _Columns:
    """Growing columns of one instrument."""

    def __init__(self) -> None:
        self.sessions = -1
        self.quoted = False
        self.ts = array("q")
        self.price, self.mean, self.lower, self.upper = array("d"), array("d"), array("d"), array("d")
        self.session = array("i")
        self.quotes = array("b")
