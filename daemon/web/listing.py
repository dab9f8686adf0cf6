"""One instrument as a subscriber sees it: the newest tick, the last forecasts, and what they were worth."""

from __future__ import annotations

import statistics
from collections import deque
from itertools import islice
from typing import NamedTuple

from daemon.web.judged import Judge
from schemas import Forecast, Tick

#: Of a model's horizons the one nearest to this stands for it in lists: far enough for prices to move, near enough to
#: be judged many times a minute.
HORIZON_WANTED = 10
#: The latency shown is the median of so many forecasts: one alone would flicker.
LATENCY_COUNT = 100


class Seen(NamedTuple):
    """One forecast as it was read."""

    #: Its place among the forecasts of this instrument that were read, the first is 1. Horizons count ticks, and every
    #: accepted tick has a forecast, so a forecast of number n for h ticks ahead is about the price of number n + h.
    number: int
    #: From the tick's Kafka timestamp to the forecast's; None where the tick was not seen.
    latency_ms: float | None
    #: The record's value as it stands in the topic.
    value: bytes


class Listing:
    """What is known of one instrument."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: Reference price after the newest tick, whether it has been forecast or not; None before the first tick.
        self.price: float | None = None
        #: Event time of that tick, ns.
        self.price_ts = 0
        self._mid: float | None = None
        #: The newest one.
        self.forecast: Forecast | None = None
        #: How many were read so far: the number of the newest.
        self.number = 0
        self._history: deque[Seen] = deque()
        self._latencies_ms: deque[float] = deque(maxlen=LATENCY_COUNT)
        self.judge: Judge | None = None

    def tick(self, tick: Tick) -> None:
        """Take a tick; one older than the last is passed over, as the daemon does with late ones."""
        if tick.ts < self.price_ts:
            return
        if tick.bid is not None and tick.ask is not None:
            self._mid = tick.bid / 2 + tick.ask / 2
        self.price = tick.price if self._mid is None else self._mid
        self.price_ts = tick.ts

    def add(self, forecast: Forecast, value: bytes, latency_ms: float | None, history_max: int) -> None:
        """Take the next forecast of this instrument, and keep at most so many."""
        before = self.forecast
        if self.judge is None or before is None or before.model != forecast.model:
            self.judge = Judge(forecast.horizons)
        self.judge.add(forecast)
        self.forecast = forecast
        self.number += 1
        if latency_ms is not None:
            self._latencies_ms.append(latency_ms)
        self._history.append(Seen(self.number, latency_ms, value))
        while len(self._history) > history_max:
            self._history.popleft()

    def after(self, number: int) -> list[Seen]:
        """Return what came after the forecast of this number, as far as it is kept."""
        skipped = len(self._history) - (self.number - number)
        return list(islice(self._history, max(skipped, 0), None))

    @property
    def latency_ms(self) -> float | None:
        """Median of the latest forecasts."""
        return statistics.median(self._latencies_ms) if self._latencies_ms else None

    @property
    def horizon_index(self) -> int | None:
        """Which of the model's horizons stands for it; None before the first forecast."""
        if self.forecast is None:
            return None
        horizons = self.forecast.horizons
        return min(range(len(horizons)), key=lambda index: abs(horizons[index] - HORIZON_WANTED))
