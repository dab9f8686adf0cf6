"""What the pipeline should say, by a plain loop: one tick, one row, one state at a time; no batch, wave or table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from daemon.core.features import FeatureTable
from daemon.core.forecast import Forecaster
from daemon.core.instrument import Instrument
from daemon.core.intake import Intake, Row
from daemon.core.records import InputRecord
from daemon.core.scores import Scorer
from daemon.core.step import F32
from schemas import Rejected, ResetCause, TickDecoder
from tests.property.logs import LIMITS, SPEC, rules
from tests.steps import RandomStep


class Oracle:
    """Answers record by record with (step, reset, mean, lower, upper, variance), or with a dead letter's reason."""

    def __init__(self, instruments_max: int) -> None:
        self._instruments_max = instruments_max
        self._features = FeatureTable(SPEC.columns, SPEC.volatility_prior)
        self._intake = Intake(self._features, rules(), LIMITS)
        self._forecaster = Forecaster(SPEC, coverage=0.9)
        self._scorer = Scorer(self._forecaster)
        self._step = RandomStep(len(SPEC.columns), len(SPEC.outputs))
        #: Per partition: instrument -> its kept part and (h, c), least recently accepted first.
        self._known: dict[int, dict[str, tuple[Instrument, F32]]] = {}

    def answer(self, record: InputRecord) -> Any:
        partition = self._known.setdefault(record.partition, {})
        try:
            tick = TickDecoder().decode(record.value)
            fresh = Instrument(tick.instrument, -1, list(self._features.start), ResetCause.FIRST)
            instrument, state = partition.get(tick.instrument, (fresh, None))
            row = self._intake.accept(tick, instrument, offset=record.offset, timestamp=record.timestamp)
        except Rejected as rejected:
            return str(rejected.reason)
        answer, state = self._forecast(row, self._step.initial_state[None, :] if row.reset else state)
        partition.pop(tick.instrument, None)
        partition[tick.instrument] = (instrument, state)
        if len(partition) > self._instruments_max:
            del partition[next(iter(partition))]
        return answer

    def _forecast(self, row: Row, state: F32) -> tuple[Any, F32]:
        with np.errstate(all="ignore"):
            x = self._features.inputs([row.features])
            y, after = self._step.step(x, state)
            outlook = self._forecaster.outlook(y, np.array([row.price]), np.array([row.volatility]))
        whole = np.isfinite(after).all() and np.isfinite(y).all() and outlook.finite[0]
        levels, _ = self._scorer.run([row], outlook, set() if whole else {0})
        if whole:
            figures = (levels.mean, levels.lower, levels.upper, levels.variance)
            return (row.step, row.reset, *(figure[0].tolist() for figure in figures)), after
        row.instrument.pending_reset = ResetCause.NON_FINITE
        return "non_finite", self._step.initial_state[None, :]


def answers(log: Sequence[InputRecord], instruments_max: int) -> list[Any]:
    """Answer every record of a log."""
    oracle = Oracle(instruments_max)
    return [oracle.answer(record) for record in log]
