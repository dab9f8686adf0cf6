"""One port for people and machines that look: `/metrics`, `/livez` (the loop turns), `/readyz` (forecasts can flow)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from daemon.errors import SettingsError


class Health:
    """What the loop says of itself; other threads only read.

    Parameters
    ----------
    stuck_seconds : the loop counts as dead after so long without a turn
    clock : seconds, monotonic
    """

    def __init__(self, stuck_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stuck_seconds = stuck_seconds
        self._clock = clock
        self._last_turn = clock()
        #: Why we are not ready, or None where we are.
        self.waiting_for: str | None = "starting"

    def turned(self) -> None:
        """Note that the loop has turned."""
        self._last_turn = self._clock()

    @property
    def alive(self) -> bool:
        """True while the loop turns; a broker that is away or a lag that grows does not matter here."""
        return self._clock() - self._last_turn <= self._stuck_seconds


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are no news."""


class _Server(WSGIServer):
    """One thread answers one request after the other: a scrape is rare, and the loop needs the processor."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.timeout = 10


class HealthServer:
    """Serves metrics and probes on a thread of its own.

    Raises
    ------
    SettingsError : the port is taken or the address is not ours
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, health: Health) -> None:
        self._health = health
        self._metrics = make_wsgi_app(registry)
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
            return cast(Iterable[bytes], self._metrics(environ, start_response))
        if path == "/livez":
            alive = self._health.alive
            return _text(start_response, alive, "alive" if alive else "the loop does not turn")
        if path == "/readyz":
            waiting_for = self._health.waiting_for
            return _text(start_response, waiting_for is None, waiting_for or "ready")
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"tickcast serves /metrics, /livez and /readyz\n"]


def _text(start_response: StartResponse, good: bool, text: str) -> list[bytes]:
    status = "200 OK" if good else "503 Service Unavailable"
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [f"{text}\n".encode()]
