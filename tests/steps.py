"""A small recurrent step for tests of the core: random weights, plain numpy, no model file.

Its state is half bounded (tanh, as an LSTM's h) and half linear, so a large input makes it overflow, at once or some
ticks later.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32, Waves, scan_waves

DECAY = np.float32(0.9)


class RandomStep:
    """A `daemon.core.step.Step` whose rows share nothing, on any CPU: every sum is written out, elementwise."""

    tile_rows = 1

    def __init__(self, n_features: int, n_outputs: int, *, units: int = 4, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.n_features = n_features
        self.n_outputs = n_outputs
        self.state_size = 2 * units
        self._units = units
        self._kernel, self._recurrent, self._linear, self._head = (
            rng.standard_normal(shape).astype(np.float32)
            for shape in ((n_features, units), (units, units), (n_features, units), (2 * units, n_outputs))
        )
        self.initial_state = rng.standard_normal(2 * units).astype(np.float32)

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        h, c = state[:, : self._units], state[:, self._units :]
        with np.errstate(over="ignore", invalid="ignore"):
            h = np.tanh(self.product(x, self._kernel) + self.product(h, self._recurrent))
            c = DECAY * c + self.product(x, self._linear)
            after = np.concatenate([h, c], axis=1)
            return self.product(after, self._head), after

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        return scan_waves(self, x, start, waves)

    def product(self, rows: F32, weights: F32) -> F32:
        total = rows[:, :1] * weights[0]
        for column in range(1, len(weights)):
            total = total + rows[:, column : column + 1] * weights[column]
        return total


class BreakingStep(RandomStep):
    """A step whose last output is infinite at a tick whose first feature is above 1, and at no other."""

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        y, after = super().step(x, state)
        y[x[:, 0] > 1, -1] = np.inf
        return y, after


class UntiledStep(RandomStep):
    """The planted defect: one product over all rows at once, whose bits BLAS lets depend on how many there are."""

    def product(self, rows: F32, weights: F32) -> F32:
        return rows @ weights
