"""From the model's outputs back to prices: mean, interval and variance at every horizon.

All arithmetic is elementwise in float64, so a row's figures depend on no other row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.core.spec import ModelSpec, Output
from daemon.core.step import F32

F64 = NDArray[np.float64]

#: Significant digits of published prices, at least; float32 outputs on tick returns carry about 12. Payloads are half
#: of what a tick costs, and shortest-digits encoders print what rounding leaves.
PRICE_DIGITS = 10
#: A variance is an estimate; more digits would only pretend.
VARIANCE_DIGITS = 4
#: A coverage of 0.9 asks for level 0.04999999999999999, which a bundle knows as 0.05.
LEVEL_TOLERANCE = 1e-9
_POWERS_OF_TEN = np.array([float(f"1e{power}") for power in range(-300, 301)])


@dataclass(frozen=True, slots=True)
class Levels:
    """Forecasts of a batch, each float64 of shape (rows, horizons).

    `lower`, `upper` (price levels) and `variance` (of the log return) are None where the bundle does not know them.
    `finite` has shape (rows,).
    """

    mean: F64
    lower: F64 | None
    upper: F64 | None
    variance: F64 | None
    finite: NDArray[np.bool_]


class Forecaster:
    """Turns outputs into levels.

    Parameters
    ----------
    spec : the model
    coverage : share of outcomes the interval shall hold; half of the rest lies on either side
    """

    def __init__(self, spec: ModelSpec, coverage: float) -> None:
        outputs = spec.outputs
        self._mean = np.array([output.mean for output in outputs])
        self._scale = np.array([output.scale for output in outputs])
        self._volatile = np.array([output.volatile for output in outputs])
        self._log = np.array([output.kind == "log_return" for output in outputs])
        self._level = np.array([output.kind == "price" for output in outputs])
        tails = ((1 - coverage) / 2, (1 + coverage) / 2)
        quantiles = [[_quantile(output, level) for output in outputs] for level in tails]
        self._tails = None if any(q is None for row in quantiles for q in row) else np.array(quantiles, np.float64)
        variances = [output.residual_variance for output in outputs]
        self._variance = None if None in variances else np.array(variances, np.float64)

    def levels(self, y: F32, price: F64, volatility: F64) -> Levels:
        """Compute the forecasts of rows.

        Parameters
        ----------
        y : float32 array, shape (rows, outputs); in the model's output units
        price : float64 array, shape (rows,); reference price
        volatility : float64 array, shape (rows,); running standard deviation of one-tick log returns
        """
        with np.errstate(over="ignore", invalid="ignore"):
            unit = self._scale * np.where(self._volatile, volatility[:, None], 1.0)
            rounding = _rounding(price, PRICE_DIGITS)[:, None]
            y64 = y.astype(np.float64)
            mean = self._price_at(y64, unit, price, rounding)
            finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(mean), axis=1)
            lower = upper = variance = None
            if self._tails is not None:
                lower = self._price_at(y64 + self._tails[0], unit, price, rounding)
                upper = self._price_at(y64 + self._tails[1], unit, price, rounding)
                finite &= np.isfinite(lower).all(axis=1) & np.isfinite(upper).all(axis=1)
            if self._variance is not None:
                variance = unit * unit * self._variance
                digits = _rounding(variance, VARIANCE_DIGITS)
                variance = np.rint(variance * digits) / digits
                finite &= np.isfinite(variance).all(axis=1)
        return Levels(mean, lower, upper, variance, finite)

    def _price_at(self, y: F64, unit: F64, price: F64, rounding: F64) -> F64:
        value = self._mean + unit * y
        base = price[:, None]
        level = np.where(
            self._log, base * np.exp(np.where(self._log, value, 0.0)), np.where(self._level, value, base + value)
        )
        return np.rint(level * rounding) / rounding


def _rounding(values: F64, digits: int) -> F64:
    """Return the power of ten that keeps so many digits of each value; exact arithmetic, no logarithm."""
    exponent = np.frexp(values)[1]
    decimals = digits - np.floor(exponent * 0.30102999566398120).astype(np.intp)
    return _POWERS_OF_TEN[np.clip(decimals, -300, 300) + 300]


def _quantile(output: Output, level: float) -> float | None:
    """Interpolate a residual quantile, in units of y; None where the levels known do not reach so far."""
    known = output.residual_quantiles
    if not known or not known[0][0] - LEVEL_TOLERANCE <= level <= known[-1][0] + LEVEL_TOLERANCE:
        return None
    return float(np.interp(level, [at for at, _ in known], [quantile for _, quantile in known]))
