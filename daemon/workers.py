"""Several daemons on one machine as one group: a parent that starts them, starts them again, and ends with them.

The parent works on no tick. It imports neither numpy nor Kafka's client, so it stays small and has nothing that could
hang. Each worker is an ordinary `tickcast run` with an instance id and a metrics port of its own.

    RUNS --- killed, or ended with 1 or 12 ---> WAITS --- after a pause ---> RUNS
      |                                           |
      |--- ended with 0: the others go on         |--- all stop ---> ENDED
      '--- any other code, or one restart too many within a minute: all stop ---> ENDED

The leash: standard input of each worker is a pipe into which nobody writes. Its other end is the parent's alone. When
the parent closes it, or dies in whatever way, the workers stop as on SIGTERM. A stop that came as a signal to both (a
service that signals its whole group) is then still one request: the end of a pipe never counts as a second signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Protocol

from daemon.errors import SettingsError, Stuck, TickcastError
from daemon.logs import facts, log
from daemon.stopping import DEADLINE_SECONDS, SIGNALS

#: Ends after which a worker is started again, beside being killed: nobody has to change anything first.
RESTARTABLE = (TickcastError.exit_code, Stuck.exit_code)
#: Pauses before the restarts that follow each other within `WINDOW_SECONDS`. None before the first: a worker that was
#: killed once is missed by its partitions at once. After the last one the cause is not one that a restart mends.
PAUSES_SECONDS = (0.0, 0.5, 1.0, 2.0, 4.0)
WINDOW_SECONDS = 60.0
#: How often the parent looks; also the time by which its reaction trails a signal.
LOOK_SECONDS = 0.1
#: Workers end themselves at the deadline; one that does not is beyond asking.
KILL_SECONDS = DEADLINE_SECONDS + 5.0
PORT_MAX = 65535


class Process(Protocol):
    """What we need of a child; `subprocess.Popen` has it."""

    pid: int

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        ...

    def send_signal(self, number: int, /) -> None:
        """Send a signal."""
        ...


@dataclass
class Worker:
    """One place in the group, and the process that holds it now."""

    index: int
    process: Process | None = None
    #: When to start it again, or None.
    due: float | None = None
    #: Times of its restarts within the last `WINDOW_SECONDS`.
    restarts: deque[float] = field(default_factory=deque)

    @property
    def ended(self) -> bool:
        """True once nothing runs here and nothing will."""
        return self.process is None and self.due is None


class Workers:
    """Supervises the workers; `turn` looks once and never waits.

    Parameters
    ----------
    count : how many
    start : starts the process of a place
    let_go : drops the leash, so that all workers stop; called once
    clock : seconds, monotonic
    """

    def __init__(
        self,
        count: int,
        start: Callable[[int], Process],
        let_go: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._start_process = start
        self._let_go = let_go
        self._clock = clock
        self._workers = [Worker(index) for index in range(count)]
        self._stopping_since: float | None = None
        self._killed = False
        #: What the parent ends with: the code of the first worker that stopped them all, else 0.
        self.exit_code = 0

    def start(self) -> None:
        """Start all of them."""
        for worker in self._workers:
            self._start(worker)

    def turn(self) -> bool:
        """Take note of who ended, start again who is due, and return whether anybody is left."""
        for worker in self._workers:
            code = worker.process.poll() if worker.process else None
            if code is not None:
                self._ended(worker, code)
        for worker in self._workers:
            if worker.due is not None and self._clock() >= worker.due:
                self._start(worker)
        if self._stopping_since is not None and self._clock() - self._stopping_since > KILL_SECONDS:
            self._kill()
        return not all(worker.ended for worker in self._workers)

    def stop(self) -> None:
        """Let all workers finish their batch and end."""
        if self._stopping_since is not None:
            return
        self._stopping_since = self._clock()
        for worker in self._workers:
            worker.due = None
        self._let_go()

    def received(self, number: int) -> None:
        """Stop on a first signal; pass a second one on, so that the workers abort."""
        if self._stopping_since is None:
            self.stop()
        else:
            self._signal(number)

    def _start(self, worker: Worker) -> None:
        worker.due = None
        worker.process = self._start_process(worker.index)
        log.info("worker starts", extra=facts(worker=worker.index, pid=worker.process.pid))

    def _ended(self, worker: Worker, code: int) -> None:
        worker.process = None
        if self._stopping_since is not None:
            # a worker that was still starting has no other answer to the leash than to die of SIGTERM
            if code not in (0, -signal.SIGTERM):
                log.error(f"worker {how(code)} while stopping", extra=facts(worker=worker.index))
                self.exit_code = self.exit_code or own_code(code)
        elif code == 0:
            log.info("worker ended, the others go on", extra=facts(worker=worker.index))
        elif code < 0 or code in RESTARTABLE:
            self._again(worker, code)
        else:
            log.error(f"worker {how(code)}, all stop", extra=facts(worker=worker.index))
            self._fail(code)

    def _again(self, worker: Worker, code: int) -> None:
        """Plan a restart, unless there were too many."""
        now = self._clock()
        while worker.restarts and now - worker.restarts[0] > WINDOW_SECONDS:
            worker.restarts.popleft()
        count = len(worker.restarts)
        if count == len(PAUSES_SECONDS):
            log.error(
                f"worker {how(code)}, after {count} restarts within {WINDOW_SECONDS:.0f} s, all stop; "
                "its own lines say why it ends",
                extra=facts(worker=worker.index),
            )
            self._fail(own_code(code))
            return
        worker.restarts.append(now)
        worker.due = now + PAUSES_SECONDS[count]
        pause = PAUSES_SECONDS[count]
        log.warning(f"worker {how(code)}, starts again", extra=facts(worker=worker.index, pause_seconds=pause))

    def _fail(self, code: int) -> None:
        self.exit_code = code
        self.stop()

    def _kill(self) -> None:
        if not self._killed:
            self._killed = True
            log.error(f"workers still running {KILL_SECONDS:.0f} s after the request to stop are killed")
            self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.send_signal(number)


def run_workers(count: int, arguments: Sequence[str], instance_id: str, port: int) -> int:
    """Run workers until they are stopped; SIGTERM and SIGINT stop them, a second one aborts them.

    Parameters
    ----------
    count : at least 1
    arguments : what each worker is called with, after the program
    instance_id : worker k runs as `<instance_id>-<k>`
    port : worker k serves its metrics at `port + k`; 0 stays 0, each takes a free one

    Returns
    -------
    0 when all ended with 0, else the code of the first that stopped the others

    Raises
    ------
    SettingsError : there are not so many ports
    """
    if port and port + count - 1 > PORT_MAX:
        raise SettingsError(
            f"metrics.port = {port} and {count} workers need ports up to {port + count - 1}, above {PORT_MAX}; "
            "set a smaller one, or 0 for free ones"
        )
    with _leash() as (read_end, let_go):

        def start(index: int) -> Process:
            # Into our own environment, which the child inherits: settings are read from it in one place only.
            os.environ["TICKCAST_KAFKA__INSTANCE_ID"] = f"{instance_id}-{index}"
            os.environ["TICKCAST_METRICS__PORT"] = str(port + index if port else 0)
            command = [sys.executable, "-m", "daemon.cli.main", *arguments]
            # A session of its own: Ctrl-C in the terminal reaches us alone.
            return subprocess.Popen(command, stdin=read_end, start_new_session=True)

        workers = Workers(count, start, let_go)
        signals = _received_signals()
        workers.start()
        while workers.turn():
            while signals:
                workers.received(signals.popleft())
            time.sleep(LOOK_SECONDS)
    log.info("all workers ended", extra=facts(exit_code=workers.exit_code))
    return workers.exit_code


def how(code: int) -> str:
    """Say how a process ended."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def own_code(code: int) -> int:
    """Return a code that the parent can end with: a signal is none."""
    return code if code > 0 else TickcastError.exit_code


@contextmanager
def _leash() -> Iterator[tuple[int, Callable[[], None]]]:
    """Yield the workers' end of a pipe, and what closes ours; it is closed at the end in any case."""
    read_end, write_end = os.pipe()
    ours = os.fdopen(write_end, "wb")
    try:
        yield read_end, ours.close
    finally:
        ours.close()
        os.close(read_end)


def _received_signals() -> deque[int]:
    """Take over the signals; they arrive in the queue that is returned."""
    received: deque[int] = deque()

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    for number in SIGNALS:
        signal.signal(number, note)
    return received
