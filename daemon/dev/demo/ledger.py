"""The books of the demo: every tick that was read from its topic, and the outcomes that name it."""

from __future__ import annotations

import numpy as np


class Ledger:
    """Joins ticks and outcomes by the tick's id, whichever is read first."""

    def __init__(self) -> None:
        #: id -> Kafka timestamp of the tick, milliseconds since the epoch.
        self._ticks: dict[str, int] = {}
        #: Every id that an outcome named so far.
        self._settled: set[str] = set()
        self._latencies_ms: list[float] = []
        self.forecast_count = 0
        self.dead_letter_count = 0
        #: Ids that more than one outcome named: exactly once broken.
        self.repeated: list[str] = []

    @property
    def tick_count(self) -> int:
        """Ticks read so far."""
        return len(self._ticks)

    @property
    def outcome_count(self) -> int:
        """Outcomes read so far, repeated ones included."""
        return self.forecast_count + self.dead_letter_count

    def tick(self, tick_id: str, timestamp_ms: int) -> None:
        """Note a tick read from its topic."""
        self._ticks[tick_id] = timestamp_ms

    def forecast(self, tick_id: str, read_ms: float) -> float | None:
        """Note a forecast read at `read_ms`; return its latency in milliseconds, None where its tick is not known yet.

        A tick whose forecast overtook it in the reader (they stand in different topics) counts for everything but the
        latency.
        """
        self.forecast_count += 1
        self._settle(tick_id)
        timestamp_ms = self._ticks.get(tick_id)
        if timestamp_ms is None:
            return None
        latency_ms = max(0.0, read_ms - timestamp_ms)
        self._latencies_ms.append(latency_ms)
        return latency_ms

    def dead_letter(self, tick_id: str) -> None:
        """Note a dead letter."""
        self.dead_letter_count += 1
        self._settle(tick_id)

    def open_ticks(self) -> list[str]:
        """Return the ids of ticks without outcome, in the order in which they were read."""
        return [tick_id for tick_id in self._ticks if tick_id not in self._settled]

    def latency_ms(self, percent: float) -> float | None:
        """Return a percentile of all latencies, None while there are none."""
        return float(np.percentile(self._latencies_ms, percent)) if self._latencies_ms else None

    def _settle(self, tick_id: str) -> None:
        if tick_id in self._settled:
            self.repeated.append(tick_id)
        self._settled.add(tick_id)
