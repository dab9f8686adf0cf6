"""Takes the rows of a batch through the step: chains, waves, one scan, what breaks on the way, the scores behind it.

A row breaks when its input, its state or its forecast is not finite. Its instrument is reset there, and the rows after
it go on from the initial state, as if the batch had been cut at that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.core.features import FeatureTable
from daemon.core.forecast import Forecaster, Levels, Outlook
from daemon.core.intake import Row
from daemon.core.scores import Scored, Scorer
from daemon.core.step import F32, Step
from daemon.core.table import StateTable
from daemon.core.waves import Plan, plan
from schemas import ResetCause

Bools = NDArray[np.bool_]


class Ran(NamedTuple):
    """What became of rows."""

    #: float32 array, shape (rows, columns); what the model saw, unitless.
    inputs: F32
    #: float32 array, shape (rows, outputs); in the model's output units.
    outputs: F32
    levels: Levels
    #: The rows that broke; their outputs and levels say nothing.
    broken: set[int]
    #: The earlier forecasts whose truth these rows are, in log order.
    scored: list[Scored]


class Runner:
    """Runs rows from the states in the table, and leaves the new states there."""

    def __init__(self, step: Step, table: StateTable, features: FeatureTable, forecaster: Forecaster) -> None:
        self._step = step
        self._table = table
        self._features = features
        self._forecaster = forecaster
        self._scorer = Scorer(forecaster)

    def run(self, rows: Sequence[Row]) -> Ran:
        """Step every row from its own state, score what has come true, and keep the last states."""
        slots = np.array([row.instrument.slot for row in rows], np.intp)
        planned = plan(slots, np.array([row.reset is not None for row in rows]))
        x = self._features.inputs([row.features for row in rows])
        with np.errstate(over="ignore", invalid="ignore"):
            y, final, finite = self._step.scan(x[planned.order], self._table.gather(planned.start_slots), planned.waves)
            outputs, sound = np.empty_like(y), np.empty(len(rows), np.bool_)
            outputs[planned.order], sound[planned.order] = y, finite
            outlook = self._outlook(rows, outputs)
            sound &= outlook.finite
            sound &= np.isfinite(x).all(axis=1)  # a saturated cell can make a finite output of an infinite input
            broken: set[int] = set()
            if not sound.all():
                broken = self._mend(rows, x, outputs, final, sound, planned)
                outlook = self._outlook(rows, outputs)
        self._table.scatter(planned.end_slots, final)
        levels, scored = self._scorer.run(rows, outlook, broken)
        return Ran(x, outputs, levels, broken, scored)

    def _mend(self, rows: Sequence[Row], x: F32, outputs: F32, final: F32, sound: Bools, planned: Plan) -> set[int]:
        """Redo the chains that broke, row by row after their first break, and reset their instruments there.

        Slow and plain on purpose: one row at a time costs linear time however many ticks break, and gives the bits that
        any other cut into batches gives. Returns the rows that broke.
        """
        states: dict[int, F32] = {}
        steps: dict[int, int] = {}
        broken: set[int] = set()
        for index, row in enumerate(rows):
            chain = int(planned.chain[index])
            if chain in states:
                at = slice(index, index + 1)
                outputs[at], states[chain] = self._step.step(x[at], states[chain])
                finite = np.isfinite(x[at]).all() and np.isfinite(states[chain]).all()
                sound[index] = finite and self._outlook([row], outputs[at]).finite[0]
                row.step = steps[chain]
                row.reset = None if row.step else ResetCause.NON_FINITE
                steps[chain] += 1
            elif sound[index]:
                continue
            if not sound[index]:
                broken.add(index)
                states[chain], steps[chain] = self._step.initial_state[None, :], 0
            final[chain] = states[chain][0]
            if planned.end_slots[chain] >= 0:
                row.instrument.resume(steps[chain], row.offset, broke=not sound[index])
        return broken

    def _outlook(self, rows: Sequence[Row], outputs: F32) -> Outlook:
        price = np.array([row.price for row in rows])
        return self._forecaster.outlook(outputs, price, np.array([row.volatility for row in rows]))
