"""What forecasts are worth: skill against "no change", and how their errors are spread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daemon.training.collect import F64

#: Levels at which the errors' quantiles are kept: enough for any coverage up to 99 %.
LEVELS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995)


def skill(target: F64, predicted: F64) -> list[float | None]:
    """Return 1 - MSE / MSE of "no change" for each output (R2 against persistence).

    Parameters
    ----------
    target, predicted : float64 arrays, shape (rows, outputs); rows whose target is NaN do not count

    Returns
    -------
    One number per output; None where no target is known or none differs from 0
    """
    known = np.isfinite(target)
    error = np.sum(np.where(known, target - predicted, 0.0) ** 2, axis=0)
    base = np.sum(np.where(known, target, 0.0) ** 2, axis=0)
    return [float(1 - e / b) if b > 0 else None for e, b in zip(error, base, strict=True)]


def mean_skill(skills: Sequence[Sequence[float | None]], outputs: int) -> tuple[float | None, ...]:
    """Return the mean over the instruments for each of so many outputs, of those that have one."""
    means: list[float | None] = []
    for column in range(outputs):
        known = [value for row in skills if (value := row[column]) is not None]
        means.append(sum(known) / len(known) if known else None)
    return tuple(means)


def residual_figures(residual: F64) -> tuple[float, tuple[tuple[float, float], ...]]:
    """Return the mean square and the quantiles of errors, shape (rows,), in output units; NaN do not count."""
    known = residual[np.isfinite(residual)]
    quantiles = np.quantile(known, LEVELS)
    return float(np.mean(known**2)), tuple(zip(LEVELS, quantiles.tolist(), strict=True))
