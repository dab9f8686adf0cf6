"""The canary: one fixed sequence of ticks that runs inside live batches and must always give the same forecasts.

It has a slot in the same state table as everybody else, other neighbours and another place in every batch, and starts
anew after each run. If its forecasts ever differ by a bit from those of a step that nobody shares, state leaks
between instruments: the defect this project was started against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daemon.core.features import FeatureTable
from daemon.core.instrument import Instrument
from daemon.core.intake import Intake, OrderLimits, Row
from daemon.core.sessions import Never, Rules
from daemon.core.spec import ModelSpec
from daemon.core.step import F32, Step
from schemas import ResetCause, TickDecoder

#: Moves the canary through the batch; a prime, so that it meets every place of a tile.
STRIDE = 7


@dataclass(frozen=True, slots=True)
class Probe:
    """One finished run of the canary, against its golden outputs; in the model's output units, 0 or something leaks."""

    max_difference: float
    #: Mean squared difference: the variance of answers to the same input.
    variance: float


class Canary:
    """Feeds the canary's ticks to the pipeline, one a batch, and compares what comes back.

    Parameters
    ----------
    ticks : JSON values of the sequence
    spec : the model
    step : computes the golden outputs once, one row at a time from the initial state
    slot : the canary's own row in the state table
    """

    def __init__(self, ticks: Sequence[bytes], spec: ModelSpec, step: Step, slot: int) -> None:
        decoder = TickDecoder()
        self._ticks = [decoder.decode(value) for value in ticks]
        self._features = FeatureTable(spec.columns, spec.volatility_prior, spec.missing)
        limits = OrderLimits(future_skew_ns=2**62, max_lateness_ns=2**62, seq_restart_ns=0)
        self._intake = Intake(self._features, Rules((), Never()), limits, prices_may_be_negative=True)
        self._slot = slot
        self._run = 0
        self._instrument = self._fresh()
        self._golden = self._golden_outputs(step)
        self._outputs: list[F32] = []

    def next_row(self) -> Row:
        """Return the canary's next tick as a row; a run starts anew after its last."""
        if len(self._outputs) == len(self._ticks):
            self._outputs.clear()
            self._instrument = self._fresh()
        tick = self._ticks[len(self._outputs)]
        return self._intake.accept(tick, self._instrument, offset=0, timestamp=-1)

    def place(self, rows: int) -> int:
        """Return where among so many other rows the canary goes this time."""
        return (self._run * STRIDE + len(self._outputs)) % (rows + 1)

    def observe(self, output: F32) -> Probe | None:
        """Take the canary's output of one batch, float32 of shape (outputs,); return the probe at the end of a run."""
        self._outputs.append(output)
        if len(self._outputs) < len(self._ticks):
            return None
        self._run += 1
        found = np.stack(self._outputs)
        if found.tobytes() == self._golden.tobytes():
            return Probe(0.0, 0.0)
        difference = found.astype(np.float64) - self._golden.astype(np.float64)
        # Unequal bits with equal values (a zero's sign) and NaN count too.
        difference = np.where(
            np.isfinite(difference), np.maximum(np.abs(difference), np.finfo(np.float32).tiny), np.inf
        )
        return Probe(float(difference.max()), float(np.mean(difference**2)))

    def _fresh(self) -> Instrument:
        return Instrument("canary", self._slot, list(self._features.start), ResetCause.FIRST)

    def _golden_outputs(self, step: Step) -> F32:
        instrument = self._fresh()
        rows = [self._intake.accept(tick, instrument, offset=0, timestamp=-1) for tick in self._ticks]
        state, outputs = step.initial_state[None, :], []
        for row in rows:
            y, state = step.step(self._features.inputs([row.features]), state)
            outputs.append(y[0])
        return np.stack(outputs)
