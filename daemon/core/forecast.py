"""From the model's outputs back to prices: mean, interval and variance at every horizon.

In two steps, for what has come true within a batch moves the intervals of its later rows: first what the model itself
says (`Outlook`), then the levels, with the corrections that were in force at each row (`intervals`, `scores`).

All arithmetic is elementwise in float64, so a row's figures depend on no other row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.core.spec import ModelSpec
from daemon.core.step import F32, Index

F64 = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: Significant digits of published prices, at least; float32 outputs on tick returns carry about 12. Payloads are half
#: of what a tick costs, and shortest-digits encoders print what rounding leaves.
PRICE_DIGITS = 10
#: A variance is an estimate; more digits would only pretend.
VARIANCE_DIGITS = 4
#: A unit of errors is never 0, so that errors can be divided by it.
UNIT_MIN = 1e-300
#: An end beyond what a float holds, which JSON could not say, is the largest float.
LARGEST = float(np.finfo(np.float64).max)
_POWERS_OF_TEN = np.array([float(f"1e{power}") for power in range(-300, 301)])


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the model says of a batch, before outcomes correct it; each float64 of shape (rows, horizons).

    `mean` is in prices; `value` is the same in what the output's kind says (a log return, a difference, a price), and
    so are `low` and `high`, which the ends of the interval are reckoned from, and `unit`, the unit of errors.
    """

    mean: F64
    value: F64
    unit: F64
    low: F64
    high: F64
    #: shape (rows,)
    price: F64
    #: shape (rows, 1): powers of ten that prices of a row are rounded to.
    rounding: F64
    #: shape (rows,): false where any of it is not finite.
    finite: Bools


@dataclass(frozen=True, slots=True)
class Levels:
    """Forecasts of a batch, each float64 of shape (rows, horizons).

    ``lower <= mean <= upper`` (price levels); `variance` is that of the log return, or of the price for outputs of
    another kind. Ends and variance say nothing where `known`, of shape (rows,), is false.
    """

    mean: F64
    lower: F64
    upper: F64
    variance: F64
    known: Bools
    #: shape (rows,): reference price.
    price: F64


class Forecaster:
    """Turns outputs into levels.

    Parameters
    ----------
    spec : the model
    coverage : share of outcomes the interval shall hold; half of the rest lies on either side
    """

    def __init__(self, spec: ModelSpec, coverage: float) -> None:
        self.coverage = coverage
        #: The outputs that say a mean, one per horizon.
        self.outputs = tuple(output for output in spec.outputs if output.of == "mean")
        outputs = list(enumerate(spec.outputs))
        #: Their columns among all outputs.
        self.means = np.array([column for column, output in outputs if output.of == "mean"], np.intp)
        log_variances = {output.horizon: column for column, output in outputs if output.of == "log_variance"}
        self._log_variances = np.array([log_variances.get(output.horizon, -1) for output in self.outputs], np.intp)
        allowed = (1 - coverage) / 2
        self._lows = np.array([_quantile(spec, each.horizon, allowed) for each in self.outputs], np.intp)
        self._highs = np.array([_quantile(spec, each.horizon, 1 - allowed) for each in self.outputs], np.intp)
        #: Horizons of which the model says the variance itself, and those of which it says both ends itself.
        self.scaled = tuple((self._log_variances >= 0).tolist())
        self.quantiled = tuple(((self._lows >= 0) & (self._highs >= 0)).tolist())
        self._shift = np.array([output.mean for output in spec.outputs])
        self._scale = np.array([output.scale for output in spec.outputs])
        self._volatile = np.array([output.volatile for output in spec.outputs])
        self._log = np.array([output.kind == "log_return" for output in self.outputs])
        self._level = np.array([output.kind == "price" for output in self.outputs])

    def outlook(self, y: F32, price: F64, volatility: F64) -> Outlook:
        """Read the outputs of rows.

        Parameters
        ----------
        y : float32 array, shape (rows, outputs); in the model's output units
        price : float64 array, shape (rows,); reference price
        volatility : float64 array, shape (rows,); running standard deviation of one-tick log returns
        """
        with np.errstate(over="ignore", invalid="ignore"):
            scale = self._scale * np.where(self._volatile, volatility[:, None], 1.0)
            said = self._shift + scale * y.astype(np.float64)
            rounding = _rounding(price, PRICE_DIGITS)[:, None]
            value = said[:, self.means]
            mean = _price_at(value, price[:, None], rounding, self._log, self._level)
            unit = np.abs(scale[:, self.means])
            if any(self.scaled):
                unit = np.where(self.scaled, unit * np.exp(said[:, self._log_variances] / 2), unit)
            unit = np.maximum(unit, UNIT_MIN)
            low = high = value
            if any(self.quantiled):
                one, other = said[:, self._lows], said[:, self._highs]
                low = np.where(self.quantiled, np.minimum(one, other), value)
                high = np.where(self.quantiled, np.maximum(one, other), value)
            finite: Bools = np.isfinite(said).all(axis=1)
            finite &= np.isfinite(mean).all(axis=1) & np.isfinite(unit).all(axis=1)
        return Outlook(mean, value, unit, low, high, price, rounding, finite)

    def levels(self, outlook: Outlook, corrections: F64) -> Levels:
        """Compute the forecasts of rows.

        Parameters
        ----------
        corrections : float64 array, shape (rows, horizons, 4): the `Correction` in force at each row
        """
        low, high, mean_square, holds_price = np.moveaxis(corrections, 2, 0)
        known: Bools = np.isfinite(low).all(axis=1)
        mean, unit, price, rounding = outlook.mean, outlook.unit, outlook.price, outlook.rounding
        with np.errstate(over="ignore", invalid="ignore"):
            ends = (outlook.low + low * unit, outlook.high + high * unit)
            lower, upper = self._ends(*ends, mean, price[:, None], holds_price, rounding, self._log, self._level)
            variance = unit * unit * mean_square
            digits = _rounding(variance, VARIANCE_DIGITS)
            variance = np.rint(variance * digits) / digits
        return Levels(mean, lower, upper, np.fmin(variance, LARGEST), known, price)

    def ends(self, column: Index, price: F64, mean: F64, low: F64, high: F64, holds_price: F64) -> tuple[F64, F64]:
        """Return the ends, to the bit as published, of forecasts of any horizons; arguments are those of `Pending`.

        Parameters
        ----------
        column : intp array, shape (forecasts,); all others are float64 arrays of this shape
        """
        rounding = _rounding(price, PRICE_DIGITS)
        with np.errstate(over="ignore", invalid="ignore"):
            return self._ends(low, high, mean, price, holds_price, rounding, self._log[column], self._level[column])

    def _ends(
        self, low: F64, high: F64, mean: F64, price: F64, holds_price: F64, rounding: F64, log: Bools, level: Bools
    ) -> tuple[F64, F64]:
        held = np.where(holds_price != 0, price, mean)
        # Only ever wider; behind the rounding, so that it cannot undo it. fmin and fmax pass over NaN.
        lower = np.fmin(np.fmin(_price_at(low, price, rounding, log, level), mean), held)
        upper = np.fmax(np.fmax(_price_at(high, price, rounding, log, level), mean), held)
        return np.maximum(lower, -LARGEST), np.minimum(upper, LARGEST)


def _price_at(value: F64, price: F64, rounding: F64, log: Bools, level: Bools) -> F64:
    """Return the prices that values mean; arrays of shapes that broadcast together."""
    prices = np.where(log, price * np.exp(np.where(log, value, 0.0)), np.where(level, value, price + value))
    found: F64 = np.rint(prices * rounding) / rounding
    return found


def _rounding(values: F64, digits: int) -> F64:
    """Return the power of ten that keeps so many digits of each value; exact arithmetic, no logarithm."""
    exponent = np.frexp(values)[1]
    decimals = digits - np.floor(exponent * 0.30102999566398120).astype(np.intp)
    return _POWERS_OF_TEN[np.clip(decimals, -300, 300) + 300]


def _quantile(spec: ModelSpec, horizon: int, level: float) -> int:
    """Return the column whose level is the nearest on the same side of the median; -1 where there is none."""
    columns = [
        (abs(output.of - level), column)
        for column, output in enumerate(spec.outputs)
        if output.horizon == horizon and isinstance(output.of, float) and (output.of - 0.5) * (level - 0.5) > 0
    ]
    return min(columns)[1] if columns else -1
