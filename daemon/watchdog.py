"""Ends a process that hangs: one line, the stacks of all threads, an exit code of its own.

kafka-python has calls without a timeout, and a poll that spins for ever (both measured). Nobody can interrupt such a
call from within, and a daemon that hangs is worse than one that ended: it holds its partitions and says nothing. So a
thread of its own looks at `Health` twice a second and ends the process, whose supervisor starts it again; what was
open is aborted by the next start.

It goes on looking until the process is gone, since the last thing that can hang is the end of the interpreter.

Limits: it is a thread of Python, so a call in C that keeps the interpreter's lock for ever stops it too; `/livez` does
not answer then either. And as process 1 of a container the alarm below has no effect.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

from daemon.errors import Stuck, TickcastError
from daemon.health import Hang, Health
from daemon.logs import facts, log

#: Often enough against settings in seconds; a look itself takes 0.7 us.
LOOK_SECONDS = 0.5
#: A look that comes later than this was held up by a pause of the whole process (SIGSTOP, a virtual machine that was
#: frozen), and that time counts for nothing. Eight threads spinning beside it delayed a look by 0.3 s at most.
LATE_SECONDS = 2.0
#: How long the last words may take: what hangs may be whoever reads our standard error.
LAST_WORDS_SECONDS = 5.0


class Watchdog:
    """Looks at the health of the loop on a thread of its own.

    Parameters
    ----------
    give_up : called once with the first hang found; it is not meant to return
    clock : seconds, monotonic
    """

    def __init__(
        self, health: Health, give_up: Callable[[Hang], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._health = health
        self._give_up = give_up
        self._clock = clock
        self._looked = clock()
        self._closed = Event()
        self._thread = Thread(target=self._watch, name="tickcast-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._looked = self._clock()
        self._thread.start()

    def close(self) -> None:
        """Stop looking; for a process that lives on."""
        self._closed.set()
        self._thread.join()

    def look(self) -> bool:
        """Look once, give up where something hangs, and return whether something did."""
        now = self._clock()
        late_seconds = now - self._looked - LATE_SECONDS
        self._looked = now
        if late_seconds > 0:
            self._health.unseen(late_seconds)
        hang = self._health.hang()
        if hang is not None:
            self._give_up(hang)
        return hang is not None

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            if self.look():
                return


def end_process(hang: Hang) -> None:
    """Say what hangs and since when, show where every thread is, and end the process without asking anybody.

    A stop that is cut short in an announced wait shows no stacks and ends with the code of an aborted shutdown: there
    the world is away, and nothing of ours is wrong.
    """
    # The dump holds the interpreter's lock while it writes: if nobody reads, only the system can end us.
    signal.alarm(round(2 * LAST_WORDS_SECONDS))
    speaking = Thread(target=_last_words, args=(hang,), name="tickcast-last-words", daemon=True)
    speaking.start()
    speaking.join(LAST_WORDS_SECONDS)
    os._exit(_exit_code(hang))


def _last_words(hang: Hang) -> None:
    since = datetime.now(UTC) - timedelta(seconds=hang.seconds)
    log.error(
        f"{hang}; the process ends, what was open is aborted by the next start",
        extra=facts(since=since.isoformat(timespec="milliseconds"), exit_code=_exit_code(hang)),
    )
    if not hang.announced:
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)


def _exit_code(hang: Hang) -> int:
    return (TickcastError if hang.announced else Stuck).exit_code
