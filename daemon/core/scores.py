"""Forecasts against what happened: a bounded sample of each instrument's forecasts waits for its truth and is judged.

    tick t            a horizon's turn: its forecast joins the pending ones
    tick t + horizon  the truth: the forecast is scored, and the track of its interval moves (`intervals`)

All of it is sequential and a function of the instrument's own ticks, so it runs after the step of the whole batch, row
by row in log order, and writes down for each row the corrections that were in force at it; the levels are then computed
for the whole batch at once (`forecast`). A reset drops what is pending: a truth beyond it would be that of another
session. Tracks stay.

Which ticks are sampled: for horizon h those whose truth falls on a multiple of the horizon's stride, a power of two,
so that the truths of all horizons come together and most ticks cost nothing. The stride is large enough that no horizon
has more than `PENDING_MAX` forecasts waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import log
from typing import NamedTuple

import numpy as np

from daemon.core.forecast import Forecaster, Levels, Outlook
from daemon.core.intake import Row
from daemon.core.intervals import EVERYTHING, Track, Tracker

#: Forecasts of one horizon that wait for their truth, at most; with 88 bytes each they are most of a snapshot beside
#: the state. Twice as many tell little more, for neighbouring forecasts share most of their truth.
PENDING_MAX = 8
#: Between two sampled forecasts of a short horizon. With 8, quiet instruments (5,000 ticks) missed 8 % on a side before
#: their tracks had found their place; 2 gained nothing.
STRIDE_MIN = 4
#: Bounds the table of turns. Horizons of more than PENDING_MAX times as many ticks sample while there is room.
STRIDE_MAX = 4096


@dataclass(slots=True)
class Pending:
    """A forecast that waits for its truth: prices, and `value`, `low` and `high` in what the output's kind says."""

    #: Step of the tick that is the truth.
    due: int
    #: Offset and event time of the tick that was forecast from.
    offset: int
    ts: int
    price: float
    #: As published; the ends are infinite where the interval was not known.
    mean: float
    lower: float
    upper: float
    value: float
    #: Unit of errors.
    unit: float
    #: The ends that are judged, before they were widened to hold mean and price.
    low: float
    high: float


@dataclass(slots=True)
class Scores:
    """What an instrument keeps of its forecasts, one of each per horizon."""

    tracks: list[Track]
    pending: list[deque[Pending]]
    #: What the tracks make of forecasts: the four numbers of a `Correction` for each horizon; None once they moved.
    corrections: tuple[float, ...] | None = field(default=None, compare=False)
    #: Marks of the batch in work: its number, and the row of its table where `corrections` stands.
    batch: int = field(default=-1, compare=False)
    at: int = field(default=-1, compare=False)

    def drop(self) -> None:
        """Give up what waits; its truth would lie behind a reset."""
        for waiting in self.pending:
            waiting.clear()


class Scored(NamedTuple):
    """A forecast and its outcome."""

    #: Row of the batch that is the truth.
    row: int
    #: Which of the model's horizons.
    column: int
    forecast: Pending
    outcome: float


#: Row of the batch, column of the horizon, and the forecast sampled there.
Sampled = tuple[int, int, Pending]


class Scorer:
    """Scores the rows of batches, and says what the tracks make of their forecasts.

    Parameters
    ----------
    forecaster : what the model's outputs mean
    """

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self._horizons = [output.horizon for output in forecaster.outputs]
        self._kinds = [output.kind for output in forecaster.outputs]
        self._trackers = [
            Tracker(
                output,
                scaled=forecaster.scaled[column],
                quantiled=forecaster.quantiled[column],
                coverage=forecaster.coverage,
            )
            for column, output in enumerate(forecaster.outputs)
        ]
        strides = [stride(horizon) for horizon in self._horizons]
        self._period_mask = max(strides) - 1
        phases = range(max(strides))
        #: By the step's phase: horizons whose truth may have come, and those to sample.
        self._due = [tuple(c for c, s in enumerate(strides) if phase % s == 0) for phase in phases]
        self._sampled = [
            tuple(c for c, (h, s) in enumerate(zip(self._horizons, strides, strict=True)) if (phase + h) % s == 0)
            for phase in phases
        ]
        self._batch = 0

    def start(self) -> Scores:
        """Return the scores of an instrument of which nothing is known yet."""
        return Scores([tracker.start() for tracker in self._trackers], [deque() for _ in self._trackers])

    def run(self, rows: Sequence[Row], outlook: Outlook, broken: Collection[int]) -> tuple[Levels, list[Scored]]:
        """Score what has come due and sample anew, row by row; then compute the levels of all rows.

        Parameters
        ----------
        rows : accepted ticks in log order
        outlook : what the model says at them
        broken : rows that broke; they are neither truth nor forecast, and end what is pending
        """
        self._batch += 1
        table: list[tuple[float, ...]] = []
        places: list[int] = []
        sampled: list[Sampled] = []
        scored: list[Scored] = []
        said = Said(outlook)
        for index, row in enumerate(rows):
            instrument, step = row.instrument, row.step
            scores = instrument.scores
            if scores is None:
                scores = instrument.scores = self.start()
            whole = not broken or index not in broken
            if row.reset is not None or not whole:
                scores.drop()
            phase = step & self._period_mask
            if whole and self._due[phase]:
                self._settle(scores, self._due[phase], step, row.price, index, scored)
            if scores.batch != self._batch:
                if scores.corrections is None:
                    scores.corrections = self._corrections(scores.tracks)
                scores.batch, scores.at = self._batch, len(table)
                table.append(scores.corrections)
            places.append(scores.at)
            if whole and self._sampled[phase]:
                self._sample(scores, self._sampled[phase], row, index, said, sampled)
        levels = self._forecaster.levels(outlook, np.array(table).reshape(len(table), -1, 4)[places])
        _complete(sampled, levels)
        return levels, scored

    def _settle(
        self, scores: Scores, columns: Sequence[int], step: int, outcome: float, index: int, scored: list[Scored]
    ) -> None:
        """Score the forecasts whose truth this tick is, and move their tracks."""
        for column in columns:
            waiting = scores.pending[column]
            if not waiting or waiting[0].due != step:
                continue
            forecast = waiting.popleft()
            truth = self._truth(column, forecast.price, outcome)
            error = (truth - forecast.value) / forecast.unit
            missed = None if forecast.low == -EVERYTHING else (truth < forecast.low, truth > forecast.high)
            still = outcome == forecast.price
            self._trackers[column].learn(scores.tracks[column], error * error, still=still, missed=missed)
            scored.append(Scored(index, column, forecast, outcome))
            scores.corrections, scores.batch = None, -1

    def _truth(self, column: int, price: float, outcome: float) -> float:
        """Return what became of a price, in what the output's kind says."""
        kind = self._kinds[column]
        if kind == "log_return":
            return log(outcome) - log(price)  # their ratio could overflow
        return outcome - price if kind == "difference" else outcome

    def _sample(
        self, scores: Scores, columns: Sequence[int], row: Row, index: int, said: Said, sampled: list[Sampled]
    ) -> None:
        """Let the forecasts of this tick wait for their truth."""
        assert scores.corrections is not None
        for column in columns:
            waiting = scores.pending[column]
            if len(waiting) == PENDING_MAX:
                continue
            low, high = scores.corrections[4 * column : 4 * column + 2]
            unit = said.unit[index][column]
            forecast = Pending(
                row.step + self._horizons[column],
                row.offset,
                row.tick.ts,
                row.price,
                said.mean[index][column],
                -EVERYTHING,
                EVERYTHING,
                said.value[index][column],
                unit,
                said.low[index][column] + low * unit,
                said.high[index][column] + high * unit,
            )
            waiting.append(forecast)
            sampled.append((index, column, forecast))

    def _corrections(self, tracks: Sequence[Track]) -> tuple[float, ...]:
        pairs = zip(self._trackers, tracks, strict=True)
        return tuple(number for tracker, track in pairs for number in tracker.correction(track))


class Said:
    """An outlook as lists, whose numbers are plain floats."""

    __slots__ = ("high", "low", "mean", "unit", "value")

    def __init__(self, outlook: Outlook) -> None:
        self.mean, self.value, self.unit = outlook.mean.tolist(), outlook.value.tolist(), outlook.unit.tolist()
        self.low = self.value if outlook.low is outlook.value else outlook.low.tolist()
        self.high = self.value if outlook.high is outlook.value else outlook.high.tolist()


def _complete(sampled: Sequence[Sampled], levels: Levels) -> None:
    """Write into the sampled forecasts the ends as they are published, which are computed for all rows at once."""
    if not sampled:
        return
    rows, columns = [index for index, _, _ in sampled], [column for _, column, _ in sampled]
    known, lower = levels.known[rows].tolist(), levels.lower[rows, columns].tolist()
    upper = levels.upper[rows, columns].tolist()
    for (_, _, forecast), is_known, low, high in zip(sampled, known, lower, upper, strict=True):
        if is_known:
            forecast.lower, forecast.upper = low, high


def stride(horizon: int) -> int:
    """Return how many ticks lie between two sampled forecasts of a horizon: a power of two."""
    found = STRIDE_MIN
    while found * PENDING_MAX < horizon and found < STRIDE_MAX:
        found *= 2
    return found
