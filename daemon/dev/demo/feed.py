"""Where the demo's ticks come from, and the thread that produces them at their own pace."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from threading import Event, Thread
from typing import Any, Protocol

from daemon.dev.market import WALK, Market
from daemon.dev.replay import TickProducer, paced
from daemon.errors import TickcastError, TickFileError
from daemon.tick_files import read_ticks

Tick = Mapping[str, Any]


class Ticks(Protocol):
    """A market with a past to learn from, and a present."""

    #: What past and present are, for people.
    past_title: str
    present_title: str
    #: Silence of event time that ends a session.
    gap_seconds: float

    def key(self) -> str:
        """Return what the past depends on, so that a model of it can be kept."""
        ...

    def past(self) -> Iterator[Tick]:
        """Yield the ticks to train on."""
        ...

    def present(self) -> Iterator[Tick]:
        """Yield the ticks after those."""
        ...


class SimulatedTicks:
    """The simulated market; its present goes on where the past ended, with event time moved to now.

    Sessions and pauses are short, so that a minute shows states that reset where a session opens.
    """

    gap_seconds = 2.0

    #: Five minutes of market at the usual pace: enough for skill to show, and trained in half a minute on two cores.
    _PAST_COUNT = 60_000

    def __init__(self, instruments: int = 8, ticks_per_second: float = 200.0) -> None:
        self._settings: Mapping[str, Any] = {
            "seed": 1,
            "instruments": instruments,
            "ticks_per_second": ticks_per_second,
            "session_seconds": 20.0,
            "quiet_seconds": 3.0,
        }
        self.past_title = f"{self._PAST_COUNT:,} ticks of a simulated market"
        self.present_title = f"simulated, {ticks_per_second:g} ticks/s; {WALK} is a pure random walk"

    def key(self) -> str:
        """Return the settings; the market is a function of them."""
        return json.dumps({**self._settings, "count": self._PAST_COUNT})

    def past(self) -> Iterator[Tick]:
        """Yield the first ticks of the market."""
        return islice(self._ticks(), self._PAST_COUNT)

    def present(self) -> Iterator[Tick]:
        """Yield the ticks after those; the first is at the time it is asked for.

        They have no `seq`: a market that is started again begins at the same tick, and a number that does not grow
        makes a duplicate.
        """
        shift = None
        for tick in islice(self._ticks(), self._PAST_COUNT, None):
            shift = time.time_ns() - tick["ts"] if shift is None else shift
            yield {name: value for name, value in tick.items() if name != "seq"} | {"ts": tick["ts"] + shift}

    def _ticks(self) -> Iterator[Tick]:
        return Market(**self._settings).ticks()


class FileTicks:
    """A tick file: its first half is the past, its second the present, event times as they stand.

    Raises
    ------
    TickFileError : the file cannot be read, or holds hardly anything
    """

    gap_seconds = 3600.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self._half = sum(1 for _ in read_ticks([path], in_order=False)) // 2
        if self._half < 1:
            raise TickFileError(f"{path}: holds fewer than two ticks; give a longer file")
        self.past_title = f"first half of {path.name}"
        self.present_title = f"second half of {path.name}"

    def key(self) -> str:
        """Return the hash of the file."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def past(self) -> Iterator[Tick]:
        """Yield the first half."""
        return islice(read_ticks([self._path], in_order=False), self._half)

    def present(self) -> Iterator[Tick]:
        """Yield the second half."""
        return islice(read_ticks([self._path], in_order=False), self._half, None)


class Feed(Thread):
    """Produces ticks when they are due, until they end or it is told to stop.

    A thread of its own, so that drawing a table never delays a tick.
    """

    def __init__(self, producer: TickProducer, ticks: Iterable[Tick]) -> None:
        super().__init__(name="feed", daemon=True)
        self._producer = producer
        self._ticks = ticks
        self._stopping = Event()
        self._failure: TickcastError | None = None

    def run(self) -> None:
        """Send, and wait at the end until all is acknowledged."""
        try:
            for tick in paced(self._ticks, 1.0, wait=self._stopping.wait):
                if self._stopping.is_set():
                    break
                self._producer.send(tick)
            self._producer.flush()
        except TickcastError as error:
            self._failure = error

    def stop(self) -> int:
        """End it; return how many ticks the broker has acknowledged.

        Raises
        ------
        TickcastError : what ended it before, e.g. a broker that went away
        """
        self._stopping.set()
        self.join()
        if self._failure is not None:
            raise self._failure
        return self._producer.acknowledged_count
