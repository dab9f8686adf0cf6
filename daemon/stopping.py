"""Stopping on request: the first one finishes the batch in work, a second signal aborts.

Whoever asks may be a signal, or the end of standard input for a process that is not to outlive its parent. How long the
end may take is for the watchdog: see `Health.closing`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from threading import Thread
from types import FrameType

from daemon.errors import TickcastError

#: From the first request to the end of the process; the worst transaction takes 10 s.
DEADLINE_SECONDS = 20.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Aborted(TickcastError):
    """A second signal came before the first had been obeyed."""


class Stopper:
    """Turns SIGTERM, SIGINT and the wish of another thread into one call.

    Until it is installed nothing has begun that would have to be finished, and a request ends the process as SIGTERM
    does by itself.
    """

    def __init__(self) -> None:
        self._stop: Callable[[], None] | None = None
        self._asked = False

    def install(self, stop: Callable[[], None]) -> None:
        """Take over the signals; call it from the main thread.

        Parameters
        ----------
        stop : called on a request, in the main thread between two instructions or in the thread that asks: it may only
            set flags, and must bear being called twice
        """
        self._stop = stop
        for number in SIGNALS:
            signal.signal(number, self._received)

    def finish(self) -> None:
        """Give the signals back, when everything has been closed."""
        self._stop = _nothing
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def ask(self) -> None:
        """Stop as on a first signal, from any thread; asking again aborts nothing."""
        self._asked = True
        if self._stop is None:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._stop()

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise Aborted("stopped by a second signal before the batch was finished; its transaction is aborted")
        self.ask()


def _nothing() -> None:
    """Stop what has stopped."""


def when_input_ends(descriptor: int, ended: Callable[[], None]) -> None:
    """Call `ended`, in a thread of its own, once an input has come to its end.

    A pipe ends when all who could write into it are gone, however they went: that is how a worker learns, on any
    system, that its parent was killed.
    """
    Thread(target=_drain, args=(descriptor, ended), name="tickcast-leash", daemon=True).start()


def _drain(descriptor: int, ended: Callable[[], None]) -> None:
    while os.read(descriptor, 4096):
        pass
    ended()
