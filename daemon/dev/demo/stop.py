"""How the demo is stopped, and that nothing it started outlives it."""

from __future__ import annotations

import contextlib
import signal
from types import FrameType, TracebackType
from typing import Literal, Self

import psutil  # type: ignore[import-untyped]

#: Ctrl-C, `kill`, and a terminal that is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CHILD_SECONDS = 5.0

#: What a signal does. "raise": KeyboardInterrupt, wherever we are; right while we only wait for others. "note": it is
#: counted, and the loop looks; an exception out of a consumer's poll would lose the records it had in hand.
#: "ignore": we are closing already, in bounded time.
Answer = Literal["raise", "note", "ignore"]


class Interrupts:
    """Takes over the signals as a context manager, and ends every child process that is left at its end.

    A signal may come between the start of a process and the line that notes it, so at the end the system is asked for
    our children instead of trusting any list of our own.
    """

    def __init__(self) -> None:
        self.answer: Answer = "raise"
        #: Signals received so far.
        self.count = 0

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._received) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.answer = "ignore"
        _end_children()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.answer == "raise":
            raise KeyboardInterrupt


def _end_children() -> None:
    children = psutil.Process().children(recursive=True)
    for child in children:
        _signal(child, signal.SIGTERM)
    for child in psutil.wait_procs(children, CHILD_SECONDS)[1]:
        _signal(child, signal.SIGKILL)


def _signal(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)
