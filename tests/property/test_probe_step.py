"""The probe's threads and the step they share: no order of ticks changes an answer, and the test is what it says.

`NumpyStep` reuses its buffers and must not run in two threads at once. The daemon runs it on one; the probe stands in
for that with a lock, held for one tick.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.hypothesis_profile  # noqa: F401
from daemon.model.numpy_step import NumpyStep
from daemon.model.probe.budget import Budget
from daemon.model.probe.trials import SWITCH_SECONDS, THREADS, ask_at_once, ask_fresh, draw_inputs
from daemon.model.probe.ways import ServedStep
from tests.bundles import tiny_program

TICKS, FEATURES = 6, 3
PROGRAM = tiny_program(FEATURES, 2, units=16, layers=2)


@pytest.fixture
def quick_switches() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    yield
    sys.setswitchinterval(usual)


@given(st.permutations([request for request in range(5) for _ in range(TICKS)]), st.integers(0, 2**32 - 1))
def test_ticks_of_requests_in_any_order_give_the_fresh_answers(order: list[int], seed: int) -> None:
    windows = np.random.default_rng(seed).standard_normal((5, TICKS, FEATURES), dtype=np.float32)
    fresh = [ServedStep(NumpyStep(PROGRAM)).ask(window) for window in windows]
    step = NumpyStep(PROGRAM)
    states = [step.initial_state[np.newaxis]] * 5
    answers: list[list[np.ndarray]] = [[] for _ in range(5)]
    for request in order:
        tick = windows[request, len(answers[request])][np.newaxis]
        y, states[request] = step.step(tick, states[request])
        answers[request].append(y)
    for given_answers, expected in zip(answers, fresh, strict=True):
        assert np.concatenate(given_answers).ravel().astype(np.float64).tobytes() == expected.tobytes()


def test_a_step_for_each_thread_needs_no_lock(quick_switches: None) -> None:
    """Weights are shared and never written; buffers belong to the step."""
    windows = draw_inputs((TICKS, FEATURES))[:THREADS]
    expected = [ServedStep(NumpyStep(PROGRAM)).ask(window).tobytes() for window in windows]
    gate = threading.Barrier(THREADS)

    def ask(window: np.ndarray) -> set[bytes]:
        served = ServedStep(NumpyStep(PROGRAM))
        gate.wait(60)
        return {served.ask(window).tobytes() for _ in range(5)}

    with ThreadPoolExecutor(THREADS) as pool:
        assert list(pool.map(ask, windows)) == [{answer} for answer in expected]


class Watched(NumpyStep):
    """Writes down which thread each tick comes from, and whether another was inside."""

    def __init__(self) -> None:
        super().__init__(PROGRAM)
        self.threads: list[int] = []
        self.met = False
        self._inside = 0

    def step(self, x: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._inside += 1
        self.threads.append(threading.get_ident())
        found = super().step(x, state)
        self.met |= self._inside > 1
        self._inside -= 1
        return found


def test_fifty_threads_meet_between_the_ticks_of_a_request_and_never_inside_a_step() -> None:
    step = Watched()
    served = ServedStep(step)
    budget = Budget(float("inf"), lambda: 0.0)
    fresh = ask_fresh(draw_inputs((TICKS, FEATURES)), served.ask, budget)
    step.threads.clear()
    trial = ask_at_once(served.way(), fresh, 1, budget)
    assert trial.count == THREADS
    assert trial.leak == 0
    assert len(step.threads) == THREADS * TICKS
    assert not step.met
    changes = sum(one != other for one, other in pairwise(step.threads))
    assert changes > THREADS, "each request ran as a whole: the threads took turns and tested nothing"
