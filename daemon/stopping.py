"""Stopping on a signal: the first one finishes the batch in work, a second one or the deadline aborts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from threading import Timer
from types import FrameType

from daemon.errors import TickcastError
from daemon.logs import log

#: From the first signal to the end of the process; the worst transaction takes 10 s.
DEADLINE_SECONDS = 20.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Aborted(TickcastError):
    """A second signal came before the first had been obeyed."""


class Stopper:
    """Turns SIGTERM and SIGINT into calls.

    Parameters
    ----------
    stop : called once, on the first signal, in the main thread between two instructions: it may only set a flag
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._deadline: Timer | None = None

    def install(self) -> None:
        """Take over the signals; call it from the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._received)

    def finish(self) -> None:
        """Disarm the deadline and give the signals back, when everything has been closed."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline.join()
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._deadline is not None:
            raise Aborted("stopped by a second signal before the batch was finished; its transaction is aborted")
        self._deadline = Timer(DEADLINE_SECONDS, _give_up)
        self._deadline.daemon = True
        self._deadline.start()
        self._stop()


def _give_up() -> None:
    """End the process from another thread: the main one hangs in a call that nobody can interrupt."""
    log.error(f"not stopped within {DEADLINE_SECONDS:.0f} s; the open transaction is left to its timeout")
    os._exit(TickcastError.exit_code)
