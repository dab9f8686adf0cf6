"""Runs the network over the parts it was not fitted on: skill while it is fitted, and the figures of the bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from daemon.core.spec import Output
from daemon.core.step import F32
from daemon.training.collect import F64
from daemon.training.dataset import Part, Split
from daemon.training.fit import run_through
from daemon.training.options import Skills
from daemon.training.scales import in_returns, in_units
from daemon.training.scores import residual_figures, skill
from daemon.training.series import Series

if TYPE_CHECKING:
    from daemon.training.network import Network

#: Ticks before a row that bring the state up to date while epochs are judged. Running whole sessions each time would
#: more than double the work; the final figures do come from whole sessions.
WARMUP_TICKS = 512
#: Rows of one stretch of the validation part: stretches run side by side.
STRETCH_TICKS = 1536


class Validation:
    """The validation part, ready to be run after every epoch."""

    def __init__(self, network: Network, series: Sequence[Series], outputs: Sequence[Output]) -> None:
        self._network, self._series, self._outputs = network, series, outputs
        #: Per stretch: the index of its series, its rows, and those with the warm-up cut into sessions.
        self._stretches: list[tuple[int, int, int, list[F32]]] = []
        # a window of the first row needs so many rows before it, and no more
        warmup = WARMUP_TICKS if network.window is None else network.window - 1
        for index, one in enumerate(series):
            part = one.split.validation
            for begin in range(part.begin, part.end, STRETCH_TICKS):
                end = min(begin + STRETCH_TICKS, part.end)
                sessions = one.sessions(max(begin - warmup, 0), end)
                self._stretches.append((index, begin, end, sessions))

    def skill(self) -> float:
        """Return the mean skill over instruments and horizons, of those where anything moves."""
        joined = _run(self._network, [sessions for *_, sessions in self._stretches], len(self._outputs))
        rows: list[list[F32]] = [[] for _ in self._series]
        for (index, begin, end, _), y in zip(self._stretches, joined, strict=True):
            rows[index].append(y[begin - end :])
        skills: list[float] = []
        for one, found in zip(self._series, rows, strict=True):
            if found:
                part = one.split.validation
                predicted = in_returns(np.concatenate(found), self._outputs, one.volatility[part.begin : part.end])
                skills += [value for value in skill(part.target, predicted) if value is not None]
        return float(np.mean(skills)) if skills else float("nan")


@dataclass(frozen=True)
class Judged:
    """A model's outputs for every tick."""

    series: Sequence[Series]
    outputs: Sequence[Output]
    #: One float32 array per series, shape (ticks, outputs), in output units.
    y: Sequence[F32]

    def forecasts(self, part: Callable[[Split], Part]) -> dict[str, tuple[F64, F64]]:
        """Return targets and forecasts by instrument, both log returns of shape (rows, horizons)."""
        found = {}
        for one, y in zip(self.series, self.y, strict=True):
            rows = part(one.split)
            at = slice(rows.begin, rows.end)
            if len(rows.target):
                found[one.split.track.name] = (rows.target, in_returns(y[at], self.outputs, one.volatility[at]))
        return found

    def test_skills(self) -> dict[str, Skills]:
        """Return the skill on the test part, per instrument that ticks there."""
        forecasts = self.forecasts(lambda split: split.test)
        return {name: tuple(skill(target, found)) for name, (target, found) in forecasts.items()}

    def validation_variance(self) -> float:
        """Return the variance of the means on the validation part, in output units, averaged over the horizons."""
        y = [y[one.split.validation.begin : one.split.validation.end] for one, y in self._pairs()]
        means = [output.of == "mean" for output in self.outputs]
        return float(np.concatenate(y)[:, means].astype(np.float64).var(axis=0).mean())

    def outputs_with_residuals(self) -> tuple[Output, ...]:
        """Return the outputs, the means with the spread of their errors on the validation part."""
        means = sum(output.of == "mean" for output in self.outputs)
        residual = []
        for one, y in self._pairs():
            part = one.split.validation
            at = slice(part.begin, part.end)
            residual.append(in_units(part.target, self.outputs, one.volatility[at]) - y[at, :means])
        columns = np.concatenate(residual).T
        figures = [residual_figures(column) for column in columns]
        told = [
            replace(output, residual_variance=variance, residual_quantiles=quantiles)
            for output, (variance, quantiles) in zip(self.outputs, figures, strict=False)
        ]
        return (*told, *self.outputs[means:])

    def _pairs(self) -> list[tuple[Series, F32]]:
        return list(zip(self.series, self.y, strict=True))


def judge(network: Network, series: Sequence[Series], outputs: Sequence[Output]) -> Judged:
    """Run every instrument's ticks from its first one, in its mode as the daemon does."""
    sessions = [one.sessions(0, len(one.x)) for one in series]
    return Judged(series, outputs, _run(network, sessions, len(outputs)))


def judge_reset(network: Network, series: Sequence[Series], outputs: Sequence[Output]) -> Judged:
    """Run the test parts with the state reset at every tick; the other rows are NaN."""
    y = []
    for one in series:
        found = np.full((len(one.x), len(outputs)), np.nan, np.float32)
        found[one.split.test.begin :] = run_reset(network, one.x[one.split.test.begin :], len(outputs))
        y.append(found)
    return Judged(series, outputs, y)


def run_reset(network: Network, x: F32, outputs: int) -> F32:
    """Run each row as the first of a session."""
    return network.run_from_zero(x) if len(x) else np.zeros((0, outputs), np.float32)


def _run(network: Network, groups: Sequence[Sequence[F32]], outputs: int) -> list[F32]:
    """Run sessions, grouped, and join the outputs of each group."""
    found = iter(run_through(network, [x for group in groups for x in group], outputs))
    return [np.concatenate([next(found) for _ in group]) for group in groups]
