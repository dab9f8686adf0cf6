"""The best simple predictors: a ridge over all columns, and each column alone. What they reach is there to be reached.

Fitted on the first part of the rows in time, judged on the rest, always against "no change".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daemon.judging.blocks import Estimate
from daemon.judging.statistics import r2

F64 = NDArray[np.float64]

#: Share of the rows, in time, that predictors are fitted on.
SPLIT = 0.7
#: Of the standardised columns; the same as in common baselines on order books, and of no weight with thousands of rows.
RIDGE_PENALTY = 10.0
#: Fewer rows to judge on say nothing.
ROWS_MIN = 100
#: Standardised values are bounded to this: a single outlier must not decide a regression.
CLIP = 20.0


def ridge(x: F64, target: F64, horizon: int, split: float = SPLIT) -> tuple[F64, Estimate]:
    """Fit a ridge on the first rows and judge it on the rest.

    Parameters
    ----------
    x : shape (rows, columns), in order of time
    target : shape (rows,); NaN where unknown
    horizon : rows that a target looks ahead; those that would look past the split are not fitted on

    Returns
    -------
    predicted : shape (rows,)
    r2 : on the rest, against 0, with its 95 % interval; NaN where nothing moves or the rest is too short
    """
    cut = int(len(x) * split)
    fit = _known(x[: max(cut - horizon, 0)], target)
    if fit.sum() < ROWS_MIN or len(x) - cut < ROWS_MIN:
        return np.zeros(len(x)), Estimate(np.nan)
    z = _standardised(x, fit)
    design, known = z[: len(fit)][fit], target[: len(fit)][fit]
    gram = design.T @ design + RIDGE_PENALTY * np.eye(design.shape[1])
    offset = known.mean()
    predicted = z @ np.linalg.solve(gram, design.T @ (known - offset)) + offset
    return predicted, r2(target[cut:], predicted[cut:], horizon)


def single_r2s(x: F64, target: F64, horizon: int, split: float = SPLIT) -> F64:
    """Return R2 against 0 of each column alone, shape (columns,), on the rows after the split; as `ridge`."""
    cut = int(len(x) * split)
    fit = _known(x[: max(cut - horizon, 0)], target)
    test = np.isfinite(target[cut:])
    if fit.sum() < ROWS_MIN or test.sum() < ROWS_MIN or not np.any(target[cut:][test]):
        return np.full(x.shape[1], np.nan)
    z = _standardised(x, fit)
    design, known = z[: len(fit)][fit], target[: len(fit)][fit]
    slope = design.T @ (known - known.mean()) / np.maximum(np.sum(design**2, axis=0), 1e-12)
    outcome = target[cut:][test]
    errors = outcome[:, None] - z[cut:][test] * slope - known.mean()
    found: F64 = 1 - np.sum(errors**2, axis=0) / np.sum(outcome**2)
    return found


def _known(x: F64, target: F64) -> NDArray[np.bool_]:
    return np.isfinite(target[: len(x)]) & np.isfinite(x).all(axis=1)


def _standardised(x: F64, fit: NDArray[np.bool_]) -> F64:
    rows = x[: len(fit)][fit]
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    steady = std <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    z: F64 = np.clip(np.where(steady, 0.0, (x - mean) / np.where(steady, 1.0, std)), -CLIP, CLIP)
    return np.nan_to_num(z, copy=False)
