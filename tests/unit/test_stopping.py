"""Requests to stop: the first finishes, a second signal aborts, a deadline ends what hangs. Each in a process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

#: A loop that does not look at its flag: a commit that hangs.
HANGS = """
import sys, threading
from daemon import stopping
from daemon.health import Health
from daemon.watchdog import Watchdog, end_process
health = Health(1000)
Watchdog(health, end_process).start()
stopper = stopping.Stopper()
def stop():
    health.closing(float(sys.argv[1]))
    print("stop", flush=True)
stopper.install(stop)
stopping.when_input_ends(0, stopper.ask)
try:
    print("installed", flush=True)
    while True: threading.Event().wait(60)
except stopping.Aborted as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""

#: A loop that obeys, and then gives the signals back.
OBEYS = """
import sys, threading
from daemon import stopping
asked = threading.Event()
stopper = stopping.Stopper()
stopper.install(asked.set)
print("installed", flush=True)
asked.wait(60)
stopper.finish()
print("finished", threading.active_count(), flush=True)
stopper.ask()
print("still here", flush=True)
"""

#: A process that is only just starting.
STARTS = """
import threading
from daemon import stopping
stopping.when_input_ends(0, stopping.Stopper().ask)
print("installed", flush=True)
threading.Event().wait(60)
"""


@contextmanager
def running(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "installed\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def end_input(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None


def test_the_first_signal_only_asks_and_the_second_aborts() -> None:
    with running(HANGS, "60") as process:
        process.send_signal(signal.SIGTERM)
        assert say(process) == "stop\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 1
        assert "second signal" in say(process)


def test_the_deadline_ends_what_does_not_obey() -> None:
    with running(HANGS, "0.1") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 12


def test_the_end_of_the_input_asks_as_a_first_signal_does() -> None:
    with running(HANGS, "60") as process:
        end_input(process)
        assert say(process) == "stop\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 1
        assert "second signal" in say(process)


def test_the_end_of_the_input_after_a_signal_aborts_nothing() -> None:
    """A service that signals its whole group reaches worker and parent, and the parent lets go of the worker."""
    with running(HANGS, "60") as process:
        process.send_signal(signal.SIGTERM)
        assert say(process) == "stop\n"
        end_input(process)
        assert say(process) == "stop\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)


def test_a_request_before_there_is_anything_to_finish_ends_the_process() -> None:
    with running(STARTS) as process:
        end_input(process)
        assert process.wait(30) == -signal.SIGTERM


def test_after_finishing_nothing_of_it_is_left() -> None:
    with running(OBEYS) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert say(process) == "finished 1\n"
        assert say(process) == "still here\n"
