"""The two rivals that a recurrent model has to beat on its own features: a ridge, and itself without a memory.

A ridge sees the same scaled feature rows, one tick at a time, and is fitted per instrument and horizon on the training
part in closed form. A model that does not beat it has not earned its state. A model whose state is reset at every tick
shows what the state is worth.

References
----------
Hoerl, Kennard (1970), Ridge regression: biased estimation for nonorthogonal problems.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32, Step

F64 = NDArray[np.float64]

#: As many ticks' worth of doubt; with tens of thousands of them it only keeps columns that say the same apart.
PENALTY = 10.0
#: Rows of one call of the step: a few MB of state.
SLICE_ROWS = 4096


@dataclass(frozen=True)
class Ridge:
    """Weights of one instrument: ``forecast = constant + ((x - mean) / std) @ weights``."""

    mean: F64
    std: F64
    #: shape (columns, outputs)
    weights: F64
    #: shape (outputs,)
    constant: F64

    def predict(self, x: F32 | F64) -> F64:
        """Forecast rows of features, shape (rows, columns); returns shape (rows, outputs)."""
        forecast: F64 = self.constant + ((x - self.mean) / self.std) @ self.weights
        return forecast


def fit_ridge(x: F32 | F64, target: F64, penalty: float = PENALTY) -> Ridge:
    """Fit one ridge per output.

    Parameters
    ----------
    x : shape (rows, columns); the training part only
    target : float64 array, shape (rows, outputs); NaN where there is none, and such rows do not count for that output

    Returns
    -------
    Ridge : forecasts 0, no change, for an output without any target
    """
    rows = x.astype(np.float64)
    if not len(rows):
        columns, outputs = x.shape[1], target.shape[1]
        return Ridge(np.zeros(columns), np.ones(columns), np.zeros((columns, outputs)), np.zeros(outputs))
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    std = np.where(std > 1e-12 * np.maximum(np.abs(mean), 1.0), std, 1.0)
    z = (rows - mean) / std
    fitted = [_fit_output(z, target[:, output], penalty) for output in range(target.shape[1])]
    return Ridge(mean, std, np.stack([weights for weights, _ in fitted], 1), np.array([at for _, at in fitted]))


def _fit_output(z: F64, target: F64, penalty: float) -> tuple[F64, float]:
    known = np.isfinite(target)
    if not known.any():
        return np.zeros(z.shape[1]), 0.0
    z, target = z[known], target[known]
    centre, level = z.mean(axis=0), float(target.mean())
    z = z - centre
    weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (target - level))
    return weights.astype(np.float64), level - float(centre @ weights)


def without_memory(step: Step, x: F32) -> F32:
    """Run a step with its state reset before every tick.

    Parameters
    ----------
    x : float32 array, shape (rows, n_features), scaled

    Returns
    -------
    y : float32 array, shape (rows, n_outputs), in the model's output units
    """
    y = np.empty((len(x), step.n_outputs), np.float32)
    for begin in range(0, len(x), SLICE_ROWS):
        rows = x[begin : begin + SLICE_ROWS]
        state = np.repeat(step.initial_state[None, :], len(rows), axis=0)
        y[begin : begin + SLICE_ROWS] = step.step(rows, state)[0]
    return y
