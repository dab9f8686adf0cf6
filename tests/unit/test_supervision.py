"""When a worker is started again and when all stop: processes that only claim to run, on a clock of the test.

Real ones are in `tests/e2e/test_workers.py`.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from daemon.errors import SettingsError
from daemon.workers import KILL_SECONDS, PAUSES_SECONDS, WINDOW_SECONDS, Workers, run_workers


class Claimed:
    """A process that runs until the test says how it ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.code

    def send_signal(self, number: int, /) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL:
            self.code = -number


class Parent:
    """Two workers under supervision."""

    def __init__(self) -> None:
        self.now = 0.0
        self.started: list[int] = []
        self.running: dict[int, Claimed] = {}
        self.let_go = 0
        self.workers = Workers(2, self._start, self._let_go, lambda: self.now)
        self.workers.start()

    def _start(self, index: int) -> Claimed:
        self.started.append(index)
        self.running[index] = Claimed(100 + len(self.started))
        return self.running[index]

    def _let_go(self) -> None:
        self.let_go += 1

    def end(self, index: int, code: int) -> bool:
        """Let a worker end, look, and say whether anybody is left."""
        self.running[index].code = code
        return self.workers.turn()

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return self.workers.turn()


@pytest.fixture
def parent() -> Parent:
    return Parent()


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGSEGV, 1, 12])
def test_a_worker_that_only_fell_over_is_started_again_at_once(parent: Parent, code: int) -> None:
    assert parent.end(1, code)
    assert parent.started == [0, 1, 1]
    assert parent.let_go == 0


@pytest.mark.parametrize("code", [2, 3, 4, 5, 6, 7, 10, 130])
def test_an_end_that_a_restart_does_not_mend_stops_all_with_its_code(parent: Parent, code: int) -> None:
    assert parent.end(1, code)
    assert parent.let_go == 1
    assert not parent.end(0, 0)
    assert parent.started == [0, 1]
    assert parent.workers.exit_code == code


def test_the_pauses_grow_and_the_sixth_end_within_a_minute_stops_all(parent: Parent) -> None:
    for count, pause in enumerate(PAUSES_SECONDS, start=1):
        assert parent.end(0, -signal.SIGKILL)
        if pause:
            assert len(parent.started) == 1 + count, "it was started before its time"
            parent.wait(pause)
        assert len(parent.started) == 2 + count
        parent.wait(1)
    parent.end(0, -signal.SIGKILL)
    assert parent.let_go == 1
    assert not parent.end(1, 0)
    assert parent.workers.exit_code == 1


def test_ends_that_are_long_ago_are_forgotten(parent: Parent) -> None:
    for _ in range(20):
        parent.end(0, 12)
        parent.wait(WINDOW_SECONDS + 1)
    assert len(parent.started) == 2 + 20
    assert parent.let_go == 0


def test_each_worker_has_its_own_count(parent: Parent) -> None:
    for pause in PAUSES_SECONDS:
        for index in (0, 1):
            parent.end(index, -signal.SIGKILL)
        parent.wait(pause)
    assert parent.let_go == 0
    assert len(parent.started) == 2 + 2 * len(PAUSES_SECONDS)


def test_a_worker_that_was_stopped_stays_so_and_the_others_go_on(parent: Parent) -> None:
    assert parent.end(0, 0)
    parent.wait(WINDOW_SECONDS)
    assert parent.started == [0, 1]
    assert not parent.end(1, 0)
    assert (parent.let_go, parent.workers.exit_code) == (0, 0)


def test_a_first_signal_lets_go_and_a_second_one_is_passed_on(parent: Parent) -> None:
    parent.workers.received(signal.SIGTERM)
    assert (parent.let_go, parent.running[0].signals) == (1, [])
    parent.workers.received(signal.SIGINT)
    assert (parent.let_go, parent.running[0].signals) == (1, [signal.SIGINT])
    parent.end(0, 1)
    assert not parent.end(1, 1)
    assert parent.workers.exit_code == 1


def test_a_worker_that_was_still_starting_when_all_stop_has_not_failed(parent: Parent) -> None:
    parent.workers.stop()
    parent.end(0, -signal.SIGTERM)
    assert not parent.end(1, 0)
    assert parent.workers.exit_code == 0


def test_nobody_is_started_again_while_all_stop(parent: Parent) -> None:
    parent.end(0, -signal.SIGKILL)
    parent.end(0, -signal.SIGKILL)
    parent.workers.stop()
    parent.wait(WINDOW_SECONDS)
    assert parent.started == [0, 1, 0]
    assert not parent.end(1, 12)
    assert parent.workers.exit_code == 12


def test_workers_that_do_not_end_are_killed(parent: Parent) -> None:
    parent.workers.stop()
    assert parent.wait(KILL_SECONDS - 1)
    assert parent.running[0].signals == []
    parent.wait(2)
    assert not parent.wait(1)
    assert parent.running[0].signals == parent.running[1].signals == [signal.SIGKILL]
    assert parent.workers.exit_code == 1


def test_more_workers_than_ports_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"metrics\.port = 65534 and 3 workers need ports up to 65536"):
        run_workers(3, [], "0", 65534)


@pytest.mark.parametrize("count", ["0", "-1", "two"])
def test_no_workers_are_wrong_use(count: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli.main", "run", "--workers", count], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "--workers" in done.stderr


def test_the_parent_imports_neither_numpy_nor_the_client() -> None:
    script = (
        "import sys, daemon.cli.run, daemon.config, daemon.logs, daemon.workers;"
        "print({'numpy', 'kafka', 'prometheus_client'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"
