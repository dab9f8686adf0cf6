"""Signals: the first finishes, the second aborts, and a deadline ends what hangs. Each in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: A loop that does not look at its flag: a commit that hangs.
HANGS = """
import sys, time
from daemon import stopping
stopping.DEADLINE_SECONDS = float(sys.argv[1])
stopper = stopping.Stopper(lambda: print("stop", flush=True))
stopper.install()
try:
    print("installed", flush=True)
    time.sleep(60)
except stopping.Aborted as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""

#: A loop that obeys, and is then left alone by its deadline.
OBEYS = """
import sys, threading
from daemon import stopping
asked = threading.Event()
stopper = stopping.Stopper(asked.set)
stopper.install()
print("installed", flush=True)
asked.wait(60)
stopper.finish()
print("finished", threading.active_count(), flush=True)
"""


@contextmanager
def running(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "installed\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_first_signal_only_asks_and_the_second_aborts() -> None:
    with running(HANGS, "60") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stop\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
        assert "second signal" in process.stdout.read()


def test_the_deadline_ends_what_does_not_obey() -> None:
    with running(HANGS, "0.1") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1


def test_after_finishing_nothing_of_it_is_left() -> None:
    with running(OBEYS) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stdout.read() == "finished 1\n"
