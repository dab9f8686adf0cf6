"""Window mode: a model trained on windows, run on the last ticks of each instrument at every tick.

The state of an instrument is its last feature rows. Each tick makes a window of them and of its own row, and the
model runs over the window from its initial state; nothing recurrent is carried. A tick therefore costs as much as
`steps` ticks of the same model in carried mode.

All windows of a batch run as one scan of the inner step: window after window is a chain, its k-th row stands in
wave k. A row of that scan depends on no other row, so the cut of batches and the other instruments change no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32, Index, Step, Waves
from daemon.model.grid import one_wave

#: Rows that the inner step sees at once: bounds memory, and changes no bit.
INNER_ROWS_MAX = 16_384


class WindowStep:
    """A `daemon.core.step.Step` that runs another over each instrument's last `steps` rows of features.

    The state is the number of rows still missing, then the last ``steps - 1`` rows, oldest first, shape
    ``(1 + (steps - 1) * n_features,)``; the row of the tick itself completes the window.

    While ``step < steps - 1`` (the first ticks after a reset) the window is shorter: the model runs over the rows there
    are, from its initial state, and never over rows of zeros that no tick brought.

    A row whose model breaks anywhere in its window has NaN as output.
    """

    def __init__(self, inner: Step, steps: int) -> None:
        self.inner = inner
        self.steps = steps
        self.n_features = inner.n_features
        self.n_outputs = inner.n_outputs
        self.tile_rows = inner.tile_rows
        self._past = steps - 1
        self.state_size = 1 + self._past * inner.n_features
        self.initial_state = np.zeros(self.state_size, np.float32)
        self.initial_state[0] = self._past

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Advance each row by one tick; see `daemon.core.step.Step`."""
        y, after, _ = self.scan(x, state, one_wave(len(x)))
        return y, after

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        """Advance whole chains; see `daemon.core.step.Step`."""
        known = np.concatenate([start[:, 1:].reshape(-1, self.n_features), x])
        source = waves.source(len(start))
        past, missing = self._histories(start, waves.bounds, source)
        windows = np.concatenate([past[source], self._own(start, x)], axis=1)
        y, finite = self._answers(known, windows, missing[source])
        y[~finite] = np.nan
        after = self._states(known, past[len(start) + waves.final], missing[len(start) + waves.final])
        finite &= np.isfinite(known[windows]).all(axis=(1, 2))
        return y, after, finite

    def _own(self, start: F32, x: F32) -> Index:
        """Return the number of each row's own features among all rows known, shape (rows, 1)."""
        first = len(start) * self._past
        return np.arange(first, first + len(x))[:, np.newaxis]

    def _histories(self, start: F32, bounds: Sequence[int], source: Index) -> tuple[Index, Index]:
        """Return, for every state as `Waves` numbers them, the rows that it holds and how many are missing.

        The rows before the first one of a start state hold whatever it held; `missing` tells not to read them.
        """
        chains, rows = len(start), len(source)
        past = np.empty((chains + rows, self._past), np.intp)
        past[:chains] = np.arange(chains * self._past).reshape(chains, self._past)
        missing = np.empty(chains + rows, np.intp)
        # A state that no window ever had (the self-test draws some) is read as the nearest one that a window can have.
        missing[:chains] = np.clip(np.rint(np.nan_to_num(start[:, 0])), 0, self._past)
        own = self._own(start, np.empty((rows, 0), np.float32))
        for low, high in pairwise(bounds):
            before, after = source[low:high], slice(chains + low, chains + high)
            past[after] = np.concatenate([past[before], own[low:high]], axis=1)[:, 1:]
            missing[after] = np.maximum(missing[before] - 1, 0)
        return past, missing

    def _answers(self, known: F32, windows: Index, missing: Index) -> tuple[F32, NDArray[np.bool_]]:
        """Run every window from the initial state; return the outputs after its last row, and what was finite."""
        y = np.empty((len(windows), self.n_outputs), np.float32)
        finite = np.empty(len(windows), np.bool_)
        share = max(1, INNER_ROWS_MAX // self.steps)
        for low in range(0, len(windows), share):
            part = slice(low, low + share)
            y[part], finite[part] = self._run(known, windows[part], missing[part])
        return y, finite

    def _run(self, known: F32, windows: Index, missing: Index) -> tuple[F32, NDArray[np.bool_]]:
        count = len(windows)
        order = np.argsort(missing, kind="stable")  # the longest windows first: a wave is then the first of them
        length = self.steps - missing[order]
        alive = [int(np.searchsorted(-length, -wave, side="left")) for wave in range(int(length[0]))]
        bounds = np.concatenate([[0], np.cumsum(alive)])
        rows = [windows[order[:many], missing[order[:many]] + wave] for wave, many in enumerate(alive)]
        last = bounds[length - 1] + np.arange(count)
        start = np.repeat(self.inner.initial_state[np.newaxis], count, axis=0)
        waves = Waves(tuple(bounds.tolist()), last)
        y, _, finite = self.inner.scan(known[np.concatenate(rows)], start, waves)
        whole = np.logical_and.reduceat(finite[_chain_order(bounds, length)], np.cumsum(length) - length)
        found, sound = np.empty_like(y[:count]), np.empty(count, np.bool_)
        found[order], sound[order] = y[last], whole
        return found, sound

    def _states(self, known: F32, past: Index, missing: Index) -> F32:
        states = np.empty((len(past), self.state_size), np.float32)
        states[:, 0] = missing
        kept = known[past]
        kept[np.arange(self._past) < missing[:, np.newaxis]] = 0.0
        states[:, 1:] = kept.reshape(len(past), -1)
        return states


def _chain_order(bounds: Index, length: Index) -> Index:
    """Return the row numbers of a scan chain by chain; chain k has `length[k]` rows, the longest chains first."""
    chain = np.repeat(np.arange(len(length)), length)
    wave = np.arange(len(chain)) - np.repeat(np.cumsum(length) - length, length)
    return bounds[wave] + chain
