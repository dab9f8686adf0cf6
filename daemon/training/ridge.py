"""Ridge regressions: where the network's linear way starts, and what a report holds the network against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daemon.core.spec import OutputOf
from daemon.core.step import F32
from daemon.training.collect import F64
from daemon.training.streams import SQUASH, SessionRows

#: Penalty on standardised columns, in rows. Against the hundreds of thousands of a day it is nothing (on real ticks 10
#: and 1,000 came out level); a column that only ever stood out at a handful of ticks does not decide.
PENALTY = 1000.0


def fit_ridge(rows: Sequence[SessionRows]) -> tuple[F32, F32]:
    """Fit one regression per horizon on all rows together, weighted as in the network's loss.

    Returns
    -------
    kernel, bias : float32 arrays, shapes (features, horizons) and (horizons,), on squashed inputs
    """
    inputs, outputs = rows[0].x.shape[1] + 1, rows[0].y.shape[1]
    gram, moment = np.zeros((outputs, inputs, inputs)), np.zeros((outputs, inputs))
    for one in rows:
        x = _design(one.x)
        for k in range(outputs):
            weighted = x * one.weight[:, k : k + 1]
            gram[k] += weighted.T @ x
            moment[k] += weighted.T @ one.y[:, k]
    found = np.stack([np.linalg.solve(g + PENALTY * np.eye(inputs), m) for g, m in zip(gram, moment, strict=True)], 1)
    return found[:-1].astype(np.float32), found[-1].astype(np.float32)


def first_weights(rows: Sequence[SessionRows], outputs: Sequence[OutputOf]) -> tuple[F32, F32]:
    """Return where the linear way starts: for means the regression, for the rest what it leaves, alike at every tick.

    Returns
    -------
    kernel, bias : float32 arrays, shapes (features, outputs) and (outputs,)
    """
    kernel, bias = fit_ridge(rows)
    kernels, biases = [kernel], [bias]
    left = np.concatenate([np.where(one.weight > 0, one.y - run_ridge(one.x, kernel, bias), np.nan) for one in rows])
    count = kernel.shape[1]
    for begin in range(count, len(outputs), count):
        of = outputs[begin]
        if of == "log_variance":
            kernels.append(np.zeros_like(kernel))
            biases.append(np.log(np.nanmean(left**2, axis=0)))
        else:
            kernels.append(kernel)
            biases.append(bias + np.nanquantile(left, float(of), axis=0))
    return np.concatenate(kernels, axis=1), np.concatenate(biases).astype(np.float32)


def run_ridge(x: F32, kernel: F32, bias: F32) -> F64:
    """Return the regression's outputs, shape (rows, outputs)."""
    y: F64 = _design(x)[:, :-1] @ kernel.astype(np.float64) + bias
    return y


def _design(x: F32) -> F64:
    squashed = SQUASH * np.tanh(x.astype(np.float64) / SQUASH)
    return np.column_stack([squashed, np.ones(len(x))])
