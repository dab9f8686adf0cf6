"""Forecasts against what happened: a bounded sample of each instrument's forecasts waits for its truth and is judged.

    tick t            a horizon's turn: its forecast joins the pending ones
    tick t + horizon  the truth: the forecast is scored, and the track of its interval moves (`intervals`)

All of it is sequential and a function of the instrument's own ticks, so it runs after the step of the whole batch, row
by row in log order, and writes down for each row the corrections that were in force at it; the levels are then computed
for the whole batch at once (`forecast`). A reset drops what is pending: a truth beyond it would be that of another
session. Tracks stay.

Which ticks are sampled: for horizon h those whose truth falls on a multiple of the horizon's stride, a power of two, so
that the truths of all horizons come together and most ticks cost nothing. The stride is large enough that no horizon
has more than `PENDING_MAX` forecasts waiting.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from itertools import chain
from math import inf, log
from typing import Final

import numpy as np

from daemon.core.forecast import Forecaster, Levels, Outlook
from daemon.core.instrument import Instrument
from daemon.core.intake import Row
from daemon.core.intervals import Tracker
from daemon.core.kept_scores import (
    PENDING_BYTES,
    TRACK_BYTES,
    Pending,
    Scores,
    new_scores,
    oldest,
    pack_pending,
    pack_track,
    unpack,
)

#: Forecasts of one horizon that wait for their truth, at most; with 80 bytes each they are most of a snapshot beside
#: the state. Twice as many tell little more, for neighbouring forecasts share most of their truth.
PENDING_MAX: Final = 8
#: A horizon's bytes while one more has room.
ROOM_BYTES: Final = TRACK_BYTES + (PENDING_MAX - 1) * PENDING_BYTES
#: Between two sampled forecasts of a short horizon. Every 4th while tracks are new was twice the work and missed no
#: less once new tracks moved fast enough; with every 16th, single instruments missed more than 7 % on a side.
STRIDE_MIN = 8
#: Numbers of a correction.
WIDTH: Final = 4
#: Bounds the table of turns. Horizons of more than PENDING_MAX times as many ticks sample while there is room.
STRIDE_MAX: Final = 4096


#: A forecast whose truth has come: the row of the batch that is its truth, the column of its horizon, the forecast.
Scored = tuple[int, int, Pending]


class Scorer:
    """Scores the rows of batches, and says what the tracks make of their forecasts.

    Parameters
    ----------
    forecaster : what the model's outputs mean
    """

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        outputs = forecaster.outputs
        self._trackers = [
            Tracker(
                output,
                scaled=forecaster.scaled[column],
                quantiled=forecaster.quantiled[column],
                coverage=forecaster.coverage,
            )
            for column, output in enumerate(outputs)
        ]
        self._kinds = [output.kind for output in outputs]
        horizons = [output.horizon for output in outputs]
        strides = [stride(horizon) for horizon in horizons]
        self._period_mask = max(strides) - 1
        phases = range(max(strides))
        #: By the phase of a step: columns whose truth may have come.
        self._due = [tuple(column for column, s in enumerate(strides) if phase % s == 0) for phase in phases]
        #: By the phase of a step: columns to sample, with their horizons.
        self._sampled = [
            tuple((c, h) for c, h in enumerate(horizons) if (phase + h) % strides[c] == 0) for phase in phases
        ]

    def start(self) -> Scores:
        """Return the scores of an instrument of which nothing is known yet."""
        return new_scores(tracker.start() for tracker in self._trackers)

    def _awake(self, instrument: Instrument) -> Scores:
        """Return the scores of an instrument that has none at hand: those of its snapshot, or new ones."""
        packed, instrument.packed_scores = instrument.packed_scores, b""
        return unpack(packed) if packed else self.start()

    def run(self, rows: Sequence[Row], outlook: Outlook, broken: Collection[int]) -> tuple[Levels, list[Scored]]:
        """Score what has come due and sample anew, row by row; then compute the levels of all rows.

        Parameters
        ----------
        rows : accepted ticks in log order
        outlook : what the model says at them
        broken : rows that broke; they are neither truth nor forecast, and end what is pending
        """
        mask, due, samples = self._period_mask, self._due, self._sampled
        in_force: list[array[float]] = []
        scored: list[Scored] = []
        said = iter(self._said(rows, outlook))
        # A turn of this loop is a tick: it was measured, and its calls are those that a tick in four needs.
        for index, row in enumerate(rows):
            scores = row.instrument.scores
            if scores is None:
                scores = row.instrument.scores = self._awake(row.instrument)
            if not scores.corrections:
                self.look(scores)
            step = row.step
            whole = not broken or index not in broken
            if row.reset is not None or not whole:
                scores.drop()
            phase = step & mask
            if due[phase] and whole:
                self._settle(scores, due[phase], step, row.price, index, scored)
            in_force.append(scores.corrections)
            if samples[phase]:
                price, corrections, horizons = row.price, scores.corrections, scores.horizons
                offset, ts = row.offset, row.ts
                for column, horizon in samples[phase]:
                    mean, value, unit, low, high = next(said)
                    if whole and len(horizons[column]) <= ROOM_BYTES:
                        at = WIDTH * column
                        horizons[column] += pack_pending(
                            step + horizon,
                            offset,
                            ts,
                            price,
                            mean,
                            value,
                            unit,
                            low + corrections[at] * unit,
                            high + corrections[at + 1] * unit,
                            corrections[at + 3],
                        )
        corrected = np.frombuffer(b"".join(in_force)).reshape(len(rows), -1, WIDTH)
        return self._forecaster.levels(outlook, corrected), scored

    def _said(self, rows: Sequence[Row], outlook: Outlook) -> list[list[float]]:
        """Return what the model says where it is sampled: mean, value, unit, low and high, in the order of the loop.

        Only these become Python's numbers: all of them would be a third of the loop's time.
        """
        mask, samples = self._period_mask, self._sampled
        turns = [(index, column) for index, row in enumerate(rows) for column, _ in samples[row.step & mask]]
        if not turns:
            return []
        at = tuple(np.array(turns, np.intp).T)
        columns = (outlook.mean, outlook.value, outlook.unit, outlook.low, outlook.high)
        found: list[list[float]] = np.array([column[at] for column in columns]).T.tolist()
        return found

    def _settle(
        self, scores: Scores, columns: Sequence[int], step: int, outcome: float, index: int, scored: list[Scored]
    ) -> None:
        """Score the forecasts whose truth this tick is, and move their tracks."""
        settled, corrections = len(scored), scores.corrections[:]
        log_outcome = log(outcome) if outcome > 0 else 0.0
        for column in columns:
            packed = scores.horizons[column]
            if len(packed) == TRACK_BYTES:
                continue
            track, forecast = oldest(packed)
            due, _, _, price, _, value, unit, low, high, _ = forecast
            if due != step:
                continue
            kind = self._kinds[column]
            if kind == "log_return":
                truth = log_outcome - log(price)  # their ratio could overflow
            else:
                truth = outcome - price if kind == "difference" else outcome
            missed = low != -inf, truth < low, truth > high
            moved, correction = self._trackers[column].learn(track, (truth - value) / unit, outcome == price, *missed)
            scores.horizons[column] = pack_track(*moved) + packed[TRACK_BYTES + PENDING_BYTES :]
            corrections[WIDTH * column : WIDTH * (column + 1)] = array("d", correction)
            scored.append((index, column, forecast))
        if len(scored) > settled:
            scores.corrections = corrections
            if not scores.known:
                self.look(scores)

    def look(self, scores: Scores) -> None:
        """Find what the tracks make of forecasts: no ends as long as one of them does not know its errors."""
        pairs = [(tracker, scores.track(column)) for column, tracker in enumerate(self._trackers)]
        scores.known = all(tracker.knows(track) for tracker, track in pairs)
        corrections = [tracker.correction(track) for tracker, track in pairs]
        if not scores.known:
            corrections = [(-inf, inf, square, holds) for _, _, square, holds in corrections]
        scores.corrections = array("d", chain.from_iterable(corrections))


def published(forecaster: Forecaster, forecasts: Sequence[tuple[int, Pending]]) -> tuple[list[float], list[float]]:
    """Return lower and upper ends as they were published, of (column, forecast); they say nothing where infinite."""
    column = np.array([column for column, _ in forecasts], np.intp)
    price, mean, low, high, holds_price = np.array(
        [(each.price, each.mean, each.low, each.high, each.holds_price) for _, each in forecasts]
    ).T
    lower, upper = forecaster.ends(column, price, mean, low, high, holds_price)
    return lower.tolist(), upper.tolist()


def stride(horizon: int) -> int:
    """Return how many ticks lie between two sampled forecasts of a horizon: a power of two."""
    found = STRIDE_MIN
    while found * PENDING_MAX < horizon and found < STRIDE_MAX:
        found *= 2
    return found
