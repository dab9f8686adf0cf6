"""What a page is sent, and when: server-sent events, composed at the moment at which they can go out.

Two events. `board`, twice a second: how things are, the list of instruments, the figures of the chosen one.
`forecasts`, up to thirty times a second: the forecasts of the chosen instrument since the last time, as they stand in
the topic. Nothing is queued: a page that is slow is asked later, and then gets what is newest, not what it missed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import orjson

from daemon.web.board import Board
from daemon.web.listing import Listing, Seen

FRAME_SECONDS = 1 / 30
BOARD_SECONDS = 0.5
#: Of a faster instrument a sample is sent, evenly spaced, the newest always among it: 1,200 forecasts a second.
FORECASTS_PER_FRAME = 40
#: Rows of the list; the search finds the others.
ROWS_MAX = 100


class Viewer:
    """One open page: what it looks at, and how far it has come.

    Parameters
    ----------
    instrument : the one shown in detail; empty for the first of the list
    search : text that the listed names hold
    epoch, after : the epoch and number of the newest forecast that the page has, so that it is not sent again
    """

    def __init__(
        self, board: Board, *, instrument: str = "", search: str = "", epoch: str = "", after: int = 0
    ) -> None:
        self._board = board
        self._instrument = instrument
        self._search = search
        self._epoch = epoch
        self._sent = after
        #: The first time, all that is kept is sent.
        self._is_new = True
        self._board_due = 0.0

    def frame(self, now: float, trouble: str | None) -> bytes:
        """Return the events that are due, nothing where there is nothing to say.

        Parameters
        ----------
        now : seconds, monotonic
        trouble : why Kafka cannot be read, None where it can
        """
        if self._board.epoch != self._epoch:
            self._epoch, self._sent, self._is_new = self._board.epoch, 0, True
        events = []
        if now >= self._board_due:
            self._board_due = now + BOARD_SECONDS
            events.append(event("board", self._describe(trouble)))
        listing = self._board.listing(self._instrument)
        if listing is not None and listing.number > self._sent:
            seen = listing.after(self._sent)
            self._sent = listing.number
            events.append(event("forecasts", _forecasts(listing, seen if self._is_new else sample(seen))))
            self._is_new = False
        return b"".join(events)

    def _describe(self, trouble: str | None) -> Any:
        board = self._board
        names, found_count = board.search(self._search, ROWS_MAX)
        if not self._instrument and names:
            self._instrument = names[0]
        p50, p99 = board.latency_ms(50, 99)
        return {
            "epoch": board.epoch,
            "topics": board.topics,
            "trouble": trouble,
            "now_ms": round(time.time() * 1000),
            "newest_ms": board.newest_ms,
            "per_second": {role: board.rate(role) for role in ("ticks", "forecasts")},
            "waiting_count": board.waiting_count,
            "waiting_since_ms": board.waiting_since_ms,
            "unreadable_count": board.unreadable_count,
            "latency_ms": {"p50": p50, "p99": p99},
            "instrument_count": len(board.names()),
            "found_count": found_count,
            "rows": [_row(listing) for name in names if (listing := board.listing(name)) is not None],
            "instrument": _figures(self._instrument, board.listing(self._instrument)),
        }


def event(name: str, content: Any) -> bytes:
    """Return one server-sent event; whatever line ends its content has, it stays one."""
    lines = orjson.dumps(content).splitlines()
    return b"event: %s\n%s\n\n" % (name.encode(), b"\n".join(b"data: " + line for line in lines))


def sample(seen: Sequence[Seen]) -> Sequence[Seen]:
    """Return at most `FORECASTS_PER_FRAME`, evenly spaced, the newest always among them."""
    stride = -(-len(seen) // FORECASTS_PER_FRAME)
    return seen if stride <= 1 else seen[::-1][::stride][::-1]


def _forecasts(listing: Listing, seen: Sequence[Seen]) -> Any:
    return {
        "instrument": listing.name,
        "forecasts": [
            {"number": each.number, "latency_ms": each.latency_ms, "forecast": orjson.Fragment(each.value)}
            for each in seen
        ],
    }


def _row(listing: Listing) -> Any:
    forecast, index = listing.forecast, listing.horizon_index
    if forecast is None or index is None or listing.judge is None:
        return {"name": listing.name, "price": listing.price, "horizon": None, "mean": None, "at": None}
    return {
        "name": listing.name,
        "price": listing.price if listing.price is not None else forecast.price,
        "horizon": forecast.horizons[index],
        "mean": forecast.mean[index],
        # what the mean is held against: the price at which the forecast was made
        "at": forecast.price,
    }


def _figures(name: str, listing: Listing | None) -> Any:
    """Describe the chosen instrument; what is not known is None."""
    if listing is None:
        return {"name": name, "price": None, "price_ts_ms": 0, "latency_ms": None, "variance_count": 0, "horizons": []}
    judge = listing.judge
    return {
        "name": name,
        "price": listing.price,
        "price_ts_ms": listing.price_ts / 1e6,
        "latency_ms": listing.latency_ms,
        "variance_count": judge.kept_count if judge else 0,
        "horizons": [
            {
                "horizon": horizon,
                "judged_count": judge.errors[index].judged_count,
                "skill": judge.errors[index].skill,
                "variance": judge.variance(index),
            }
            for index, horizon in enumerate(judge.horizons)
        ]
        if judge
        else [],
    }
