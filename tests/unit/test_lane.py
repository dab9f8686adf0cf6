"""A call that never returns costs its caller a bounded time, and nothing else."""

from __future__ import annotations

import threading

import pytest

from daemon.errors import BrokerUnavailable
from daemon.transport.lane import Lane


def test_a_call_returns_what_its_function_returns_from_a_thread_of_the_lane() -> None:
    lane = Lane("test")
    assert lane.call(lambda: threading.current_thread().name, 5) == "tickcast-test"
    assert lane.call(lambda: 2, 5) == 2
    lane.close()


def test_an_error_reaches_the_caller_and_the_lane_goes_on() -> None:
    lane = Lane("test")

    def fail() -> None:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        lane.call(fail, 5)
    assert not lane.blocked
    assert lane.call(lambda: 1, 5) == 1
    lane.close()


def test_a_call_that_does_not_return_blocks_the_lane_for_good() -> None:
    lane, release = Lane("test"), threading.Event()
    with pytest.raises(BrokerUnavailable, match="no answer"):
        lane.call(release.wait, 0.05)
    assert lane.blocked
    with pytest.raises(AssertionError):
        lane.call(lambda: 1, 5)
    release.set()
    lane.close()


def test_the_thread_ends_after_close() -> None:
    lane, release = Lane("ending"), threading.Event()
    with pytest.raises(BrokerUnavailable):
        lane.call(release.wait, 0.05)
    lane.close()
    thread = next(thread for thread in threading.enumerate() if thread.name == "tickcast-ending")
    release.set()
    thread.join(5)
    assert not thread.is_alive()
