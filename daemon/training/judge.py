"""Runs the network over the parts it was not fitted on: skill while it is fitted, and the figures of the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from daemon.core.features import frozen_scales, scaled
from daemon.core.spec import Column, Output
from daemon.core.step import F32
from daemon.training.dataset import Split, in_returns, in_units
from daemon.training.fit import run_through
from daemon.training.scores import residual_figures, skill

if TYPE_CHECKING:
    from daemon.training.network import Network

#: Ticks before the validation part that bring the state up to date when an epoch is judged. Running the whole training
#: part each time would double the work; the final figures do come from whole sessions.
WARMUP_TICKS = 512


class Validation:
    """The validation part, ready to be run after every epoch."""

    def __init__(
        self, network: Network, splits: Sequence[Split], columns: Sequence[Column], outputs: Sequence[Output]
    ) -> None:
        self._network = network
        self._outputs = outputs
        self._splits = [split for split in splits if len(split.validation.target)]
        self._begins = [max(split.validation.begin - WARMUP_TICKS, 0) for split in self._splits]
        self._x = [
            _sessions(split, begin, split.validation.end, columns)
            for split, begin in zip(self._splits, self._begins, strict=True)
        ]

    def skill(self) -> float:
        """Return the mean skill over instruments and outputs, of those where anything moves."""
        found = _run(self._network, self._x, len(self._outputs))
        skills = []
        for split, begin, y in zip(self._splits, self._begins, found, strict=True):
            predicted = in_returns(y[split.validation.begin - begin :], self._outputs)
            skills += [value for value in skill(split.validation.target, predicted) if value is not None]
        return float(np.mean(skills))


@dataclass(frozen=True)
class Judged:
    """The network's outputs for every tick, with the state carried as the daemon carries it."""

    splits: Sequence[Split]
    #: One float32 array per split, shape (ticks, outputs), in output units.
    y: Sequence[F32]

    def test_skills(self, outputs: Sequence[Output]) -> dict[str, tuple[float | None, ...]]:
        """Return the skill on the test part, per instrument that ticks there."""
        return {
            split.track.name: tuple(skill(split.test.target, in_returns(y[split.test.begin :], outputs)))
            for split, y in zip(self.splits, self.y, strict=True)
            if len(split.test.target)
        }

    def validation_variance(self) -> float:
        """Return the variance of the outputs on the validation part, in output units, mean over the outputs."""
        y = np.concatenate([y[split.validation.begin : split.validation.end] for split, y in self._pairs()])
        return float(y.astype(np.float64).var(axis=0).mean())

    def outputs_with_residuals(self, outputs: Sequence[Output]) -> tuple[Output, ...]:
        """Return the outputs with the spread of their errors on the validation part."""
        residual = np.concatenate(
            [
                in_units(split.validation.target, outputs) - y[split.validation.begin : split.validation.end]
                for split, y in self._pairs()
            ]
        )
        figures = [residual_figures(residual[:, column]) for column in range(len(outputs))]
        return tuple(
            replace(output, residual_variance=variance, residual_quantiles=quantiles)
            for output, (variance, quantiles) in zip(outputs, figures, strict=True)
        )

    def _pairs(self) -> list[tuple[Split, F32]]:
        return list(zip(self.splits, self.y, strict=True))


def judge(network: Network, splits: Sequence[Split], columns: Sequence[Column], outputs: Sequence[Output]) -> Judged:
    """Run every instrument's ticks from its first one."""
    x = [_sessions(split, 0, len(split.track.ts), columns) for split in splits]
    return Judged(splits, _run(network, x, len(outputs)))


def _sessions(split: Split, begin: int, end: int, columns: Sequence[Column]) -> list[F32]:
    """Return the scaled rows `begin` to `end`, cut where the state starts anew."""
    x = scaled(split.track.features[begin:end], *frozen_scales(columns))
    return [part for part in np.split(x, np.flatnonzero(split.track.resets[begin:end])) if len(part)]


def _run(network: Network, sessions: Sequence[Sequence[F32]], outputs: int) -> list[F32]:
    """Run sessions, grouped by instrument, and join the outputs of each group."""
    found = iter(run_through(network, [x for group in sessions for x in group], outputs))
    return [np.concatenate([next(found) for _ in group]) for group in sessions]
