"""Intervals that follow the outcomes: one track per instrument and horizon, corrected whenever a truth comes in.

The interval of a forecast runs from ``value - low * s`` to ``value + high * s``. The scale s of errors is what the
model says of them (a `log_variance` column, or the unit of its output) times the running root mean square of errors
in that unit. Two trackers, one a side, move `low` and `high` by what was missed (quantile tracking of Angelopoulos et al.,
2023): a miss widens its side by much, a hit narrows it by little, so that either side misses (1 - coverage) / 2 of the
outcomes in the long run, whatever their distribution and however it drifts. An integrator adds a correction that grows
without bound as the misses of the last thousands of ticks leave what was asked for.

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

from dataclasses import dataclass
from math import pi, sqrt, tan
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from daemon.core.spec import Output

# All constants were chosen on the first 70 % of real ticks (six instruments, 183,000 ticks), by misses and pinball
# loss, with warm and with fresh tracks; the neighbours of each (half, double) did about as well.

#: How far a miss widens a side, in scales of errors; a hit narrows it by a share of (1 - coverage) / 2 of that.
STEP = 0.05
#: A new track moves faster, by up to so many times, for about so many outcomes.
HASTE = 8.0
HASTE_OUTCOMES = 20.0
#: Weight of the newest outcome in the running mean square and zero-move share; more while there are few.
WEIGHT = 0.005
#: Outcomes that a bundle's own figures count for.
PRIOR_OUTCOMES = 4.0
#: Outcomes before a model that says nothing of its errors has a variance and an interval.
FEWEST = 32.0
#: No outcome counts for more than so many scales: one false price must not blow up the interval.
OUTLIER = 30.0
#: A price at rest must not drive the mean square to 0.
MEAN_SQUARE_MIN = 1e-24
#: The integrator: its memory in outcomes, its gain in scales, and the excess share of misses at which it has no bound.
MEMORY_OUTCOMES = 500.0
GAIN = 0.2
SATURATION = 0.05
#: Share of that excess at which the tangent is cut off, at some 2.5 scales.
SATURATED = 0.95
#: A coverage of 0.9 asks for level 0.04999999999999999, which a bundle knows as 0.05.
LEVEL_TOLERANCE = 1e-9
#: What an unknown interval holds: everything.
EVERYTHING = float("inf")


@dataclass(slots=True)
class Track:
    """What one horizon of one instrument has learned of its errors. Plain floats; `scores` and `snapshot` carry it."""

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
    count: float


class Correction(NamedTuple):
    """What a track makes of a forecast: its ends are ``value + low * unit`` and ``value + high * unit``."""

    #: -inf and inf where the interval is not known yet.
    low: float
    high: float
    mean_square: float
    #: True where the interval has to hold the present price.
    holds_price: bool


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
        self._allowed = allowed = (1 - coverage) / 2
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

    def correction(self, track: Track) -> Correction:
        """Return what the track makes of the next forecasts, until it moves."""
        if not self._known and track.count < FEWEST:
            return Correction(-EVERYTHING, EVERYTHING, track.mean_square, False)
        scale = sqrt(track.mean_square)
        return Correction(
            -(track.low + _integrated(track.low_debt)) * scale,
            (track.high + _integrated(track.high_debt)) * scale,
            track.mean_square,
            track.still > self._coverage,
        )

    def learn(self, track: Track, square: float, *, still: bool, missed: tuple[bool, bool] | None) -> None:
        """Move a track by one outcome.

        Parameters
        ----------
        square : the squared error, in the unit that the model gives it
        still : the price had not moved
        missed : below the issued interval, above it; None where none was known
        """
        count = track.count + 1.0
        mean_square = track.mean_square
        if count > PRIOR_OUTCOMES and (self._known or count > FEWEST):
            square = min(square, OUTLIER * OUTLIER * mean_square)
        weight = max(1.0 / count, WEIGHT)
        track.count = count
        track.mean_square = max(mean_square + weight * (square - mean_square), MEAN_SQUARE_MIN)
        track.still += weight * (still - track.still)
        if missed is None:
            return
        step = STEP * (1.0 + HASTE / (1.0 + count / HASTE_OUTCOMES))
        below, above = missed[0] - self._allowed, missed[1] - self._allowed
        track.low += step * below
        track.high += step * above
        track.low_debt += below - track.low_debt / MEMORY_OUTCOMES
        track.high_debt += above - track.high_debt / MEMORY_OUTCOMES


def _integrated(debt: float) -> float:
    """Return the integrator's correction, in scales: a tangent of the excess share of misses, saturating."""
    excess = debt / (MEMORY_OUTCOMES * SATURATION)
    return GAIN * tan(min(max(excess, -SATURATED), SATURATED) * (pi / 2))


def _tails(output: Output, allowed: float) -> tuple[float, float] | None:
    """Return how far the bundle's residual quantiles reach down and up, in units of y; None where they do not."""
    known = output.residual_quantiles
    if not known or known[0][0] - LEVEL_TOLERANCE > allowed or known[-1][0] + LEVEL_TOLERANCE < 1 - allowed:
        return None
    levels, quantiles = [level for level, _ in known], [quantile for _, quantile in known]
    low, high = (float(np.interp(level, levels, quantiles)) for level in (allowed, 1 - allowed))
    return (-low, high) if output.scale > 0 else (high, -low)
