"""Named, causal features: what the model sees of a tick. Training, backtest and daemon run this same code.

A feature is a base, with transforms before it: ``return``, ``field:open``, ``log:field:volume``, ``ema:20:return``.
Everything a feature remembers between ticks is floats in the instrument's `cells`, so a snapshot is an array.

Invariants
----------
- Updated tick by tick in log order, in float64 on plain floats: no bit depends on how ticks are cut into batches.
- A tick that cannot give its features is rejected before any cell changes: updates run on a copy.
- Cells stay finite: running scales move by standardised values bounded to `CLIP`, so no outlier poisons them.
- A field that a tick lacks is what `Missing` says: a dead letter, the last value of the instrument, or a number.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from math import isfinite, log, log1p, sqrt
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from daemon.core.moment import Moment
from daemon.core.spec import Column, Missing
from daemon.core.step import F32
from schemas import Reason, Rejected

F64 = NDArray[np.float64]

#: Weight of the newest tick in running scales: a memory of about 5,000 ticks. On real ticks 500 cost a linear fit an
#: eighth of its skill ten ticks ahead: what a scale follows, the model no longer sees.
RUNNING_WEIGHT: Final = 0.0002
#: The same for the volatility, that targets are counted in: about 10,000 ticks. A shorter memory was better one tick
#: ahead and worse fifty ahead.
VOLATILITY_WEIGHT: Final = 0.0001
#: Standardised values under a running scale are bounded to this many standard deviations.
CLIP: Final = 10.0
#: A constant input must not drive a running variance to 0.
RUNNING_VARIANCE_MIN: Final = 1e-30
#: The volatility never falls below this share of its prior: a price at rest must not make targets explode.
VOLATILITY_FLOOR: Final = 0.01

#: Index of the running variance of one-tick log returns, the one cell that every model has.
VARIANCE_CELL: Final = 0


class Feature:
    """Computes one number of a tick. What it remembers between ticks stands in the instrument's cells, from `at` on.

    Methods and not functions: compiled, a method costs a tenth of a function that is passed around.
    """

    #: What its cells start from.
    start: tuple[float, ...] = ()

    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        """Return the feature at this tick, and write its cells."""
        raise NotImplementedError


# --- bases: features without cells ------------------------------------------------------------------------------------


class _Return(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        return moment.log_return


class _Change(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        return moment.change


class _Price(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        return moment.price


class _Spread(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        return moment.spread


class _Imbalance(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        return moment.imbalance


class _Micro(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        return moment.spread * moment.imbalance / 2


class _SignedSize(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        tick = moment.tick
        if tick.price is None or tick.aggressor is None:
            return 0.0
        size = log1p(tick.size if tick.size is not None else 1.0)
        return size if tick.aggressor == "buy" else -size


class _Sweep(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        price, bid, ask = moment.tick.price, moment.bid, moment.ask
        # A session that opens with a trade has only the quote of the one before: all that way would be a sweep.
        if price is None or bid is None or ask is None or bid <= price <= ask or moment.price == 0 or moment.opened:
            return 0.0
        return (price - (ask if price > ask else bid)) / abs(moment.price)


class _Trade(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        return 0.0 if moment.tick.price is None else 1.0


class _Wait(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        return log1p(moment.wait_ns * 1e-6)


class _SessionTime(Feature):
    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        if moment.opened:
            return 0.0
        return log1p(max(moment.tick.ts - moment.before.session_since, 0) * 1e-9)


BASES: dict[str, tuple[Feature, str]] = {
    "return": (_Return(), "log return of the reference price since the tick before"),
    "change": (_Change(), "difference of the reference price to the tick before"),
    "price": (_Price(), "reference price"),
    "spread": (_Spread(), "ask minus bid, relative to the reference price"),
    "imbalance": (_Imbalance(), "(bid size - ask size) / (bid size + ask size) of the latest quote"),
    "micro": (_Micro(), "size-weighted mid over mid, minus 1"),
    "signed_size": (_SignedSize(), "log(1 + size) of a trade, negative where the seller took liquidity; 0 for a quote"),
    "sweep": (_Sweep(), "how far a trade printed beyond the latest quote, relative to the reference price; else 0"),
    "trade": (_Trade(), "1 where the tick holds a trade"),
    "wait": (_Wait(), "log(1 + milliseconds since the tick before)"),
    "session_time": (_SessionTime(), "log(1 + seconds since the session's start)"),
}
FIELD_MEANING = "the producer's own input `fields.NAME`"

# --- features with a name or an inner feature -------------------------------------------------------------------------

TRANSFORMS = {
    "log": "natural logarithm of what follows",
    "diff": "difference to the tick before; 0 on the first of a session",
    "return": "log return to the tick before; 0 on the first of a session",
    "ema:N": "exponential moving average over about N ticks",
}


def parse_feature(name: str, missing: Missing = "dead_letter") -> Feature:
    """Return a feature by its name.

    Parameters
    ----------
    missing : what becomes of a tick without a field that the feature reads

    Raises
    ------
    ValueError : names the part that is unknown
    """
    head, _, rest = name.partition(":")
    if head == "field" and rest:
        return _LastField(rest) if missing == "last" else _Field(rest, missing)
    if head == "ema" and rest:
        span, _, inner = rest.partition(":")
        if not span.isascii() or not span.isdecimal() or int(span) < 1 or not inner:
            raise ValueError(f"feature {name!r}: write ema:N:FEATURE with a whole N from 1")
        return _Ema(parse_feature(inner, missing), 2 / (int(span) + 1))
    if head == "log" and rest:
        return _Log(name, parse_feature(rest, missing))
    if head == "diff" and rest:
        return _Diff(parse_feature(rest, missing))
    if head == "return" and rest:
        return _Diff(_Log(name, parse_feature(rest, missing)))
    if name in BASES:
        return BASES[name][0]
    known = ", ".join([*BASES, "field:NAME"])
    raise ValueError(f"unknown feature {name!r}; known are {known}, with {', '.join(TRANSFORMS)} before them")


class _Field(Feature):
    def __init__(self, name: str, missing: Literal["dead_letter"] | float) -> None:
        self._name = name
        self._missing = missing

    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        fields = moment.tick.fields
        if fields is not None and self._name in fields:
            return fields[self._name]
        missing = self._missing
        if isinstance(missing, str):
            raise _missing(self._name)
        return missing


class _LastField(Feature):
    """Two cells: the last value, and 1 once there is one. They outlive sessions, as the last quote does."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.start = (0.0, 0.0)

    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        fields = moment.tick.fields
        if fields is not None and self._name in fields:
            cells[at], cells[at + 1] = fields[self._name], 1.0
        elif cells[at + 1] == 0:
            raise _missing(self._name)
        return cells[at]


def _missing(name: str) -> Rejected:
    return Rejected(Reason.MISSING_FIELD, f"the model reads fields.{name}, which the tick does not have")


class _Log(Feature):
    def __init__(self, name: str, inner: Feature) -> None:
        self._name = name
        self._inner = inner
        self.start = inner.start

    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        value = self._inner.value(moment, cells, at)
        if value <= 0:
            raise Rejected(Reason.INVALID_VALUE, f"feature {self._name} needs a value above 0, found {value!r}")
        return log(value)


class _Diff(Feature):
    """Own cells, before the inner ones: the last value, and 1 once there is one."""

    def __init__(self, inner: Feature) -> None:
        self._inner = inner
        self.start = (0.0, 0.0, *inner.start)

    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        value = self._inner.value(moment, cells, at + 2)
        change = 0.0 if moment.opened or cells[at + 1] == 0 else value - cells[at]
        cells[at], cells[at + 1] = value, 1.0
        return change


class _Ema(Feature):
    """Own cell, before the inner ones: the average. It starts from 0, the mean of returns and flows."""

    def __init__(self, inner: Feature, weight: float) -> None:
        self._inner = inner
        self._weight = weight
        self.start = (0.0, *inner.start)

    def value(self, moment: Moment, cells: list[float], at: int) -> float:
        value = self._inner.value(moment, cells, at + 1)
        average = cells[at] + self._weight * (value - cells[at])
        cells[at] = average
        return average


# --- the table of a model's columns ----------------------------------------------------------------------------------


class FeatureTable:
    """The input columns of one model.

    Parameters
    ----------
    columns : the model's columns in order
    volatility_prior : standard deviation of one-tick log returns that a new instrument starts from
    missing : what becomes of a tick without a field that a column reads

    Raises
    ------
    ValueError : a column names an unknown feature
    """

    def __init__(self, columns: Sequence[Column], volatility_prior: float, missing: Missing = "dead_letter") -> None:
        self._variance_min = (volatility_prior * VOLATILITY_FLOOR) ** 2
        start: list[float] = [volatility_prior**2]
        #: Per column: the feature, where its cells start, where its running mean and variance stand (-1 where the
        #: scale is frozen).
        self._columns: list[tuple[Feature, int, int]] = []
        for column in columns:
            feature = parse_feature(column.feature, missing)
            scale_at = -1
            if column.scale == "running":
                scale_at = len(start)
                start += [column.mean, column.std**2]
            self._columns.append((feature, len(start), scale_at))
            start += feature.start
        #: Cells of an instrument that has seen no tick.
        self.start: tuple[float, ...] = tuple(start)
        self._cells = struct.Struct(f"<{len(start)}d")
        #: Per column: where its running mean stands in the cells, its variance behind it; -1 where the scale is frozen.
        self.scale_at: tuple[int, ...] = tuple(scale_at for _, _, scale_at in self._columns)

        self._scales = frozen_scales(columns)

    def inputs(self, rows: Sequence[array[float]]) -> F32:
        """Scale the rows of a batch: what the model sees.

        Parameters
        ----------
        rows : as `update` returned them, at least one

        Returns
        -------
        x : float32 array, shape (rows, columns), unitless; infinite where a value exceeds float32's range
        """
        values = np.frombuffer(b"".join(rows), np.float64).reshape(len(rows), -1)
        return scaled(values, *self._scales)

    def update(self, moment: Moment, packed: bytes) -> tuple[array[float], bytes, float]:
        """Compute a tick's row of features.

        Returns
        -------
        row : one float64 per column: scaled where the column's scale is running, still to be scaled where it is frozen
        packed : the instrument's cells after this tick; the argument is those before
        volatility : running standard deviation of one-tick log returns after this tick

        Raises
        ------
        Rejected : a field is missing, or a transform is not defined for its value
        """
        cells: list[float] = list(self._cells.unpack(packed))
        row: list[float] = []
        # The hot loop of the daemon, ten turns a tick: helpers and conveniences were measured and inlined.
        for feature, at, scale_at in self._columns:
            value = feature.value(moment, cells, at)
            if scale_at < 0:
                row.append(value)
                continue
            # Standardise by the running scale before this tick, then move the scale.
            mean, variance = cells[scale_at], cells[scale_at + 1]
            std = sqrt(variance)
            scaled = (value - mean) / std
            if scaled > CLIP:
                scaled = CLIP
            elif scaled < -CLIP:
                scaled = -CLIP
            row.append(scaled)
            moved = RUNNING_WEIGHT * scaled
            cells[scale_at] = mean + moved * std
            variance *= (1 - RUNNING_WEIGHT) * (1 + moved * scaled)
            cells[scale_at + 1] = variance if variance > RUNNING_VARIANCE_MIN else RUNNING_VARIANCE_MIN
        if not moment.opened:
            variance = cells[VARIANCE_CELL]
            squared = min(moment.log_return * moment.log_return, CLIP * CLIP * variance)
            cells[VARIANCE_CELL] = max(variance + VOLATILITY_WEIGHT * (squared - variance), self._variance_min)
        if not isfinite(sum(cells)) and not all(map(isfinite, cells)):  # the sum alone is quick, but can overflow
            raise Rejected(Reason.INVALID_VALUE, "values too large for the model's features")
        return array("d", row), self._cells.pack(*cells), sqrt(cells[VARIANCE_CELL])


def frozen_scales(columns: Sequence[Column]) -> tuple[F64, F64]:
    """Return mean and standard deviation by column, float64 of shape (columns,); 0 and 1 where the scale is running."""
    frozen = [(column.mean, column.std) if column.scale == "frozen" else (0.0, 1.0) for column in columns]
    return np.array([mean for mean, _ in frozen]), np.array([std for _, std in frozen])


def scaled(values: F64, mean: F64, std: F64) -> F32:
    """Apply frozen scales in float64, and round to float32 at the end; elementwise, so no row asks for another."""
    with np.errstate(over="ignore"):
        x: F32 = ((values - mean) / std).astype(np.float32)
    return x
