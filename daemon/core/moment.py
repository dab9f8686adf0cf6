"""One tick against its instrument before it: the numbers that features share, each computed once."""

from __future__ import annotations

from math import inf, log

from daemon.core.instrument import Instrument
from schemas import Tick


class Moment:
    """One tick against the instrument before it: the numbers that several features share."""

    __slots__ = (
        "ask",
        "ask_size",
        "before",
        "bid",
        "bid_size",
        "change",
        "imbalance",
        "log_return",
        "opened",
        "price",
        "spread",
        "tick",
        "wait_ns",
    )

    def __init__(self, tick: Tick, before: Instrument, opened: bool) -> None:
        self.tick = tick
        self.before = before
        #: True on the first tick of a session: differences to the session before say nothing about this one.
        self.opened = opened
        # The quote after this tick.
        latest = before if tick.bid is None else tick
        self.bid, self.ask, self.bid_size, self.ask_size = latest.bid, latest.ask, latest.bid_size, latest.ask_size
        self.price = self._reference_price()
        previous = before.price
        if opened or previous is None:
            self.change = self.log_return = 0.0
            self.wait_ns = 0
        else:
            self.change = self.price - previous
            self.log_return = _log_ratio(self.price, previous) if self.price > 0 and previous > 0 else 0.0
            self.wait_ns = max(tick.ts - before.last_ts, 0)

        self.spread = self._relative_spread()
        self.imbalance = self._imbalance()

    def _reference_price(self) -> float:
        """Return the price forecasts refer to: the mid of the latest quote, or the trade price where there is none.

        Forecasting the last trade would score bid-ask bounce as skill (Roll 1984).
        """
        if self.bid is not None and self.ask is not None:
            return self.bid / 2 + self.ask / 2  # the halves: a sum could overflow
        assert self.tick.price is not None  # a tick without a quote has a price
        return self.tick.price

    def _relative_spread(self) -> float:
        """Return ask minus bid over the reference price; 0 where there is no quote."""
        if self.bid is None or self.ask is None or self.price == 0:
            return 0.0
        return (self.ask - self.bid) / abs(self.price)

    def _imbalance(self) -> float:
        """Return (bid size - ask size) / (bid size + ask size) of the latest quote; 0 where it is not known."""
        bid_size, ask_size = self.bid_size, self.ask_size
        if bid_size is None or ask_size is None:
            return 0.0
        # Each side as a share: sums of huge sizes would overflow.
        largest = bid_size if bid_size > ask_size else ask_size
        if largest == 0:
            return 0.0
        bid_share, ask_share = bid_size / largest, ask_size / largest
        return (bid_share - ask_share) / (bid_share + ask_share)


def _log_ratio(price: float, previous: float) -> float:
    ratio = price / previous
    return log(ratio) if 0 < ratio < inf else log(price) - log(previous)
