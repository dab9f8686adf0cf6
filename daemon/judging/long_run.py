"""The mean of dependent values: its standard error, and how far to trust that.

The variance of such a mean is the *long-run variance* over the number of values: the variance and twice all
autocovariances. It is estimated with Bartlett's kernel (Newey and West 1987). With few lags it is too small where
forecasts overlap and squares of returns cluster, with many it is noisy; so there are many, and the critical values are
those of Kiefer and Vogelsang (2005), which know of the noise. On 300 simulated series of 500 rows and overlapping
forecasts 50 ahead, 95 % intervals with h - 1 lags and 1.96 held the truth in 90 % of the cases, these in 95 %.

References
----------
Newey, West (1987), A simple, positive semi-definite, heteroskedasticity and autocorrelation consistent covariance
matrix.
Kiefer, Vogelsang (2005), A new asymptotic theory for heteroskedasticity-autocorrelation robust tests.
Lazarus, Lewis, Stock, Watson (2018), HAR inference: recommendations for practice (1.3 sqrt(n) lags).
"""

from __future__ import annotations

from math import erfc, exp, lgamma, nan, pi, sqrt

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

#: Intervals hold the truth in 95 of 100 cases. Critical values of Kiefer and Vogelsang for it, in powers of the
#: bandwidth over the number of rows.
CRITICAL_95 = (1.9600, 2.9694, 0.4160, -0.5324)
NORMAL_95 = CRITICAL_95[0]
#: Lags of Bartlett's kernel in horizons: it weighs lags down, and with only h - 1 of them misses a third of the
#: variance that overlap makes; with 3 h it misses a ninth.
LAGS_PER_HORIZON = 3
#: Fewer rows than this many horizons hold no interval.
HORIZONS_MIN = 4
#: From here on Student's distribution is the normal one to three digits.
FREEDOM_MAX = 200


def mean_error(values: F64, horizon: int) -> tuple[float, float]:
    """Return the standard error of a mean and its critical value; NaN where there are too few values."""
    n = len(values)
    if n < HORIZONS_MIN * horizon or n < 2 * HORIZONS_MIN:
        return nan, nan
    lag = lag_of(n, horizon)
    bandwidth = (lag + 1) / n
    critical = sum(factor * bandwidth**power for power, factor in enumerate(CRITICAL_95))
    return sqrt(long_run_variance(values, lag) / n), critical


def lag_of(rows: int, horizon: int) -> int:
    """Return the lags that the long-run variance takes in: above h - 1, and at most half of the rows."""
    return max(1, min(max(LAGS_PER_HORIZON * horizon, int(1.3 * sqrt(rows))), rows // 2))


def long_run_variance(values: F64, lag: int) -> float:
    """Return the variance of the mean of dependent values, times their number (Bartlett's kernel; never negative)."""
    covariance = autocovariance(values - values.mean(), min(lag, len(values) - 1))
    weights = 1 - np.arange(len(covariance)) / (lag + 1)
    return max(float(covariance[0] + 2 * (weights[1:] * covariance[1:]).sum()), 0.0)


def two_sided(statistic: float, freedom: int) -> float:
    """Return the probability of a statistic at least as far from 0, under Student's distribution."""
    t = abs(statistic)
    if freedom > FREEDOM_MAX:
        return erfc(t / sqrt(2))
    if freedom < 1 or not np.isfinite(t):
        return nan
    # with t = sqrt(freedom) tan(angle) the density is a power of the cosine
    nodes, weights = np.polynomial.legendre.leggauss(200)
    low = np.arctan(t / sqrt(freedom))
    angle = low + (nodes + 1) / 2 * (pi / 2 - low)
    scale = exp(lgamma((freedom + 1) / 2) - lgamma(freedom / 2)) / sqrt(pi)
    return min(float(2 * scale * (weights * np.cos(angle) ** (freedom - 1)).sum() * (pi / 2 - low) / 2), 1.0)


def autocovariance(centred: F64, lags: int) -> F64:
    """Return the autocovariances at lags 0 to `lags`; by Fourier transform, since there may be millions of rows."""
    n = len(centred)
    size = 1 << (n + lags).bit_length()
    spectrum = np.fft.rfft(centred, size)
    covariance: F64 = np.fft.irfft(spectrum * spectrum.conj(), size)[: lags + 1] / n
    return covariance
