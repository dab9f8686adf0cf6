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

from array import array
from collections.abc import Callable, Sequence
from math import isfinite, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

from daemon.core.moment import Moment
from daemon.core.spec import Column, Missing
from daemon.core.step import F32
from schemas import Reason, Rejected

F64 = NDArray[np.float64]

#: Weight of the newest tick in running scales: a memory of about 5,000 ticks. On real ticks 500 cost a linear fit an
#: eighth of its skill ten ticks ahead: what a scale follows, the model no longer sees.
RUNNING_WEIGHT = 0.0002
#: The same for the volatility, that targets are counted in: about 10,000 ticks. A shorter memory was better one tick
#: ahead and worse fifty ahead.
VOLATILITY_WEIGHT = 0.0001
#: Standardised values under a running scale are bounded to this many standard deviations.
CLIP = 10.0
#: A constant input must not drive a running variance to 0.
RUNNING_VARIANCE_MIN = 1e-30
#: The volatility never falls below this share of its prior: a price at rest must not make targets explode.
VOLATILITY_FLOOR = 0.01

#: Index of the running variance of one-tick log returns, the one cell that every model has.
VARIANCE_CELL = 0


#: Computes a feature's value from the moment and its cells (which it may write), starting at the given index.
Feature = Callable[[Moment, list[float], int], float]

# --- bases: features without cells ------------------------------------------------------------------------------------


def _signed_size(moment: Moment, cells: list[float], at: int) -> float:
    tick = moment.tick
    if tick.price is None or tick.aggressor is None:
        return 0.0
    size = log1p(tick.size if tick.size is not None else 1.0)
    return size if tick.aggressor == "buy" else -size


def _sweep(moment: Moment, cells: list[float], at: int) -> float:
    price, bid, ask = moment.tick.price, moment.bid, moment.ask
    # A session that opens with a trade has only the quote of the one before: all that way would be a sweep.
    if price is None or bid is None or ask is None or bid <= price <= ask or moment.price == 0 or moment.opened:
        return 0.0
    return (price - (ask if price > ask else bid)) / abs(moment.price)


def _session_time(moment: Moment, cells: list[float], at: int) -> float:
    if moment.opened:
        return 0.0
    return log1p(max(moment.tick.ts - moment.before.session_since, 0) * 1e-9)


BASES: dict[str, tuple[Feature, str]] = {
    "return": (lambda m, cells, at: m.log_return, "log return of the reference price since the tick before"),
    "change": (lambda m, cells, at: m.change, "difference of the reference price to the tick before"),
    "price": (lambda m, cells, at: m.price, "reference price"),
    "spread": (lambda m, cells, at: m.spread, "ask minus bid, relative to the reference price"),
    "imbalance": (
        lambda m, cells, at: m.imbalance,
        "(bid size - ask size) / (bid size + ask size) of the latest quote",
    ),
    "micro": (lambda m, cells, at: m.spread * m.imbalance / 2, "size-weighted mid over mid, minus 1"),
    "signed_size": (_signed_size, "log(1 + size) of a trade, negative where the seller took liquidity; 0 for a quote"),
    "sweep": (_sweep, "how far a trade printed beyond the latest quote, relative to the reference price; else 0"),
    "trade": (lambda m, cells, at: 0.0 if m.tick.price is None else 1.0, "1 where the tick holds a trade"),
    "wait": (lambda m, cells, at: log1p(m.wait_ns * 1e-6), "log(1 + milliseconds since the tick before)"),
    "session_time": (_session_time, "log(1 + seconds since the session's start)"),
}
FIELD_MEANING = "the producer's own input `fields.NAME`"

# --- features with cells ---------------------------------------------------------------------------------------------

TRANSFORMS = {
    "log": "natural logarithm of what follows",
    "diff": "difference to the tick before; 0 on the first of a session",
    "return": "log return to the tick before; 0 on the first of a session",
    "ema:N": "exponential moving average over about N ticks",
}


def parse_feature(name: str, missing: Missing = "dead_letter") -> tuple[Feature, tuple[float, ...]]:
    """Return a feature and what its cells start from.

    Parameters
    ----------
    missing : what becomes of a tick without a field that the feature reads

    Raises
    ------
    ValueError : names the part that is unknown
    """
    head, _, rest = name.partition(":")
    if head == "field" and rest:
        return _field(rest, missing)
    if head == "ema" and rest:
        span, _, inner = rest.partition(":")
        if not span.isascii() or not span.isdecimal() or int(span) < 1 or not inner:
            raise ValueError(f"feature {name!r}: write ema:N:FEATURE with a whole N from 1")
        return _ema(*parse_feature(inner, missing), weight=2 / (int(span) + 1))
    if head in ("log", "diff", "return") and rest:
        return {"log": _log, "diff": _diff, "return": _return}[head](name, *parse_feature(rest, missing))
    if name in BASES:
        base = BASES[name][0]
        return base, ()
    known = ", ".join([*BASES, "field:NAME"])
    raise ValueError(f"unknown feature {name!r}; known are {known}, with {', '.join(TRANSFORMS)} before them")


def _field(name: str, missing: Missing) -> tuple[Feature, tuple[float, ...]]:
    if missing == "last":
        return _last_field(name), (0.0, 0.0)

    def feature(moment: Moment, cells: list[float], at: int) -> float:
        fields = moment.tick.fields
        if fields is not None and name in fields:
            return fields[name]
        if missing == "dead_letter":
            raise _missing(name)
        return missing

    return feature, ()


def _last_field(name: str) -> Feature:
    """Two cells: the last value, and 1 once there is one. They outlive sessions, as the last quote does."""

    def feature(moment: Moment, cells: list[float], at: int) -> float:
        fields = moment.tick.fields
        if fields is not None and name in fields:
            cells[at], cells[at + 1] = fields[name], 1.0
        elif not cells[at + 1]:
            raise _missing(name)
        return cells[at]

    return feature


def _missing(name: str) -> Rejected:
    return Rejected(Reason.MISSING_FIELD, f"the model reads fields.{name}, which the tick does not have")


def _log(name: str, inner: Feature, start: tuple[float, ...]) -> tuple[Feature, tuple[float, ...]]:
    def feature(moment: Moment, cells: list[float], at: int) -> float:
        value = inner(moment, cells, at)
        if value <= 0:
            raise Rejected(Reason.INVALID_VALUE, f"feature {name} needs a value above 0, found {value!r}")
        return log(value)

    return feature, start


def _diff(name: str, inner: Feature, start: tuple[float, ...]) -> tuple[Feature, tuple[float, ...]]:
    """Own cells, before the inner ones: the last value, and 1 once there is one."""

    def feature(moment: Moment, cells: list[float], at: int) -> float:
        value = inner(moment, cells, at + 2)
        change = 0.0 if moment.opened or not cells[at + 1] else value - cells[at]
        cells[at], cells[at + 1] = value, 1.0
        return change

    return feature, (0.0, 0.0, *start)


def _return(name: str, inner: Feature, start: tuple[float, ...]) -> tuple[Feature, tuple[float, ...]]:
    return _diff(name, *_log(name, inner, start))


def _ema(inner: Feature, start: tuple[float, ...], *, weight: float) -> tuple[Feature, tuple[float, ...]]:
    """Own cell, before the inner ones: the average. It starts from 0, the mean of returns and flows."""

    def feature(moment: Moment, cells: list[float], at: int) -> float:
        value = inner(moment, cells, at + 1)
        average = cells[at] + weight * (value - cells[at])
        cells[at] = average
        return average

    return feature, (0.0, *start)


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
            feature, cells = parse_feature(column.feature, missing)
            scale_at = -1
            if column.scale == "running":
                scale_at = len(start)
                start += [column.mean, column.std**2]
            self._columns.append((feature, len(start), scale_at))
            start += cells
        #: Cells of an instrument that has seen no tick.
        self.start: tuple[float, ...] = tuple(start)
        #: Per column: where its running mean stands in the cells, its variance behind it; -1 where the scale is frozen.
        self.scale_at: tuple[int, ...] = tuple(scale_at for _, _, scale_at in self._columns)

        self._scales = frozen_scales(columns)

    def inputs(self, rows: Sequence[Sequence[float]]) -> F32:
        """Scale the rows of a batch: what the model sees.

        Parameters
        ----------
        rows : as `update` returned them, at least one

        Returns
        -------
        x : float32 array, shape (rows, columns), unitless; infinite where a value exceeds float32's range
        """
        values = array("d")
        for row in rows:
            values.extend(row)
        return scaled(np.frombuffer(values).reshape(len(rows), -1), *self._scales)

    def update(self, moment: Moment, cells: list[float]) -> tuple[list[float], list[float]]:
        """Compute a tick's row of features.

        Returns
        -------
        row : one float64 per column: scaled where the column's scale is running, still to be scaled where it is frozen
        cells : the instrument's cells after this tick; the argument is not modified

        Raises
        ------
        Rejected : a field is missing, or a transform is not defined for its value
        """
        cells = cells.copy()
        row: list[float] = []
        append = row.append
        # The hot loop of the daemon, ten turns a tick: helpers and conveniences were measured and inlined.
        for feature, at, scale_at in self._columns:
            value = feature(moment, cells, at)
            if scale_at < 0:
                append(value)
                continue
            # Standardise by the running scale before this tick, then move the scale.
            mean, variance = cells[scale_at], cells[scale_at + 1]
            std = sqrt(variance)
            scaled = (value - mean) / std
            if scaled > CLIP:
                scaled = CLIP
            elif scaled < -CLIP:
                scaled = -CLIP
            append(scaled)
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
        return row, cells


def frozen_scales(columns: Sequence[Column]) -> tuple[F64, F64]:
    """Return mean and standard deviation by column, float64 of shape (columns,); 0 and 1 where the scale is running."""
    frozen = [(column.mean, column.std) if column.scale == "frozen" else (0.0, 1.0) for column in columns]
    return np.array([mean for mean, _ in frozen]), np.array([std for _, std in frozen])


def scaled(values: F64, mean: F64, std: F64) -> F32:
    """Apply frozen scales in float64, and round to float32 at the end; elementwise, so no row asks for another."""
    with np.errstate(over="ignore"):
        x: F32 = ((values - mean) / std).astype(np.float32)
    return x


def volatility(cells: Sequence[float]) -> float:
    """Return the running standard deviation of one-tick log returns."""
    return sqrt(cells[VARIANCE_CELL])
