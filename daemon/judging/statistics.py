"""What a row of forecasts is worth, with intervals that know that forecasts `h` ticks ahead overlap.

A *move* is what happened between a tick and the tick `h` later, in log return (or in price, for models of
differences); a forecast is a move expected. The naive forecast, persistence, is "no change": a move of 0. So

    R2 = 1 - sum (move - forecast)^2 / sum move^2,

a ratio of two means. Its standard error comes from the delta method: to first order R2 is the mean of its *influence*

    psi_t = -((move - forecast)^2 - (1 - R2) move^2) / mean(move^2),

so its variance is that of the mean of dependent values; `long_run` has it. Ratios of squares of heavy-tailed moves lean
to one side; draws of blocks of rows (`blocks`) see that, and an interval takes the further end of both.

Arrays are float64 of shape (rows,), in order of time, one instrument. Rows that hold a NaN do not count. What cannot be
said (no row, a price that never moved, a series shorter than a few horizons) is NaN, never an error.

References
----------
Diebold, Mariano (1995), Comparing predictive accuracy.
Harvey, Leybourne, Newbold (1997), Testing the equality of prediction mean squared errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray

from daemon.judging.blocks import CELLS, CELLS_PER_BLOCK, DRAWS, Estimate, drawn
from daemon.judging.long_run import NORMAL_95, autocovariance, mean_error, two_sided

F64 = NDArray[np.float64]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class DieboldMariano:
    """Test of equal loss; `statistic` above 0 where the model's loss is the smaller one, `p` is two-sided."""

    statistic: float
    p: float


@dataclass(frozen=True, slots=True)
class Coverage:
    """Where outcomes fell, in shares; an outcome on the edge of the interval is inside."""

    inside: float
    below: float
    above: float
    #: Mean width of the interval, in the unit of the moves.
    width: float
    count: int


# --- one instrument ---------------------------------------------------------------------------------------------------


def r2(move: F64, forecast: F64, horizon: int) -> Estimate:
    """Return R2 against persistence with its interval.

    Each end is the further one of two: that of the standard error, which takes in all overlap but is symmetric, and
    that of blocks drawn anew (as for several instruments), which knows that few large moves pull to one side.
    """
    move, forecast = _known(move, forecast)
    value, influence = _influence(move, forecast)
    error, critical = mean_error(influence, horizon)
    low, high = value - critical * error, value + critical * error
    if np.isfinite(error):
        rows_per_cell = max(len(move) / CELLS, 1.0)
        cell = (np.arange(len(move)) / rows_per_cell).astype(np.intp)
        length = max(CELLS_PER_BLOCK, -int(-2 * horizon // rows_per_cell))
        blocks = drawn([_squares(Rows(move, forecast, cell), forecast)], _mean_r2, length)
        low, high = float(np.fmin(low, blocks.low)), float(np.fmax(high, blocks.high))
    return Estimate(value, low, high, error, len(move))


def mae_skill(move: F64, forecast: F64) -> float:
    """Return 1 - MAE over the MAE of persistence; below 0 is common where most prices do not move at all."""
    move, forecast = _known(move, forecast)
    naive = _mean(np.abs(move))
    return 1 - _mean(np.abs(move - forecast)) / naive if naive > 0 else nan


def pinball(move: F64, quantile: F64, level: float) -> float:
    """Return the mean pinball loss of a quantile forecast, in the unit of the moves; less is better.

    References
    ----------
    Koenker, Bassett (1978), Regression quantiles.
    """
    move, quantile = _known(move, quantile)
    miss = move - quantile
    return _mean(np.maximum(level * miss, (level - 1) * miss))


def coverage(move: F64, lower: F64, upper: F64) -> Coverage:
    """Return how often outcomes lay inside an interval, below it and above it."""
    move, lower, upper = _known(move, lower, upper)
    below, above = _mean(np.where(move < lower, 1.0, 0.0)), _mean(np.where(move > upper, 1.0, 0.0))
    return Coverage(1 - below - above, below, above, _mean(upper - lower), len(move))


def zero_share(move: F64) -> float:
    """Return the share of rows in which the price did not move."""
    (move,) = _known(move)
    return _mean(np.where(move == 0, 1.0, 0.0))


def diebold_mariano(loss: F64, naive_loss: F64, horizon: int) -> DieboldMariano:
    """Test whether two forecasts lose alike.

    Parameters
    ----------
    loss, naive_loss : e.g. squared errors of the model and of persistence, row by row

    Notes
    -----
    The variance is Bartlett's, as for R2, and never negative, unlike that of the original test. The statistic has the
    correction of Harvey, Leybourne and Newbold for h-step forecasts and few rows; `p` comes from Student's distribution
    after the same correction for an estimated variance that the intervals have.
    """
    loss, naive_loss = _known(loss, naive_loss)
    gain, n = naive_loss - loss, len(loss)
    error, critical = mean_error(gain, horizon)
    if not error > 0:
        return DieboldMariano(nan, nan)
    small_sample = sqrt(max(n + 1 - 2 * horizon + horizon * (horizon - 1) / n, 0.0) / n)
    statistic = small_sample * float(gain.mean()) / error
    return DieboldMariano(statistic, two_sided(statistic * NORMAL_95 / critical, n - 1))


def autocorrelation(values: F64, lags: int) -> F64:
    """Return the autocorrelation at lags 0 to `lags`, or to the last one there is."""
    (values,) = _known(values)
    covariance = autocovariance(values - values.mean(), min(lags, len(values) - 1)) if len(values) else np.zeros(1)
    return covariance / covariance[0] if covariance[0] > 0 else np.full_like(covariance, nan)


# --- several instruments at once --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one instrument with the time cell each falls into; cells are the same for all instruments."""

    move: F64
    forecast: F64
    #: intp array, shape (rows,): number of the cell, 0 to CELLS - 1
    cell: Index


def time_cells(ts: NDArray[np.int64], begin: int, end: int) -> Index:
    """Return the cell of each time between `begin` and `end` (included); the cells are equally long."""
    width = max(-(-(end - begin + 1) // CELLS), 1)
    return ((ts - begin) // width).astype(np.intp)


def pooled_r2(instruments: Sequence[Rows]) -> Estimate:
    """Return R2 over the rows of all instruments together: each weighs by the variance of its moves."""

    def figure(error: F64, moved: F64) -> F64:
        return _ratio(moved.sum(axis=0) - error.sum(axis=0), moved.sum(axis=0))

    return drawn([_squares(rows, rows.forecast) for rows in instruments], figure)


def mean_r2(instruments: Sequence[Rows]) -> Estimate:
    """Return the mean of the instruments' R2, of those whose price moved; each weighs the same."""
    return drawn([_squares(rows, rows.forecast) for rows in instruments], _mean_r2)


def r2_difference(
    instruments: Sequence[tuple[Rows, F64]],
    *,
    cells_per_block: int = CELLS_PER_BLOCK,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Return by how much the mean R2 of one forecast exceeds that of another on the same rows.

    Both forecasts are judged on each draw, so what they share drops out of the difference.

    Parameters
    ----------
    instruments : rows with the one forecast, and the other forecast for the same rows; give one for one instrument
    cells_per_block : blocks must be longer than the horizon takes
    """

    def figure(first: F64, second: F64, moved: F64) -> F64:
        return _mean_known(_ratio(second - first, moved))

    squares = [_squares(rows, rows.forecast, other) for rows, other in instruments]
    return drawn(squares, figure, cells_per_block, draws, seed)


def _squares(rows: Rows, *forecasts: F64) -> tuple[F64, int]:
    """Return squared errors of each forecast and squared moves by cell, (forecasts + 1, CELLS), and the rows known."""
    move, cell, *known = _known(rows.move, rows.cell.astype(np.float64), *forecasts)
    squares = [*(np.square(move - forecast) for forecast in known), np.square(move)]
    return np.array([np.bincount(cell.astype(np.intp), square, CELLS) for square in squares]), len(move)


def _mean_r2(error: F64, moved: F64) -> F64:
    return _mean_known(_ratio(moved - error, moved))


def _ratio(over: F64, under: F64) -> F64:
    """Divide; NaN where there is nothing to divide by."""
    return np.divide(over, under, out=np.full_like(over, nan), where=under > 0)


def _mean_known(values: F64) -> F64:
    """Return the mean over the instruments (the first axis), of those that are known."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=0), known.sum(axis=0).astype(np.float64))


# --- helpers ---------------------------------------------------------------------------------------------------------


def _influence(move: F64, forecast: F64) -> tuple[float, F64]:
    """Return R2 and how far each row moves it."""
    squared_error, squared_move = np.square(move - forecast), np.square(move)
    spread = _mean(squared_move)
    if not spread > 0:
        return nan, np.full(len(move), nan)
    ratio = float(squared_error.mean()) / spread
    return 1 - ratio, -(squared_error - ratio * squared_move) / spread


def _known(*columns: F64) -> tuple[F64, ...]:
    """Return the rows in which every column is known."""
    known = np.logical_and.reduce([np.isfinite(column) for column in columns])
    return tuple(np.asarray(column, np.float64)[known] for column in columns)


def _mean(values: F64) -> float:
    return float(values.mean()) if len(values) else nan
