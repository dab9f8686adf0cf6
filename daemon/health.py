"""What the loop says of itself, and one port for people and machines that look.

`/metrics`, `/livez` (we go on), `/readyz` (forecasts can flow). Going on means two things, and neither is about the
broker or the size of a lag: the loop turns, and where ticks wait that the broker would give us, something comes of it.

Invariants
----------
- Only the loop's thread tells, all others look, and nothing here takes a lock: a signal handler may tell too, and who
  looks must not wait for one that hangs.
- A bounded wait for the world is announced (`allowing`) and moves the deadline of that call only.
- Time in which the process itself was paused counts for nothing (`unseen`): a SIGSTOP is not a hang.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from socketserver import ThreadingMixIn
from threading import BoundedSemaphore, Lock, Thread
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from daemon.errors import SettingsError

#: A request is one line and a few headers.
SILENT_SECONDS = 5.0
#: Requests at a time. A probe and two scrapes need three; a thread costs the loop nothing while it waits.
REQUESTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Hang:
    """What does not go on."""

    #: A sentence without its end, e.g. "the loop has not turned".
    what: str
    #: For how long.
    seconds: float
    #: True where an end is cut short inside an announced call that had time left: the world is away, we are not stuck.
    announced: bool = False

    def __str__(self) -> str:
        return f"{self.what} for {self.seconds:.0f} s"


@dataclass(frozen=True, slots=True)
class _Call:
    """An announced call that is running."""

    what: str
    since: float
    #: How long it may take by its own account.
    seconds: float


@dataclass(frozen=True, slots=True)
class _Lag:
    """Ticks that wait."""

    ticks: int
    #: Since when nothing has come of them.
    idle_since: float
    #: When they were last counted.
    seen: float


class Health:
    """What the loop says of itself; other threads only read.

    Parameters
    ----------
    stuck_seconds : the loop counts as stuck after so long without a turn, or without progress while ticks wait
    clock : seconds, monotonic
    """

    def __init__(self, stuck_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stuck_seconds = stuck_seconds
        self._clock = clock
        #: Seconds so far in which nobody could look.
        self._unseen = 0.0
        self._last_turn = clock()
        self._lag: _Lag | None = None
        #: The innermost of those that are running.
        self._call: _Call | None = None
        #: Since when the process is to end, and when it must be gone.
        self._closing: tuple[float, float] | None = None
        #: Why we are not ready, or None where we are; for people, e.g. "restoring 2 partitions, 12,000 ticks to go".
        self.waiting_for: str | None = "starting"

    def turned(self) -> None:
        """Note that the loop has turned."""
        self._last_turn = self._now()

    def progressed(self) -> None:
        """Note that outcomes were committed, or that a recovery has come further."""
        if self._lag is not None:
            self._lag = replace(self._lag, idle_since=self._now())

    def lagging(self, lag_ticks: int) -> None:
        """Note how many ticks wait, each time that they have been counted.

        Parameters
        ----------
        lag_ticks : above 0 only where the broker has just answered, else 0: what nobody can fetch is no lag of ours
        """
        if lag_ticks <= 0:
            self._lag = None
            return
        now = self._now()
        self._lag = _Lag(lag_ticks, self._lag.idle_since if self._lag else now, now)

    @contextmanager
    def allowing(self, seconds: float, what: str) -> Iterator[None]:
        """Announce a call that ends by itself within `seconds`; it counts as stuck `stuck_seconds` after that.

        Its time counts for nothing else: not as a turn, not as time without progress, and where such calls contain each
        other, that of the inner one not for the outer one.

        Parameters
        ----------
        what : what is waited for, e.g. "a broker"
        """
        outer, began = self._call, self._now()
        self._call = _Call(what, began, seconds)
        try:
            yield
        finally:
            # the clocks before the call: who looks in between must find one of the two
            now = self._last_turn = self._now()
            if self._lag is not None:
                self._lag = replace(self._lag, idle_since=self._lag.idle_since + now - began)
            self._call = outer and replace(outer, seconds=outer.seconds + now - began)

    def closing(self, seconds: float) -> None:
        """Note that the process ends, and must be gone within `seconds`; of several calls the first one counts."""
        if self._closing is None:
            now = self._now()
            self._closing = now, now + seconds

    def unseen(self, seconds: float) -> None:
        """Take time out of all counts; the watchdog calls it after a pause of the whole process."""
        self._unseen += seconds

    def hang(self) -> Hang | None:
        """Return what does not go on, or None; any thread may ask."""
        now, call, closing = self._now(), self._call, self._closing
        if closing is not None:
            return _close_hang(*closing, call, now)
        if call is not None:
            taken = now - call.since
            late = taken > call.seconds + self._stuck_seconds
            return Hang(f"the wait for {call.what} has not ended", taken) if late else None
        if now - self._last_turn > self._stuck_seconds:
            return Hang("the loop has not turned", now - self._last_turn)
        return self._idle_hang()

    def _idle_hang(self) -> Hang | None:
        """Judge progress up to when the lag was last counted, not up to now: the broker may have gone since."""
        lag = self._lag
        if lag is None or lag.seen - lag.idle_since <= self._stuck_seconds:
            return None
        return Hang(f"the loop turns without progress while {lag.ticks:,} ticks wait", lag.seen - lag.idle_since)

    def _now(self) -> float:
        return self._clock() - self._unseen


def _close_hang(since: float, until: float, call: _Call | None, now: float) -> Hang | None:
    if now <= until:
        return None
    if call is None:
        return Hang("closing has not ended", now - since)
    if now - call.since <= call.seconds:
        return Hang(f"the end was put off by a wait for {call.what}", now - since, announced=True)
    return Hang(f"the wait for {call.what} has not ended", now - call.since)


class _Quiet(WSGIRequestHandler):
    #: Who sends nothing for so long is hung up on.
    timeout = SILENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each of a few requests: one that says nothing must not keep a probe waiting."""

    daemon_threads = True
    request_queue_size = REQUESTS_MAX

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._free = BoundedSemaphore(REQUESTS_MAX)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread; who comes when all are busy is hung up on."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who goes away before the answer, or never asks, is no news either."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class HealthServer:
    """Serves metrics and probes on a thread of its own.

    Raises
    ------
    SettingsError : the port is taken or the address is not ours
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        self._health = health
        self._metrics = make_wsgi_app(registry)
        #: One scrape at a time, however many look: the loop needs the processor.
        self._scraping = Lock()
        try:
            self._server = make_server(host, port, self._answer, server_class=_Server, handler_class=_Quiet)
        except OSError as error:
            raise SettingsError(
                f"metrics.port = {port}: cannot listen on {host}: {error.strerror}; set another, or 0 for a free one"
            ) from error
        self.port = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, name="tickcast-health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            with self._scraping:
                return cast(Iterable[bytes], self._metrics(environ, start_response))
        if path == "/livez":
            hang = self._health.hang()
            return _text(start_response, hang is None, str(hang) if hang else "alive")
        if path == "/readyz":
            waiting_for = self._health.waiting_for
            return _text(start_response, waiting_for is None, waiting_for or "ready")
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"tickcast serves /metrics, /livez and /readyz\n"]


def _text(start_response: StartResponse, good: bool, text: str) -> list[bytes]:
    status = "200 OK" if good else "503 Service Unavailable"
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
