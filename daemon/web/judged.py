"""What forecasts were worth to somebody who only reads them: each is matched with the price that came.

A forecast made at step s for `horizon` ticks ahead is judged by the reference price of the forecast at step s +
`horizon` of the same instrument; every accepted tick has one. A reset ends the count of steps, so what is still open
then is never judged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from schemas import Forecast

#: Variance is taken over so many of the last forecasts.
SPREAD_COUNT = 100
#: A horizon further ahead than this is not judged: every forecast would have to be kept for so long.
HORIZON_MAX = 200


@dataclass
class Errors:
    """Sums of squared errors, in relative price, so that instruments of any price add up."""

    judged_count: int = 0
    model: float = 0.0
    naive: float = 0.0

    @property
    def skill(self) -> float | None:
        """1 - MSE / MSE of persistence; None while no price has moved."""
        return 1 - self.model / self.naive if self.naive > 0 else None

    def add(self, price: float, mean: float, outcome: float) -> None:
        """Judge one forecast: made at `price`, expecting `mean`, and `outcome` came."""
        self.judged_count += 1
        self.model += (outcome / price - mean / price) ** 2
        self.naive += (outcome / price - 1) ** 2


class Made(NamedTuple):
    """What is kept of a forecast until its last horizon has come."""

    step: int
    warm: bool
    price: float
    mean: Sequence[float]


class Judge:
    """Judges the forecasts of one instrument, for the horizons of one model."""

    def __init__(self, horizons: Sequence[int]) -> None:
        self.horizons = tuple(horizons)
        self.errors = [Errors() for _ in self.horizons]
        #: The newest last; their steps are consecutive.
        self._made: deque[Made] = deque(
            maxlen=max(SPREAD_COUNT, *(horizon for horizon in (0, *self.horizons) if horizon <= HORIZON_MAX))
        )

    def add(self, forecast: Forecast) -> None:
        """Judge by it what was forecast for this tick, and keep it for what comes."""
        made = self._made
        if made and made[-1].step + 1 != forecast.step:
            made.clear()
        for index, horizon in enumerate(self.horizons):
            if horizon <= len(made):
                past = made[-horizon]
                if past.warm and past.price:
                    self.errors[index].add(past.price, past.mean[index], forecast.price)
        made.append(Made(forecast.step, forecast.warm, forecast.price, forecast.mean))

    def variance(self, index: int) -> float | None:
        """Return the variance of what the last forecasts expected, as a return; None for less than two of them.

        Zero means that the model answers the same to everything.
        """
        found = [made.mean[index] / made.price - 1 for made in list(self._made)[-SPREAD_COUNT:] if made.price]
        if len(found) < 2:
            return None
        middle = sum(found) / len(found)
        return sum((value - middle) ** 2 for value in found) / len(found)

    @property
    def kept_count(self) -> int:
        """How many forecasts the variance is of."""
        return min(len(self._made), SPREAD_COUNT)
