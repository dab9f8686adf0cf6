"""What the last scored forecasts were worth: skill against persistence with its confidence, coverage and width.

The loop only appends numbers to a ring; everything else is computed when somebody looks.

How sure the skill is. Neighbouring forecasts of a horizon share most of their truth, so their errors are correlated;
the variance of the skill is that of the mean of ``error^2 - (1 - skill) * persistence^2`` (the delta method for the
ratio), with the autocovariances of each instrument's own sequence up to the horizon and beyond, in the weights of Newey
and West (1987). Instruments that move together are not independent either, so the same variance is computed once more
from the sums of all instruments over `BLOCKS` spans of time, and the larger of the two counts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import ceil, isfinite, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.core.forecast import Forecaster
from daemon.core.intake import Row
from daemon.core.kept_scores import Pending
from daemon.core.scores import stride
from daemon.logs import facts, log

F64 = NDArray[np.float64]

#: Scored forecasts looked back on, over all horizons; 1 MiB, and at 2,000 ticks/s about 15 seconds.
WINDOW = 16_384
#: Below this many of a horizon, nothing is said about its skill.
FEWEST = 64
#: Of the confidence interval, either side: 95 % in all.
SURE = 1.96
BLOCKS = 16
#: Numbers of a row of the ring.
_WIDTH = 8


class HorizonScores(NamedTuple):
    """What the last scored forecasts of one horizon add up to."""

    horizon: int
    #: 1 - MSE / MSE of persistence, and the upper end of its 95 % interval; None where nothing moved, or too few came.
    skill: float | None
    skill_upper: float | None
    #: Share of outcomes that the interval held, and its mean width over the price; None where none was known.
    coverage: float | None
    width: float | None


class LiveScores:
    """A ring of scored forecasts. Errors are relative to the price; absolute for models of prices that may be negative.

    Parameters
    ----------
    forecaster : the one whose forecasts are scored
    absolute : prices may be negative, so nothing is divided by them
    """

    def __init__(self, forecaster: Forecaster, *, absolute: bool) -> None:
        self._forecaster = forecaster
        self._absolute = absolute
        self._horizons = [output.horizon for output in forecaster.outputs]
        self._ring = array("d")
        #: Horizons whose skill was last said to be below zero.
        self._below: set[int] = set()

    def observe(self, scored: Sequence[tuple[Row, int, Pending]]) -> None:
        """Take what was scored in a batch, in log order."""
        extend = self._ring.extend
        for row, column, forecast in scored:
            _, _, _, price, mean, _, _, low, high, holds = forecast
            extend((column, row.instrument.slot, price, mean, low, high, holds, row.price))
        if len(self._ring) > 2 * WINDOW * _WIDTH:
            del self._ring[: -WINDOW * _WIDTH]

    def figures(self) -> list[HorizonScores]:
        """Compute the figures of every horizon with anything scored; safe beside `observe` in another thread."""
        ring = np.array(self._ring[-WINDOW * _WIDTH :]).reshape(-1, _WIDTH)
        found = [(column, ring[ring[:, 0] == column]) for column in range(len(self._horizons))]
        return [self._horizon(column, rows) for column, rows in found if len(rows)]

    def warn(self, figures: Sequence[HorizonScores]) -> None:
        """Say once when a horizon's skill falls below zero for sure, and once when it does not any more."""
        for each in figures:
            below = each.skill_upper is not None and each.skill_upper < 0
            if below and each.horizon not in self._below:
                self._below.add(each.horizon)
                said = facts(horizon=each.horizon, skill=each.skill, upper=each.skill_upper)
                log.warning("forecasts are worse than no change; look at the model, or train it anew", extra=said)
            elif not below and each.horizon in self._below:
                self._below.remove(each.horizon)
                log.info("forecasts are no longer worse than no change", extra=facts(horizon=each.horizon))

    def _horizon(self, column: int, rows: F64) -> HorizonScores:
        _, slot, price, mean, low, high, holds, outcome = rows.T
        unit = np.ones_like(price) if self._absolute else price
        error, persistence = ((outcome - mean) / unit) ** 2, ((outcome - price) / unit) ** 2
        horizon = self._horizons[column]
        skill = upper = coverage = width = None
        if len(rows) >= FEWEST and persistence.any():
            skill = 1 - float(error.sum() / persistence.sum())
            lag = ceil(horizon / stride(horizon))
            upper = skill + SURE * _standard_error(error - (1 - skill) * persistence, slot, lag) / float(
                persistence.mean()
            )
        known = np.isfinite(low)
        if known.any():
            columns = np.full(len(rows), column, np.intp)
            lower, top = self._forecaster.ends(columns, price, mean, low, high, holds)
            coverage = float(((outcome >= lower) & (outcome <= top))[known].mean())
            width = float(((top - lower) / unit)[known].mean())
        finite = [None if value is None or not isfinite(value) else value for value in (skill, upper, coverage, width)]
        return HorizonScores(horizon, *finite)


def _standard_error(values: F64, group: F64, lag: int) -> float:
    """Return the standard error of the mean of values whose expectation is 0, in the order of time.

    Parameters
    ----------
    group : whose values they are; autocovariances are taken within a group
    lag : at least so many autocovariances count
    """
    count = len(values)
    order = np.argsort(group, kind="stable")
    sorted_values, sorted_group = values[order], group[order]
    lags = min(max(lag, ceil(4 * (count / 100) ** (2 / 9))), count - 1)
    total = float(values @ values)
    for distance in range(1, lags + 1):
        same = sorted_group[distance:] == sorted_group[:-distance]
        products = sorted_values[distance:] * sorted_values[:-distance]
        total += 2 * (1 - distance / (lags + 1)) * float(products[same].sum())
    sums = np.array([block.sum() for block in np.array_split(values, BLOCKS)])
    return sqrt(max(total, float(sums @ sums), 0.0)) / count
