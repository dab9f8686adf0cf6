"""The watchdog: a look at a clock of the test, and real ends of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from threading import Event, Thread

import pytest

from daemon.errors import Stuck, TickcastError
from daemon.health import Hang, Health
from daemon.watchdog import LATE_SECONDS, LOOK_SECONDS, Watchdog

STUCK = 60.0

#: A main thread that hangs in a function with a name of its own; the loop is to turn four times in a second.
HANGS = """
import sys, threading, time
from daemon.health import Health
from daemon.logs import configure_logs
from daemon.watchdog import Watchdog, end_process

def hangs_in_here(prepare):
    prepare()
    print("hangs", flush=True)
    threading.Event().wait()

configure_logs("json", "info")
health = Health(0.25)
Watchdog(health, end_process).start()
"""
IN_A_CALL = HANGS + "hangs_in_here(lambda: None)"
IN_A_WAIT = HANGS + "with health.allowing(1000, 'a producer'): hangs_in_here(lambda: health.closing(0.1))"
#: A non-daemon thread keeps the interpreter from ending, after everything of ours has been closed.
AT_THE_END = HANGS + "threading.Thread(target=hangs_in_here, args=(lambda: health.closing(0.1),)).start()"
#: Standard error takes nothing any more, and the last words cannot be said.
UNHEARD = (
    HANGS
    + """
import os
from daemon import watchdog
watchdog.LAST_WORDS_SECONDS = 0.5

def fill():
    os.set_blocking(2, False)
    try:
        while os.write(2, bytes(65536)): pass
    except BlockingIOError:
        os.set_blocking(2, True)

hangs_in_here(fill)
"""
)


class Watched:
    """A watchdog on a clock of the test, and what it gave up for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.health = Health(STUCK, self.clock)
        self.found: list[Hang] = []
        self.watchdog = Watchdog(self.health, self.found.append, self.clock)

    def clock(self) -> float:
        return self.now

    def look(self, seconds: float, *, turning: bool = False) -> None:
        """Let time pass with a look as often as the thread looks."""
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.now += LOOK_SECONDS
            if turning:
                self.health.turned()
            self.watchdog.look()


def test_it_gives_up_once_the_loop_has_not_turned_for_long_enough() -> None:
    watched = Watched()
    watched.look(5 * STUCK, turning=True)
    watched.look(STUCK)
    assert watched.found == []
    watched.look(LOOK_SECONDS)
    assert watched.found == [Hang("the loop has not turned", STUCK + LOOK_SECONDS)]


def test_a_process_that_was_paused_and_wakes_is_not_stuck() -> None:
    watched = Watched()
    watched.look(STUCK / 2)
    watched.now += 1000  # SIGSTOP, SIGCONT; the watchdog's thread may well be the first to run
    assert watched.watchdog.look() is False
    watched.look(STUCK / 2 - LATE_SECONDS - 1)
    assert watched.found == []
    watched.look(3)
    assert watched.found, "a pause excuses no hang that goes on"


def test_the_thread_looks_by_itself_and_can_be_closed() -> None:
    gave_up = Event()
    watchdog = Watchdog(Health(0.0), lambda hang: gave_up.set())
    watchdog.start()
    assert gave_up.wait(30)
    watchdog.close()
    looking = Watchdog(Health(1000.0), lambda hang: None)
    looking.start()
    closing = Thread(target=looking.close)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("script", "said"), [(IN_A_CALL, "the loop has not turned"), (AT_THE_END, "closing has not ended")]
)
def test_what_hangs_ends_with_a_line_the_stacks_and_a_code(script: str, said: str) -> None:
    done = run(script)
    assert done.returncode == Stuck.exit_code == 12
    line, stacks = done.stderr.split("\n", 1)
    assert said in line
    assert '"since": "' in line
    assert '"level": "error"' in line
    assert "in hangs_in_here" in stacks
    assert stacks.count("Thread 0x") >= 2, "all threads are shown"


def test_a_stop_cut_short_in_an_announced_wait_is_an_aborted_shutdown_and_shows_no_stacks() -> None:
    done = run(IN_A_WAIT)
    assert done.returncode == TickcastError.exit_code == 1
    assert "the end was put off by a wait for a producer" in done.stderr
    assert "hangs_in_here" not in done.stderr


def test_it_ends_also_where_nobody_reads_what_it_says() -> None:
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen([sys.executable, "-c", UNHEARD], stdout=subprocess.PIPE, stderr=write_end)
        try:
            assert process.wait(60) in (Stuck.exit_code, -signal.SIGALRM)
            assert process.stdout is not None
            assert process.stdout.read() == b"hangs\n"
        finally:
            process.kill()
            process.communicate()
    finally:
        os.close(read_end)
        os.close(write_end)


def test_the_watchdog_costs_no_import_of_the_model_or_the_client() -> None:
    script = "import sys, daemon.watchdog; print({'numpy', 'kafka'} & set(sys.modules))"
    assert run(script).stdout == "set()\n"
