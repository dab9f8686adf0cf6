"""What a row of forecasts is worth, with intervals that know that forecasts `h` ticks ahead overlap.

A *move* is what happened between a tick and the tick `h` later, in log return (or in price, for models of
differences); a forecast is a move expected. The naive forecast, persistence, is "no change": a move of 0. So

    R2 = 1 - sum (move - forecast)^2 / sum move^2,

a ratio of two means. Its standard error comes from the delta method: to first order R2 is the mean of its *influence*

    psi_t = -((move - forecast)^2 - (1 - R2) move^2) / mean(move^2),

so its variance is that of the mean of dependent values; `long_run` has it.

Arrays are float64 of shape (rows,), in order of time, one instrument. Rows that hold a NaN do not count. What cannot be
said (no row, a price that never moved, a series shorter than a few horizons) is NaN, never an error.

References
----------
Diebold, Mariano (1995), Comparing predictive accuracy.
Harvey, Leybourne, Newbold (1997), Testing the equality of prediction mean squared errors.
Kuensch (1989), The jackknife and the bootstrap for general stationary observations (moving blocks).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray

from daemon.judging.long_run import NORMAL_95, autocovariance, mean_error, two_sided

F64 = NDArray[np.float64]
Index = NDArray[np.intp]

#: Cells of the bootstrap, and how many of them stand side by side in a block.
CELLS = 400
CELLS_PER_BLOCK = 20
DRAWS = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval; NaN where it cannot be said."""

    value: float
    low: float = nan
    high: float = nan
    standard_error: float = nan
    #: Rows it rests on.
    count: int = 0

    @property
    def below_zero(self) -> bool:
        """True only where the whole interval is below zero: worse than the naive forecast, and not by chance."""
        return self.high < 0

    @property
    def above_zero(self) -> bool:
        """True only where the whole interval is above zero."""
        return self.low > 0


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
    """Return R2 against persistence with its interval."""
    move, forecast = _known(move, forecast)
    value, influence = _influence(move, forecast)
    return _estimate(value, influence, horizon)


def mse_skill(move: F64, forecast: F64) -> float:
    """Return 1 - MSE over the MSE of persistence: R2 without its interval."""
    return _skill(np.square, *_known(move, forecast))


def mae_skill(move: F64, forecast: F64) -> float:
    """Return 1 - MAE over the MAE of persistence; below 0 is common where most prices do not move at all."""
    return _skill(np.abs, *_known(move, forecast))


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
    """Return R2 over the rows of all instruments together.

    Instruments move together, so their rows are no independent evidence: influences are summed within common cells of
    time, and the sums are what the interval comes from. An instrument weighs by the variance of its moves.
    """
    known = [_known_rows(rows) for rows in instruments]
    move, forecast, cell = (np.concatenate([each[at] for each in known] or [np.empty(0)]) for at in range(3))
    value, influence = _influence(move, forecast)
    return _cell_estimate(value, [(influence / max(len(influence), 1), cell)], len(influence))


def mean_r2(instruments: Sequence[Rows]) -> Estimate:
    """Return the mean of the instruments' R2, of those whose price moved; each weighs the same."""
    values: list[float] = []
    parts: list[tuple[F64, F64]] = []
    count = 0
    for rows in instruments:
        move, forecast, cell = _known_rows(rows)
        value, influence = _influence(move, forecast)
        if np.isfinite(value):
            values.append(value)
            parts.append((influence / len(influence), cell))
            count += len(influence)
    mean = float(np.mean(values)) if values else nan
    return _cell_estimate(mean, [(part / len(values), cell) for part, cell in parts], count)


def r2_difference(
    instruments: Sequence[tuple[Rows, F64]],
    *,
    cells_per_block: int = CELLS_PER_BLOCK,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Return by how much the mean R2 of one forecast exceeds that of another on the same rows.

    Blocks of time are drawn with replacement, all instruments together, and both forecasts are judged on each draw; so
    what all rows and both forecasts share drops out of the difference, and dependence within a block stays.

    Parameters
    ----------
    instruments : rows with the one forecast, and the other forecast for the same rows; give one for one instrument
    cells_per_block : blocks must be longer than the horizon takes

    Returns
    -------
    Estimate : the difference, its 2.5 % and 97.5 % quantiles over the draws, and their standard deviation
    """
    sums = np.array([_cell_sums(rows, other) for rows, other in instruments])  # (instruments, 3, cells)
    if not len(sums):
        return Estimate(nan)
    sums = sums[sums[:, 2].sum(axis=1) > 0]
    used = np.flatnonzero(sums.sum(axis=(0, 1)))
    if not len(used):
        return Estimate(nan)
    sums = sums[:, :, used[0] : used[-1] + 1]
    first, second, moved = np.tensordot(_block_counts(sums.shape[2], cells_per_block, draws, seed), sums, (1, 2)).T
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = np.nanmean(np.where(moved.T > 0, (second - first).T / moved.T, nan), axis=1)
    first, second, moved = sums.sum(axis=2).T
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    count = sum(int(np.isfinite(rows.move).sum()) for rows, _ in instruments)
    return Estimate(float(((second - first) / moved).mean()), float(low), float(high), float(np.nanstd(drawn)), count)


def _cell_sums(rows: Rows, other: F64) -> F64:
    """Return, by cell, the squared errors of both forecasts and the squared moves; shape (3, CELLS)."""
    move, first, second, cell = _known(rows.move, rows.forecast, other, rows.cell.astype(np.float64))
    squares = (np.square(move - first), np.square(move - second), np.square(move))
    return np.array([np.bincount(cell.astype(np.intp), square, CELLS) for square in squares])


def _block_counts(cells: int, cells_per_block: int, draws: int, seed: int) -> F64:
    """Draw blocks, which may run over the end; return how often each cell was drawn, shape (draws, cells)."""
    length = min(cells_per_block, cells)
    blocks = -(-cells // length)
    starts = np.random.default_rng(seed).integers(0, cells, (draws, blocks))
    drawn = ((starts[:, :, None] + np.arange(length)) % cells).reshape(draws, -1)[:, :cells]
    counts = np.zeros((draws, cells))
    np.add.at(counts, (np.arange(draws)[:, None], drawn), 1.0)
    return counts


# --- helpers ---------------------------------------------------------------------------------------------------------


def _estimate(value: float, influence: F64, horizon: int) -> Estimate:
    error, critical = mean_error(influence, horizon)
    return Estimate(value, value - critical * error, value + critical * error, error, len(influence))


def _cell_estimate(value: float, parts: Sequence[tuple[F64, F64]], count: int) -> Estimate:
    """Return the estimate whose influences, summed within cells of time, add up to 0."""
    sums = np.zeros(CELLS)
    for influence, cell in parts:
        sums += np.bincount(cell.astype(np.intp), influence, CELLS)
    used = np.flatnonzero(sums)
    if not np.isfinite(value) or not len(used):
        return Estimate(value, count=count)
    sums = sums[used[0] : used[-1] + 1]
    # the value is a sum over cells, not their mean
    error, critical = mean_error(sums * len(sums), 1)
    return Estimate(value, value - critical * error, value + critical * error, error, count)


def _influence(move: F64, forecast: F64) -> tuple[float, F64]:
    """Return R2 and how far each row moves it."""
    squared_error, squared_move = np.square(move - forecast), np.square(move)
    spread = _mean(squared_move)
    if not spread > 0:
        return nan, np.full(len(move), nan)
    ratio = float(squared_error.mean()) / spread
    return 1 - ratio, -(squared_error - ratio * squared_move) / spread


def _skill(loss: np.ufunc, move: F64, forecast: F64) -> float:
    naive = _mean(loss(move))
    return 1 - _mean(loss(move - forecast)) / naive if naive > 0 else nan


def _known(*columns: F64) -> tuple[F64, ...]:
    """Return the rows in which every column is known."""
    known = np.logical_and.reduce([np.isfinite(column) for column in columns])
    return tuple(np.asarray(column, np.float64)[known] for column in columns)


def _known_rows(rows: Rows) -> tuple[F64, ...]:
    return _known(rows.move, rows.forecast, rows.cell.astype(np.float64))


def _mean(values: F64) -> float:
    return float(values.mean()) if len(values) else nan
