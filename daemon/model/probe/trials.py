"""The three tests of one way to serve, and fresh answers, which they are held against.

- *repeat*: A, A, A ...
- *between*: A, B, A with another B each time - does B's request change A's answer?
- *threads*: 50 threads released at once, each with an input of its own
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from daemon.core.step import F32
from daemon.errors import BundleError
from daemon.model.probe.budget import Budget
from daemon.model.probe.ways import Answer, Ask, Way

#: Seed of the inputs: the same model is asked the same questions.
SEED = 20_260_103
#: Different inputs whose fresh answers give the standard deviation; a short budget leaves fewer, but never fewer than
#: the least, of which a standard deviation is still known to a quarter.
INPUTS, INPUTS_LEAST = 100, 10
THREADS = 50
#: Answers to the same input that a short look at the model would take, and the fewest that say something.
FIRST_ANSWERS = 5
#: Rounds of A, B, A that are enough, where the budget leaves no more.
ROUNDS_ENOUGH = 2
#: Seconds after which Python lets another thread run, instead of 5 ms: a whole request of the converted step would fit
#: into that, and 50 threads would take turns without ever meeting.
SWITCH_SECONDS = 1e-5
#: Where the system refuses a thread, the others stop waiting for it.
GATE_SECONDS = 60.0


@dataclass(frozen=True)
class Fresh:
    """Inputs, shape (n, *window), their fresh answers, shape (n, outputs), and what an answer took."""

    inputs: F32
    answers: Answer
    seconds_each: float

    @property
    def count(self) -> int:
        return len(self.answers)

    @property
    def spread(self) -> float:
        """The unit of leaks: standard deviation over the inputs, the root of the mean variance of all outputs."""
        return math.sqrt(float(self.answers.var(axis=0).mean()))

    def leak(self, asked: Sequence[int], answers: Sequence[Answer]) -> float:
        """Return the largest difference of answers to the inputs of these numbers, in standard deviations."""
        if not np.isfinite(answers).all():
            return math.inf
        return float(np.max(np.abs(np.stack(answers) - self.answers[list(asked)]))) / self.spread


@dataclass(frozen=True)
class Trial:
    """The outcome of one test.

    Parameters
    ----------
    leak : largest |answer - fresh answer|, in standard deviations; infinite where an answer is not finite
    planned, enough : counts of answers; with fewer than `enough` the test cannot say that nothing leaks
    answers : shape (answers, outputs), in the order asked
    """

    leak: float
    planned: int
    enough: int
    answers: Answer = field(repr=False)

    @property
    def count(self) -> int:
        return len(self.answers)

    @property
    def is_enough(self) -> bool:
        return self.count >= self.enough


def draw_inputs(shape: tuple[int, ...], scale: tuple[F32, F32] | None = None) -> F32:
    """Return normal inputs of a mean and standard deviation, 0 and 1 unless given; the first one is A."""
    x = np.random.default_rng(SEED).standard_normal((INPUTS, *shape), dtype=np.float32)
    return x if scale is None else x * scale[1] + scale[0]


def ask_fresh(inputs: F32, ask: Ask, budget: Budget) -> Fresh:
    """Ask each input once, fewer where the budget ends.

    Raises
    ------
    BundleError : if answers are not finite, or are all the same as far as float32 can tell
    """
    began, answers = budget.clock(), [ask(inputs[0])]
    for x in inputs[1:]:
        if len(answers) >= INPUTS_LEAST and budget.spent:
            break
        answers.append(ask(x))
    fresh = Fresh(inputs[: len(answers)], np.stack(answers), (budget.clock() - began) / len(answers))
    if not np.isfinite(fresh.answers).all():
        raise BundleError("the answers to normal inputs are not finite; nothing can be compared")
    if not fresh.spread > np.finfo(np.float32).eps * np.abs(fresh.answers).max():
        answer = fresh.answers.flat[0] + 0.0  # without the sign of a zero
        raise BundleError(
            f"the answers to {fresh.count} different inputs are all the same ({answer:.6g}), so no leak can be told; "
            "`tickcast doctor model` looks for the cause"
        )
    return fresh


def ask_again(way: Way, fresh: Fresh, repeats: int, budget: Budget) -> Trial:
    answers = [way.ask(fresh.inputs[0]), way.ask(fresh.inputs[0])]
    while len(answers) < repeats and not budget.spent:
        answers.append(way.ask(fresh.inputs[0]))
    return _trial(fresh, [0] * len(answers), answers, repeats, min(repeats, FIRST_ANSWERS))


def ask_between(way: Way, fresh: Fresh, repeats: int, budget: Budget) -> Trial:
    rounds = -(-repeats // 3)
    asked: list[int] = []
    answers: list[Answer] = []
    for index in range(rounds):
        if answers and budget.spent:
            break
        other = 1 + index % (fresh.count - 1)
        asked += [0, other, 0]
        answers += [way.ask(fresh.inputs[number]) for number in (0, other, 0)]
    return _trial(fresh, asked, answers, 3 * rounds, 3 * min(rounds, ROUNDS_ENOUGH))


def ask_at_once(way: Way, fresh: Fresh, repeats: int, budget: Budget) -> Trial:
    """Ask once from each thread, as many as there are fresh answers and time for; `repeats` does not matter."""
    affordable = int(min(THREADS, budget.left / max(fresh.seconds_each, 1e-9)))
    threads = max(2, min(affordable, fresh.count))  # one alone would test nothing
    gate = threading.Barrier(threads, timeout=GATE_SECONDS)

    def one(thread: int) -> Answer:
        gate.wait()
        return way.ask(fresh.inputs[thread])

    with _quick_switches(), ThreadPoolExecutor(threads) as pool:
        answers = list(pool.map(one, range(threads)))
    return _trial(fresh, range(threads), answers, THREADS, THREADS)


#: In the order in which they run, each with its share of the time that is left then. Enough of them takes 5, 6 and 50
#: answers, so the threads need most; what is left over goes to latencies.
TESTS: dict[str, tuple[Callable[[Way, Fresh, int, Budget], Trial], float]] = {
    "repeat": (ask_again, 0.1),
    "between": (ask_between, 0.15),
    "threads": (ask_at_once, 0.85),
}


def _trial(fresh: Fresh, asked: Sequence[int], answers: Sequence[Answer], planned: int, enough: int) -> Trial:
    return Trial(fresh.leak(asked, answers), planned, enough, np.stack(answers))


@contextmanager
def _quick_switches() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)
