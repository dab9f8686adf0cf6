"""What counts as a hang, and what does not: on a clock that only the test moves."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from daemon.health import Hang, Health, HealthServer

STUCK = 10.0


class Told:
    """A health whose clock the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.health = Health(STUCK, lambda: self.now)

    def turn(self, seconds: float) -> None:
        """Let the loop turn once a second, and lag as before."""
        for _ in range(round(seconds)):
            self.now += 1
            self.health.turned()

    def lag(self, seconds: float, ticks: int = 7) -> None:
        """Let the loop turn and find the same lag each time."""
        for _ in range(round(seconds)):
            self.turn(1)
            self.health.lagging(ticks)

    @property
    def what(self) -> str | None:
        hang = self.health.hang()
        return hang and hang.what


@pytest.fixture
def told() -> Told:
    return Told()


def test_a_loop_that_does_not_turn_is_stuck_until_it_does(told: Told) -> None:
    told.now += STUCK
    assert told.what is None
    told.now += 1
    assert told.health.hang() == Hang("the loop has not turned", STUCK + 1)
    told.health.turned()
    assert told.what is None


def test_an_announced_call_may_take_its_time_and_no_more(told: Told) -> None:
    with told.health.allowing(60, "a producer"):
        told.now += 60 + STUCK
        assert told.what is None
        told.now += 1
        assert told.health.hang() == Hang("the wait for a producer has not ended", 61 + STUCK)
    assert told.what is None, "a call that has ended is over, and counts as a turn"
    told.now += STUCK + 1
    assert told.what == "the loop has not turned"


def test_an_announced_call_that_raises_has_ended(told: Told) -> None:
    with pytest.raises(OSError, match="away"), told.health.allowing(60, "a producer"):
        raise OSError("away")
    told.now += STUCK + 1
    assert told.what == "the loop has not turned"


def test_the_time_of_an_inner_call_is_not_taken_from_the_outer_one(told: Told) -> None:
    with told.health.allowing(5, "an answer"):
        with told.health.allowing(60, "a producer"):
            told.now += 65
            assert told.what is None
        told.now += 5 + STUCK
        assert told.what is None
        told.now += 1
        assert told.what == "the wait for an answer has not ended"


def test_a_lag_without_progress_is_stuck_although_the_loop_turns(told: Told) -> None:
    told.lag(STUCK + 1)
    assert told.what is None
    told.lag(1, ticks=1234)
    hang = told.health.hang()
    assert hang == Hang("the loop turns without progress while 1,234 ticks wait", STUCK + 1)
    told.health.progressed()
    assert told.what is None


def test_a_lag_that_is_worked_on_may_last_for_ever(told: Told) -> None:
    for _ in range(20):
        told.lag(STUCK)
        assert told.what is None
        told.health.progressed()


def test_without_lag_no_progress_is_expected(told: Told) -> None:
    for _ in range(20):
        told.lag(STUCK)
        told.health.lagging(0)
        assert told.what is None
    told.turn(10 * STUCK)
    assert told.what is None


def test_a_lag_counts_only_up_to_when_the_broker_last_answered(told: Told) -> None:
    told.lag(STUCK)
    told.turn(10 * STUCK)
    assert told.what is None


def test_waiting_for_the_broker_is_no_time_without_progress(told: Told) -> None:
    told.lag(STUCK)
    with told.health.allowing(60, "a producer"):
        told.now += 60
    told.lag(1)
    assert told.what is None
    told.lag(1)
    assert told.what is not None, "the lag itself is not forgotten"


def test_a_close_has_its_own_deadline_and_the_first_one_counts(told: Told) -> None:
    told.health.closing(20)
    told.now += 15
    told.health.closing(20)
    told.now += 5
    assert told.what is None, "the loop need not turn while it closes"
    told.now += 1
    assert told.health.hang() == Hang("closing has not ended", 21)


def test_an_end_put_off_by_an_announced_wait_is_cut_short_but_is_no_fault_of_ours(told: Told) -> None:
    with told.health.allowing(60, "a producer"):
        told.health.closing(20)
        told.now += 21
        assert told.health.hang() == Hang("the end was put off by a wait for a producer", 21, announced=True)


def test_a_close_that_takes_longer_than_it_said_is_stuck_even_where_it_was_announced(told: Told) -> None:
    told.health.closing(20)
    with told.health.allowing(16, "the clients to close"):
        told.now += 20
        assert told.what is None, "there is no need to hurry before the deadline"
        told.now += 1
        assert told.health.hang() == Hang("the wait for the clients to close has not ended", 21)


def test_time_that_nobody_saw_counts_for_nothing(told: Told) -> None:
    told.health.lagging(5)
    told.now += 3600
    told.health.unseen(3600)
    assert told.what is None
    told.now += STUCK + 1
    assert told.what == "the loop has not turned"


@pytest.fixture
def port(told: Told) -> Iterator[int]:
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), told.health)
    yield server.port
    server.close()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_livez_says_which_of_the_two_is_missing(told: Told, port: int) -> None:
    assert get(port, "/livez") == (200, "alive\n")
    told.now += STUCK + 1
    assert get(port, "/livez") == (503, "the loop has not turned for 11 s\n")
    told.health.turned()
    told.lag(STUCK + 2)
    assert get(port, "/livez") == (503, "the loop turns without progress while 7 ticks wait for 11 s\n")
    told.health.progressed()
    assert get(port, "/livez") == (200, "alive\n")


def test_readyz_says_what_is_waited_for(told: Told, port: int) -> None:
    told.health.waiting_for = "restoring 2 partitions, 12,000 ticks to go"
    assert get(port, "/readyz") == (503, "restoring 2 partitions, 12,000 ticks to go\n")
    told.health.waiting_for = None
    assert get(port, "/readyz") == (200, "ready\n")
