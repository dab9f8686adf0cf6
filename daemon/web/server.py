"""The page behind HTTP: its files, and one stream of events for each page that is open.

One loop owns the board: it waits for the reader in a thread, takes what came, and answers pages in between, so nothing
is locked. A page that does not read blocks its own stream alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Collection, Iterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from daemon.errors import SettingsError, TickcastError
from daemon.logs import facts, log
from daemon.transport.kafka_follower import KafkaFollower
from daemon.web.board import Board
from daemon.web.files import Files
from daemon.web.frames import FRAME_SECONDS, Viewer
from daemon.web.guard import Guard

#: Pages open at once. Each costs a wake-up 30 times a second and one composed frame.
VIEWERS_MAX = 32
#: Connections at once, those that fetch files too; browsers hold up to six.
CONNECTIONS_MAX = 256
POLL_SECONDS = 0.1
#: Between two polls: half a frame. One poll for each fetch of the client would be hundreds of a few records a second.
GATHER_SECONDS = FRAME_SECONDS / 2
#: After a failure that may pass.
RETRY_SECONDS = 1.0
#: Streams end within a frame; this is for a page that does not read.
CLOSE_SECONDS = 2
#: What is on its way to a page that does not read is old news; the system would take megabytes of it.
SEND_BUFFER_BYTES = 128 * 1024
#: Longest name or search that is looked at; an instrument's name has at most 64 characters.
TEXT_MAX = 64


class Page:
    """The application, and the loop that feeds it.

    Parameters
    ----------
    names : host names by which the page is reached, beside addresses and localhost
    """

    def __init__(self, board: Board, names: Collection[str] = ()) -> None:
        self._board = board
        #: Why Kafka cannot be read, None where it can.
        self.trouble: str | None = None
        self._viewer_count = 0
        #: Set once the process ends.
        self.is_closing = False
        routes = [Route("/events", self._events), Route("/{path:path}", Files().answer)]
        self.app = Guard(Starlette(routes=routes), names)

    async def follow(self, follower: KafkaFollower) -> None:
        """Feed the board until the process ends.

        Raises
        ------
        TickcastError : one that does not pass by itself
        """
        while not self.is_closing:
            try:
                followed = await asyncio.to_thread(follower.poll, POLL_SECONDS)
            except TickcastError as error:
                if not error.retriable:
                    raise
                if self.trouble is None:
                    log.warning("Kafka cannot be read, trying again", extra=facts(reason=str(error)))
                self.trouble = str(error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if self.trouble is not None:
                log.info("Kafka is read again")
            self.trouble = None
            if followed.anew:
                self._board.clear()
            self._board.take(followed.records)
            await asyncio.sleep(GATHER_SECONDS)

    async def _events(self, request: Request) -> Response:
        if self._viewer_count >= VIEWERS_MAX:
            text = f"{VIEWERS_MAX} pages are open already\n"
            return PlainTextResponse(text, 503, {"Retry-After": "5"})
        asked = request.query_params
        after = asked.get("after", "")
        viewer = Viewer(
            self._board,
            instrument=asked.get("instrument", "")[:TEXT_MAX],
            search=asked.get("search", "")[:TEXT_MAX],
            epoch=asked.get("epoch", ""),
            after=int(after) if after.isdecimal() and len(after) < 16 else 0,
        )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._frames(viewer), media_type="text/event-stream", headers=headers)

    async def _frames(self, viewer: Viewer) -> AsyncIterator[bytes]:
        """Yield what is due, a frame apart; where the page is slow, the wait for it is in the `yield`."""
        clock = asyncio.get_running_loop().time
        self._viewer_count += 1
        try:
            while not self.is_closing:
                began = clock()
                frame = viewer.frame(began, self.trouble)
                if frame:
                    yield frame
                await asyncio.sleep(max(0.0, began + FRAME_SECONDS - clock()))
        finally:
            self._viewer_count -= 1


def listen(host: str, port: int) -> socket.socket:
    """Take a port, 0 for a free one.

    Raises
    ------
    SettingsError : it is taken, or the address is not ours
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(
            f"--port {port}: cannot listen on {host}: {error.strerror}; give another, or 0 for a free one"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return listener


async def serve(page: Page, follower: KafkaFollower, listener: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises
    ------
    TickcastError : the topics cannot be read, and that does not pass by itself
    """
    # A proxy's headers are nobody's word here, and requests are no news.
    config = uvicorn.Config(
        page.app,
        http="h11",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=CLOSE_SECONDS,
    )
    server = _Server(config)

    def stop() -> None:
        page.is_closing = server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await page.follow(follower)
    finally:
        stop()
        await serving
        follower.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to us: uvicorn would raise them again at its end, and the process would die of them."""
        yield
