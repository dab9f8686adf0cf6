"""What the forecasts said and what happened then, instrument by instrument, from the forecast stream alone.

A forecast made at step s for `horizon` ticks ahead is judged by the reference price of the forecast at step s +
`horizon` of the same instrument; every accepted tick has one. A reset ends the count of steps, so what is still open
then is never judged. Skill is 1 - MSE / MSE of "the price stays": 0 is as good as knowing nothing, 1 is perfect.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from daemon.web.judged import Errors

#: Of a model's horizons the one nearest to this is shown: far enough for prices to move, near enough that a minute of
#: ticks judges it many times.
HORIZON_WANTED = 10
#: The latency shown is the median of so many forecasts: one alone would flicker.
LATENCY_COUNT = 50


@dataclass
class Row:
    """One instrument as the table shows it."""

    instrument: str
    session: str | None = None
    price: float = 0.0
    mean: float = 0.0
    #: None until the model knows its intervals.
    lower: float | None = None
    upper: float | None = None
    forecast_count: int = 0
    errors: Errors = field(default_factory=Errors)
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=LATENCY_COUNT))
    #: (step, price, mean) of warm forecasts whose horizon has not come, oldest first; at most `horizon` of them.
    open: deque[tuple[int, float, float]] = field(default_factory=deque)

    @property
    def latency_ms(self) -> float | None:
        """Median of the latest forecasts."""
        return statistics.median(self.latencies_ms) if self.latencies_ms else None

    def basis_points(self, price: float) -> float:
        """Return how far a price is from the current one, in 1/100 of a percent."""
        return (price / self.price - 1) * 1e4


class Scoreboard:
    """The latest forecast and the skill so far of every instrument."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._index: int | None = None
        #: The horizon that is shown and judged, in ticks; None before the first forecast.
        self.horizon: int | None = None
        #: All instruments together.
        self.errors = Errors()

    def add(self, forecast: Mapping[str, Any], latency_ms: float | None) -> None:
        """Take a forecast as it was published.

        Parameters
        ----------
        forecast : keys of the message `Forecast`; those of one instrument in their order
        latency_ms : from the tick's Kafka timestamp to reading the forecast, None where unknown
        """
        if self._index is None:
            self._index = _shown(forecast["horizons"])
        self.horizon = int(forecast["horizons"][self._index])
        row = self._rows.setdefault(forecast["instrument"], Row(forecast["instrument"]))
        self._judge(row, forecast, self.horizon)
        row.session, row.price = forecast["session"], forecast["price"]
        row.mean = forecast["mean"][self._index]
        row.lower, row.upper = (forecast[name] and forecast[name][self._index] for name in ("lower", "upper"))
        row.forecast_count += 1
        if latency_ms is not None:
            row.latencies_ms.append(latency_ms)
        if forecast["warm"]:
            row.open.append((forecast["step"], row.price, row.mean))

    def rows(self) -> list[Row]:
        """Return the rows by name, so that each keeps its place."""
        return [self._rows[name] for name in sorted(self._rows)]

    def _judge(self, row: Row, forecast: Mapping[str, Any], horizon: int) -> None:
        if forecast["reset"] is not None:
            row.open.clear()
        while row.open and row.open[0][0] + horizon <= forecast["step"]:
            step, price, mean = row.open.popleft()
            if step + horizon == forecast["step"]:
                row.errors.add(price, mean, forecast["price"])
                self.errors.add(price, mean, forecast["price"])


def _shown(horizons: Sequence[int]) -> int:
    return min(range(len(horizons)), key=lambda index: abs(horizons[index] - HORIZON_WANTED))
