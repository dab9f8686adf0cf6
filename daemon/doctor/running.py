"""Runs a bundle over tick files through the daemon's own pipeline, and watches what its step sees and says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.core.pipeline import Pipeline, PipelineOptions
from daemon.core.sessions import Rules
from daemon.core.spec import ModelSpec, Output
from daemon.core.step import F32, Step, Waves
from daemon.doctor.sheets import good_ticks
from daemon.judging.feeding import Naming, feed, keep_forecasts
from daemon.judging.tape import Recorder, Tape
from daemon.training.collect import LIMITS
from schemas import HEADER_PREFIX

F64 = NDArray[np.float64]

BATCH_TICKS = 2000


class Watched:
    """A step that sums up its inputs and outputs."""

    def __init__(self, step: Step) -> None:
        self._step = step
        #: Per call: rows, sums and squares of the inputs; at least two rows.
        self._calls: list[tuple[int, F64, F64]] = []
        self._outputs = [np.zeros(step.n_outputs), np.zeros(step.n_outputs)]
        self._rows = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Advance rows that broke; they are not summed up twice."""
        return self._step.step(x, state)

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        """Advance whole chains; see `daemon.core.step.Step`."""
        y, final, finite = self._step.scan(x, start, waves)
        seen, said = x[finite].astype(np.float64), y[finite].astype(np.float64)
        self._calls.append((len(seen), seen.sum(axis=0), np.square(seen).sum(axis=0)))
        self._outputs[0] += said.sum(axis=0)
        self._outputs[1] += np.square(said).sum(axis=0)
        self._rows += len(said)
        return y, final, finite

    def inputs(self) -> tuple[F64, F64, F64]:
        """Return mean, standard deviation and the standard error of the mean of each input column.

        The error comes from the means of batches, so that neighbours that are alike count once.
        """
        rows = np.array([count for count, _, _ in self._calls], np.float64)
        sums, squares = (np.array([call[at] for call in self._calls]) for at in (1, 2))
        mean = sums.sum(axis=0) / rows.sum()
        std = np.sqrt(np.maximum(squares.sum(axis=0) / rows.sum() - mean**2, 0.0))
        full = rows > 0
        means = sums[full] / rows[full, None]
        error = means.std(axis=0, ddof=1) / np.sqrt(full.sum()) if full.sum() > 1 else std / np.sqrt(rows.sum())
        return mean, std, error

    def variance_of_means(self, outputs: Sequence[Output]) -> float:
        """Return the variance of the outputs that say a mean, averaged over the horizons, in output units."""
        sums, squares = (total[[output.of == "mean" for output in outputs]] for total in self._outputs)
        mean = sums / max(self._rows, 1)
        return float(np.mean(squares / max(self._rows, 1) - mean**2))

    def forgetful(self) -> Step:
        """Return the same step, reset at every tick."""
        return _Forgetful(self._step)


class _Forgetful:
    """A step that starts every row from the initial state."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        return self._step.step(x, self._initial(len(x)))

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        y, _ = self._step.step(x, self._initial(len(x)))
        finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(y), axis=1)
        return y, self._initial(len(start)), finite

    def _initial(self, rows: int) -> F32:
        return np.repeat(self._step.initial_state[np.newaxis], rows, axis=0)


@dataclass
class Letters:
    """Dead letters of one reason."""

    count: int
    #: Number of the first such tick.
    first: int
    detail: str


@dataclass
class Forecasts:
    """What came of a run."""

    tick_count: int = 0
    by_instrument: dict[str, Tape] = field(default_factory=dict)
    dead_letters: dict[str, Letters] = field(default_factory=dict)

    def share_within(self, begin: int, end: int) -> float:
        """Return the share of the forecasts from one time on and before another."""
        times = np.concatenate([each.ts for each in self.by_instrument.values()])
        return float(np.mean((times >= begin) & (times < end)))

    def span(self, since: int) -> tuple[int, int]:
        """Return the first and last event time from a time on."""
        times = np.concatenate([each.ts for each in self.by_instrument.values()])
        times = times[times >= since]
        return int(times.min()), int(times.max())


def run(spec: ModelSpec, step: Any, rules: Rules, paths: Sequence[Path], listen: Callable[[int], None]) -> Forecasts:
    """Run the readable ticks of files through a pipeline.

    Parameters
    ----------
    listen : called with the number of ticks run, after each batch
    """
    pipeline = Pipeline(spec, step, rules, PipelineOptions(LIMITS))
    found, recorder, naming = Forecasts(), Recorder(spec.horizons, differences=spec.prices_may_be_negative), Naming()
    for fed, batch in feed(pipeline, good_ticks(paths), naming, BATCH_TICKS):
        keep_forecasts(recorder, fed, batch, naming)
        found.tick_count += len(fed)
        for letter in batch.dead_letters:
            _count(found.dead_letters, letter)
        listen(found.tick_count)
    found.by_instrument = {tape.instrument: tape for tape in recorder.tapes()}
    return found


def _count(letters: dict[str, Letters], letter: Any) -> None:
    facts = {name.removeprefix(HEADER_PREFIX): value.decode() for name, value in letter.headers}
    held = letters.setdefault(facts["reason"], Letters(0, int(facts["offset"]) + 1, facts["detail"]))
    held.count += 1
