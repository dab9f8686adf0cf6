"""Figures of several instruments with intervals, from blocks of time that are drawn anew.

Instruments move together, so their rows are no independent evidence. Time is cut into cells common to all of them,
blocks of neighbouring cells are drawn with replacement, and every figure is computed anew from the cells of a draw; its
interval is that of the figures drawn. Blocks keep together what depends on each other: instruments, overlapping
forecasts, bursts of volatility.

References
----------
Kuensch (1989), The jackknife and the bootstrap for general stationary observations (moving blocks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import nan

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Cells of time, and how many of them stand side by side in a block.
CELLS = 400
CELLS_PER_BLOCK = 20
#: With fewer blocks or rows than these there is no interval.
BLOCKS_MIN = 8
ROWS_MIN = 30
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


def drawn(
    squares: Sequence[tuple[F64, int]],
    figure: Callable[..., F64],
    cells_per_block: int = CELLS_PER_BLOCK,
    draws: int = DRAWS,
    seed: int = 0,
) -> Estimate:
    """Return a figure of sums over cells, and its quantiles over draws of blocks.

    Parameters
    ----------
    squares : per instrument, sums by cell, float64 of shape (kinds of sum, CELLS), and the rows they hold
    figure : takes arrays of sums, each of shape (instruments, draws), and returns one figure per draw
    """
    if not squares:
        return Estimate(nan)
    count = sum(rows for _, rows in squares)
    sums = np.array([cells for cells, _ in squares])
    used = np.flatnonzero(sums.sum(axis=(0, 1)))
    if not len(used):
        return Estimate(nan, count=count)
    sums = sums[:, :, used[0] : used[-1] + 1].transpose(1, 0, 2)  # (kinds of sum, instruments, cells)
    value = float(figure(*sums.sum(axis=2, keepdims=True))[0])
    cells = sums.shape[2]
    length = min(cells_per_block, cells // BLOCKS_MIN)
    if count < ROWS_MIN or length < 1 or not np.isfinite(value):
        return Estimate(value, count=count)
    found = figure(*(sums @ _block_counts(cells, length, draws, seed).T))
    found = found[np.isfinite(found)]
    low, high = np.quantile(found, (0.025, 0.975)).tolist()
    return Estimate(value, low, high, float(found.std()), count)


@lru_cache(maxsize=4)
def _block_counts(cells: int, length: int, draws: int, seed: int) -> F64:
    """Draw blocks, which may run over the end; return how often each cell was drawn, shape (draws, cells)."""
    starts = np.random.default_rng(seed).integers(0, cells, (draws, -(-cells // length)))
    cell = ((starts[:, :, None] + np.arange(length)) % cells).reshape(draws, -1)[:, :cells]
    flat = (cell + np.arange(draws)[:, None] * cells).ravel()
    return np.bincount(flat, minlength=draws * cells).reshape(draws, cells).astype(np.float64)
