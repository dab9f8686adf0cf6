"""Intervals that follow the outcomes: one track per instrument and horizon, corrected whenever a truth comes in.

The interval of a forecast runs from ``value - low * s`` to ``value + high * s``. The scale s of errors is what the
model says of them (a `log_variance` column, or the unit of its output) times the running root mean square of errors in
that unit. Two trackers, one a side, move `low` and `high` by what was missed (quantile tracking of Angelopoulos et al.,
2023): a miss widens its side by much, a hit narrows it by little, so that either side misses (1 - coverage) / 2 of the
outcomes in the long run, whatever their distribution and however it drifts. An integrator adds a correction that grows
the faster, the further the misses of the last hundreds of outcomes leave what was asked for.

Where a model has quantile columns, the ends are reckoned from those instead of the mean (conformalised quantile
regression, Romano et al., 2019); the same trackers then correct the model's own quantiles.

What is judged is the interval that was issued, at the tick whose truth has come (delayed feedback), without the two
rules that only ever widen it: it holds its own mean, and the present price where the price mostly stands still.

Invariants
----------
- A track is a function of its instrument's own scored forecasts, in plain float64 arithmetic: batches change no bit.
- ``lower <= mean <= upper``, so ends never cross.
- The state is `Track`: seven numbers, whatever the past.

References
----------
Angelopoulos, Candes, Tibshirani (2023), Conformal PID control for time series prediction; Romano, Patterson, Candes
(2019), Conformalized quantile regression.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np

from daemon.core.spec import Output

# All constants were chosen on the first 70 % of real ticks (six instruments, 183,000 ticks), by misses and pinball
# loss, with warm and with fresh tracks; the neighbours of each (half, double) did about as well.

#: How far a miss widens a side, in scales of errors; a hit narrows it by a share of (1 - coverage) / 2 of that.
STEP: Final = 0.05
#: A new track moves faster, by up to so many times, for about so many outcomes.
HASTE: Final = 16.0
HASTE_OUTCOMES: Final = 20.0
#: Weight of the newest outcome in the running mean square and zero-move share; more while there are few.
WEIGHT: Final = 0.005
WEIGHT_OUTCOMES: Final = 1 / WEIGHT
#: Outcomes that a bundle's own figures count for.
PRIOR_OUTCOMES: Final = 4.0
#: Outcomes before a model that says nothing of its errors has a variance and an interval.
FEWEST: Final = 32.0
#: No outcome counts for more than so many scales: one false price must not blow up the interval.
OUTLIER_SQUARE: Final = 30.0 * 30.0
#: A price at rest must not drive the mean square to 0.
MEAN_SQUARE_MIN: Final = 1e-24
#: The integrator: its memory in outcomes; its correction in scales, ``GAIN * debt / (limit - |debt|)``; the limit, an
#: excess of 5 % of misses over the whole memory; and where the debt ends, at 7 scales.
MEMORY_OUTCOMES: Final = 500.0
DEBT_LIMIT: Final = 25.0
DEBT_MAX: Final = 24.0
GAIN: Final = 0.3
#: A coverage of 0.9 asks for level 0.04999999999999999, which a bundle knows as 0.05.
LEVEL_TOLERANCE: Final = 1e-9


class Track(NamedTuple):
    """What one horizon of one instrument has learned of its errors. Plain floats; `kept_scores` packs it."""

    #: Ends of the interval, in scales of errors: the quantile trackers. Misses raise them, so either may be negative.
    low: float
    high: float
    #: Running sums of misses beyond what was asked for: the integrators.
    low_debt: float
    high_debt: float
    #: Running mean of squared errors in the unit that the model gives them.
    mean_square: float
    #: Running share of outcomes equal to the price that they were forecast from.
    still: float
    #: Outcomes seen, and those that the start counts for.
    outcome_count: float


#: What a track makes of a forecast: `low` and `high`, with the ends ``value + low * unit`` and ``value + high * unit``;
#: the mean square, with the variance ``mean_square * unit * unit``; and 1 where the interval has to hold the present
#: price, else 0.
Correction = tuple[float, float, float, float]


class Tracker:
    """The rules by which tracks begin and move, for one horizon.

    Parameters
    ----------
    output : the mean's output column
    scaled : the model gives the scale of its errors itself (`log_variance`)
    quantiled : the model gives the ends itself (quantile columns)
    coverage : share of outcomes the interval shall hold; half of the rest lies on either side
    """

    def __init__(self, output: Output, *, scaled: bool, quantiled: bool, coverage: float) -> None:
        self._coverage = coverage
        allowed = (1 - coverage) / 2
        #: What an outcome adds to the count of misses beyond what was asked for.
        self._miss, self._hit = 1 - allowed, -allowed
        bell = NormalDist().inv_cdf(1 - allowed)
        tails = _tails(output, allowed)
        mean_square = output.residual_variance
        if scaled:
            mean_square = 1.0
        elif mean_square is None and tails is not None:
            mean_square = ((tails[0] + tails[1]) / (2 * bell)) ** 2
        self._known = mean_square is not None
        scale = sqrt(max(mean_square or 0.0, MEAN_SQUARE_MIN))
        low, high = (bell, bell) if scaled or tails is None else (tails[0] / scale, tails[1] / scale)
        if quantiled:
            low = high = 0.0
        self._start = (low, high, 0.0, 0.0, scale * scale, 0.5, PRIOR_OUTCOMES if self._known else 0.0)

    def start(self) -> Track:
        """Return the track of an instrument of which nothing is scored yet."""
        return Track(*self._start)

    def knows(self, track: Track) -> bool:
        """Say whether the track knows its errors well enough for an interval."""
        return self._known or track.outcome_count >= FEWEST

    def correction(self, track: Track) -> Correction:
        """Return what the track makes of the next forecasts, until it moves."""
        scale = sqrt(track.mean_square)
        low = track.low + track.low_debt * GAIN / (DEBT_LIMIT - abs(track.low_debt))
        high = track.high + track.high_debt * GAIN / (DEBT_LIMIT - abs(track.high_debt))
        return -low * scale, high * scale, track.mean_square, 1.0 if track.still > self._coverage else 0.0

    def learn(
        self, track: Track, error: float, still: bool, judged: bool, below: bool, above: bool
    ) -> tuple[Track, Correction]:
        """Return the track moved by one outcome, and what it makes of the next forecasts.

        Parameters
        ----------
        error : in the unit that the model gives it
        still : the price had not moved
        judged : an interval had been issued
        below, above : the outcome missed it
        """
        # In the hot path, at every second tick: `min`, `max` and helpers were measured, half of all this.
        low, high, low_debt, high_debt, mean_square, standing, count = track
        square = error * error
        count += 1.0
        if square > OUTLIER_SQUARE * mean_square and (self._known or count > FEWEST):
            square = OUTLIER_SQUARE * mean_square
        if count < WEIGHT_OUTCOMES:
            weight, step = 1.0 / count, STEP + STEP * HASTE / (1.0 + count / HASTE_OUTCOMES)
        else:
            weight, step = WEIGHT, STEP
        mean_square += weight * (square - mean_square)
        mean_square = mean_square if mean_square > MEAN_SQUARE_MIN else MEAN_SQUARE_MIN
        standing += weight * ((1.0 if still else 0.0) - standing)
        if judged:
            miss = self._miss if below else self._hit
            low += step * miss
            low_debt += miss - low_debt / MEMORY_OUTCOMES
            low_debt = low_debt if low_debt < DEBT_MAX else DEBT_MAX
            miss = self._miss if above else self._hit
            high += step * miss
            high_debt += miss - high_debt / MEMORY_OUTCOMES
            high_debt = high_debt if high_debt < DEBT_MAX else DEBT_MAX
        moved = Track(low, high, low_debt, high_debt, mean_square, standing, count)
        return moved, self.correction(moved)


def _tails(output: Output, allowed: float) -> tuple[float, float] | None:
    """Return how far the bundle's residual quantiles reach down and up, in units of y; None where they do not."""
    known = output.residual_quantiles
    if not known or known[0][0] - LEVEL_TOLERANCE > allowed or known[-1][0] + LEVEL_TOLERANCE < 1 - allowed:
        return None
    levels, quantiles = [level for level, _ in known], [quantile for _, quantile in known]
    low, high = (float(np.interp(level, levels, quantiles)) for level in (allowed, 1 - allowed))
    return (-low, high) if output.scale > 0 else (high, -low)
