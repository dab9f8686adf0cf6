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

from daemon.dev.market import Market
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

    past_title = "five minutes of a simulated market"
    present_title = "simulated, 200 ticks/s; WALK is a pure random walk"
    gap_seconds = 2.0

    _SETTINGS: Mapping[str, Any] = {
        "seed": 1,
        "instruments": 8,
        "ticks_per_second": 200.0,
        "session_seconds": 20.0,
        "quiet_seconds": 3.0,
    }
    #: Five minutes of market: enough for skill to show, and trained in half a minute on two cores.
    _PAST_COUNT = 60_000

    def key(self) -> str:
        """Return the settings; the market is a function of them."""
        return json.dumps({**self._SETTINGS, "count": self._PAST_COUNT})

    def past(self) -> Iterator[Tick]:
        """Yield the first ticks of the market."""
        return islice(Market(**self._SETTINGS).ticks(), self._PAST_COUNT)

    def present(self) -> Iterator[Tick]:
        """Yield the ticks after those; the first is at the time it is asked for."""
        later = islice(Market(**self._SETTINGS).ticks(), self._PAST_COUNT, None)
        shift = None
        for tick in later:
            shift = time.time_ns() - tick["ts"] if shift is None else shift
            yield {**tick, "ts": tick["ts"] + shift}


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
