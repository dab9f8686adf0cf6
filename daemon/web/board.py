"""All that the page knows: fed with the records of both topics, bounded in every direction. No clock, no network.

Invariants
----------
- A record that cannot be read changes nothing but a count.
- What is kept does not grow with time: instruments, forecasts of them, ticks that wait for theirs.
"""

from __future__ import annotations

import secrets
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from math import isfinite

import orjson

from daemon.core.records import Record
from daemon.transport.port import Readable
from daemon.web.listing import Listing
from schemas import Forecast, Rejected, TickDecoder

#: The least recently touched gives way.
INSTRUMENTS_MAX = 10_000
#: Forecasts kept of all instruments together (some 500 bytes each), and of one at least and at most.
HISTORY_TOTAL = 200_000
HISTORY_MIN = 60
HISTORY_MAX = 600
#: Ticks of a partition that wait for their forecast.
WAITING_MAX = 20_000
#: Latencies that the percentiles are of.
LATENCY_COUNT = 1_000
#: Seconds that rates are taken over.
RATE_SECONDS = 5


class Board:
    """What was seen of ticks and forecasts.

    Parameters
    ----------
    topics : name by role, for people
    decoder : reads the ticks topic, as the daemon's does
    future_skew_ms : how far a tick may be ahead of its Kafka timestamp; one further ahead becomes a dead letter
    """

    def __init__(self, topics: Mapping[Readable, str], decoder: TickDecoder, future_skew_ms: float = 60_000.0) -> None:
        self.topics = dict(topics)
        self._decoder = decoder
        self._future_skew_ms = future_skew_ms
        self.clear()

    def clear(self) -> None:
        """Forget everything; numbers start anew, so there is a new epoch."""
        self.epoch = secrets.token_hex(4)
        self._listings: dict[str, Listing] = {}
        self._names: list[str] | None = []
        #: Of each partition, offset and Kafka timestamp of the ticks behind its newest forecast.
        self._waiting: dict[int, deque[tuple[int, int]]] = {}
        #: Of each partition, offset of the tick whose forecast was read last.
        self._answered: dict[int, int] = {}
        self._latencies_ms: deque[float] = deque(maxlen=LATENCY_COUNT)
        #: Per role, how many records were written in a second of Kafka's time; and the newest of these seconds.
        self._per_second: dict[Readable, Counter[int]] = {"ticks": Counter(), "forecasts": Counter()}
        #: Kafka timestamp of the newest record, ms; None before the first.
        self.newest_ms: dict[Readable, int | None] = {"ticks": None, "forecasts": None}
        #: Records of the topic of forecasts that are none.
        self.unreadable_count = 0

    def take(self, records: Mapping[Readable, Sequence[Record]]) -> None:
        """Take what was read. Ticks first: of what one poll brings, they came before the forecasts that name them."""
        for record in records.get("ticks", ()):
            self._count("ticks", record)
            self._take_tick(record)
        for record in records.get("forecasts", ()):
            self._count("forecasts", record)
            if not self._take_forecast(record):
                self.unreadable_count += 1

    def listing(self, name: str) -> Listing | None:
        """Return what is known of an instrument."""
        return self._listings.get(name)

    def names(self) -> list[str]:
        """Return all instruments by name."""
        if self._names is None:
            self._names = sorted(self._listings)
        return self._names

    def search(self, text: str, most: int) -> tuple[list[str], int]:
        """Find instruments whose name holds a text, those that begin with it first.

        Returns
        -------
        names : at most `most` of them
        count : how many there are
        """
        wanted = text.casefold()
        found = [name for name in self.names() if wanted in name.casefold()] if wanted else self.names()
        if wanted:
            found.sort(key=lambda name: not name.casefold().startswith(wanted))
        return found[:most], len(found)

    def rate(self, role: Readable) -> float:
        """Return records per second over the last full seconds of Kafka's time, the newest one left out."""
        counts, newest_ms = self._per_second[role], self.newest_ms[role]
        if newest_ms is None:
            return 0.0
        newest = newest_ms // 1000
        return sum(counts[second] for second in range(newest - RATE_SECONDS, newest)) / RATE_SECONDS

    def latency_ms(self, *percents: float) -> list[float | None]:
        """Return percentiles of the last latencies, None where there are none."""
        found = sorted(self._latencies_ms)
        return [found[min(int(len(found) * percent / 100), len(found) - 1)] if found else None for percent in percents]

    @property
    def waiting_count(self) -> int:
        """Ticks behind the newest forecast of their partition; dead letters among them are not told apart."""
        return sum(map(len, self._waiting.values()))

    @property
    def waiting_since_ms(self) -> int | None:
        """Kafka timestamp of the first of them since the newest forecast of all; None where there is none.

        One older than that is a dead letter, or its partition is behind while others are not.
        """
        newest_ms = self.newest_ms["forecasts"] or 0
        firsts = (next((at for _, at in waiting if at > newest_ms), None) for waiting in self._waiting.values())
        return min((at for at in firsts if at is not None), default=None)

    def _take_tick(self, record: Record) -> None:
        if record.offset > self._answered.get(record.partition, -1):
            waiting = self._waiting.setdefault(record.partition, deque(maxlen=WAITING_MAX))
            waiting.append((record.offset, record.timestamp))
        try:
            tick = self._decoder.decode(record.value)
        except Rejected:  # it becomes a dead letter
            return
        if tick.ts / 1e6 - record.timestamp <= self._future_skew_ms or record.timestamp < 0:
            self._touch(tick.instrument).tick(tick)

    def _take_forecast(self, record: Record) -> bool:
        """Take a forecast; return False where it cannot be read."""
        if record.value is None:
            return False
        try:
            forecast = Forecast.model_validate(orjson.loads(record.value))
            offset = int(forecast.id.rsplit("-", 1)[1])
        except (ValueError, IndexError):
            return False
        if not _is_sound(forecast):
            return False
        latency_ms = self._settle(record, offset)
        self._touch(forecast.instrument).add(forecast, record.value, latency_ms, self._history_max())
        return True

    def _settle(self, record: Record, answered: int) -> float | None:
        """Return how long a tick waited, None where it was not seen; the ticks before it wait for nothing any more."""
        self._answered[record.partition] = answered
        waiting = self._waiting.get(record.partition, ())
        offset, timestamp = -1, 0
        while waiting and waiting[0][0] <= answered:
            offset, timestamp = waiting.popleft()
        if offset != answered:
            return None
        latency_ms = max(0.0, float(record.timestamp - timestamp))
        self._latencies_ms.append(latency_ms)
        return latency_ms

    def _touch(self, name: str) -> Listing:
        """Return the listing of an instrument as the last touched one, made where there is none."""
        listing = self._listings.pop(name, None)
        if listing is None:
            listing, self._names = Listing(name), None
            if len(self._listings) >= INSTRUMENTS_MAX:
                del self._listings[next(iter(self._listings))]
        self._listings[name] = listing
        return listing

    def _history_max(self) -> int:
        return min(HISTORY_MAX, max(HISTORY_MIN, HISTORY_TOTAL // len(self._listings or "x")))

    def _count(self, role: Readable, record: Record) -> None:
        counts, newest_ms = self._per_second[role], self.newest_ms[role]
        second = record.timestamp // 1000
        counts[second] += 1
        if newest_ms is None or record.timestamp > newest_ms:
            self.newest_ms[role] = record.timestamp
            for old in [each for each in counts if each < second - 2 * RATE_SECONDS]:
                del counts[old]


def _is_sound(forecast: Forecast) -> bool:
    """Whether all that is said by horizon has as many values, and the price is a number."""
    count = len(forecast.horizons)
    columns = (forecast.mean, forecast.lower, forecast.upper, forecast.variance)
    return isfinite(forecast.price) and all(column is None or len(column) == count for column in columns)
