"""A simulated market: ticks whose order flow really moves prices, from a seed and without a clock.

Each instrument has a hidden order flow f, an AR(1) process of variance 1 that advances with each of its ticks:

    f' = PERSISTENCE f + sqrt(1 - PERSISTENCE^2) e,    e ~ N(0, 1)

A tick is a quote with probability QUOTE_SHARE, otherwise a trade. At a quote the mid moves by

    x = volatility (pull f + sqrt(1 - pull^2) e')  ticks,

rounded up or down at random so that its expectation stays x. What can be seen of f is the imbalance of the quoted
sizes and the side of trades. With `pull` = 0 (the instrument WALK) both are seen all the same but say nothing: its mid
is a pure random walk, on which any skill would be a leak.

Invariants
----------
- The same arguments give the same ticks.
- Event time never goes back. Between sessions nothing ticks for `quiet_seconds`, and the flow starts anew.
- Prices are whole multiples of the instrument's tick size, bid < ask.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from random import Random
from typing import Any

#: The pure random walk among the instruments.
WALK = "WALK"
#: Half of what the flow says is gone after 23 ticks, so that horizons of 10 and 50 ticks can both be forecast.
PERSISTENCE = 0.97
QUOTE_SHARE = 0.7
#: Share of the flow in an instrument's own moves. Who sees the flow itself then reaches an R2 of about 0.04, 0.28 and
#: 0.28 at 1, 10 and 50 ticks: more than real markets give, so that few ticks are enough to see a model work.
PULL = 0.3
#: 2024-01-01T00:00:00Z.
START_NS = 1_704_067_200_000_000_000


class Market:
    """Ticks of several instruments, without end.

    Parameters
    ----------
    seed : the same seed gives the same ticks
    instruments : how many; the last is the random walk, the others are FLOW1, FLOW2, ...
    start_ns : event time of the start
    ticks_per_second : of event time, all instruments together, within a session
    session_seconds, quiet_seconds : length of a session, and of the pause after it; the pause is longer than the
        default `gap_seconds`, so the daemon resets there
    """

    def __init__(
        self,
        seed: int = 0,
        instruments: int = 8,
        *,
        start_ns: int = START_NS,
        ticks_per_second: float = 40.0,
        session_seconds: float = 120.0,
        quiet_seconds: float = 4000.0,
    ) -> None:
        self._random = Random(seed)
        names = [*(f"FLOW{number}" for number in range(1, instruments)), WALK]
        self._books = {name: _Book(name, number, self._random) for number, name in enumerate(names)}
        self._start_ns = start_ns
        self._wait_ns = 1e9 / ticks_per_second
        self._session_ns = round(session_seconds * 1e9)
        self._quiet_ns = round(quiet_seconds * 1e9)

    @property
    def instruments(self) -> tuple[str, ...]:
        """Names of the instruments."""
        return tuple(self._books)

    def ticks(self) -> Iterator[dict[str, Any]]:
        """Yield dicts with the keys of `Tick`, in the order of event time."""
        random = self._random
        books = list(self._books.values())
        shares = list(accumulate(book.share for book in books))
        now = self._start_ns
        close = now + self._session_ns
        while True:
            now += 1 + int(random.expovariate(1.0) * self._wait_ns)
            if now >= close:
                now += self._quiet_ns
                close = now + self._session_ns
                for book in books:
                    book.reopen(random)
            book = books[bisect(shares, random.random() * shares[-1])]
            yield book.tick(now, random)

    def conditional_mean(self, instrument: str, horizon: int) -> float:
        """Return the expected log return of the mid over the next `horizon` ticks of an instrument within its session.

        It follows from the hidden flow after the latest tick, so no model that sees only ticks can do better. First
        order in the returns: the term for their curvature, -variance / 2, is left out.
        """
        book = self._books[instrument]
        flow_sum = book.flow * (1 - PERSISTENCE**horizon) / (1 - PERSISTENCE)
        return QUOTE_SHARE * book.volatility * book.pull * flow_sum / (book.mid_halves / 2)


class _Book:
    """One instrument: its hidden flow and its quote. Prices are counted in half ticks, so the mid is an integer."""

    __slots__ = ("flow", "mid_halves", "name", "per_unit", "pull", "seq", "share", "spread", "volatility")

    def __init__(self, name: str, number: int, random: Random) -> None:
        self.name = name
        #: Ticks per unit of price: tick sizes of 0.01, 0.001 and 0.0001.
        self.per_unit: int = 10 ** (2 + number % 3)
        #: Odd, as the spread is an odd number of ticks.
        self.mid_halves = 2 * round(random.uniform(5_000, 15_000)) + 1
        #: Standard deviation of a quote's move before rounding, in ticks.
        self.volatility = (0.7, 1.0, 1.4, 2.0)[number % 4]
        self.pull = 0.0 if name == WALK else PULL
        #: How often it ticks, against the others.
        self.share = 1.0 / (1 + number % 4)
        self.spread = 1
        self.seq = 0
        self.flow = random.gauss(0.0, 1.0)

    def reopen(self, random: Random) -> None:
        """Start a session: another price, a flow that knows nothing of the last one."""
        self.flow = random.gauss(0.0, 1.0)
        self._move(random.gauss(0.0, 20.0 * self.volatility), random)

    def tick(self, ts: int, random: Random) -> dict[str, Any]:
        """Advance by one tick and return it."""
        flow = self.flow
        self.flow = PERSISTENCE * flow + math.sqrt(1 - PERSISTENCE**2) * random.gauss(0.0, 1.0)
        self.seq += 1
        if random.random() < QUOTE_SHARE:
            noise = math.sqrt(1 - self.pull**2) * random.gauss(0.0, 1.0)
            self._move(self.volatility * (self.pull * flow + noise), random)
            return self._quote(ts, random)
        return self._trade(ts, random)

    def _move(self, ticks: float, random: Random) -> None:
        """Move the mid by a whole number of ticks whose expectation is `ticks`; the price stays above 10 ticks."""
        self.mid_halves += 2 * math.floor(ticks + random.random())
        self.mid_halves = max(self.mid_halves, 21)

    def _quote(self, ts: int, random: Random) -> dict[str, Any]:
        self.spread = 1 if random.random() < 0.8 else 3
        depth = random.expovariate(0.02) + 10.0
        imbalance = math.tanh(0.6 * self.flow + 0.6 * random.gauss(0.0, 1.0))
        return {
            "instrument": self.name,
            "ts": ts,
            "bid": self._price(-self.spread),
            "ask": self._price(self.spread),
            "bid_size": round(depth * (1 + imbalance)) / 10,
            "ask_size": round(depth * (1 - imbalance)) / 10,
            "seq": self.seq,
        }

    def _trade(self, ts: int, random: Random) -> dict[str, Any]:
        buys = random.random() < 1 / (1 + math.exp(-1.2 * self.flow))
        return {
            "instrument": self.name,
            "ts": ts,
            "price": self._price(self.spread if buys else -self.spread),
            "size": round(random.expovariate(0.1) + 1.0) / 10,
            "aggressor": "buy" if buys else "sell",
            "seq": self.seq,
        }

    def _price(self, halves: int) -> float:
        # a division by a whole number gives the shortest decimal; a product with 0.01 would not
        return (self.mid_halves + halves) // 2 / self.per_unit
