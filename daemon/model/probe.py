"""The probe: whether a Keras model gives the same answer to the same input.

A stateful layer keeps its state from call to call, so a service that holds such a model answers one request out of the
state of another. Three tests bring that to light, each from the state of a fresh start:

- *repeat*: A, A, A ...
- *between*: A, B, A - does B's request change A's answer?
- *threads*: 50 threads at once, each with an input of its own

Four ways to serve the model go through them: as it is; every recurrent layer reset before each call, without a lock
and with one; and the converted step, which takes its state as an argument.

The verdict is the *leak*: the largest |answer - fresh answer| over the standard deviation of the fresh answers to 100
different inputs. A fresh answer is that of a model freshly reset, or of a first chain of the converted step. The
variance of the answers in *repeat* stands beside it and judges nothing: the state converges while the same input goes
in again and again, so this variance shrinks with the number of repeats and looks better the longer one measures.

Invariants
----------
- Answers are compared with fresh answers of the same function, so that rounding cannot look like a leak: the model's
  come from `predict_on_batch`, the compiled function that `predict` runs too.
- Every test gets at least its first answers, however small the budget is.
- The model's states are afterwards what they were before.
"""

from __future__ import annotations

import math
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32, Step
from daemon.errors import BundleError
from daemon.model.numpy_step import NumpyStep
from daemon.model.program import Program

#: Seed of the inputs: the same model is asked the same questions.
SEED = 20_260_103
#: Different inputs whose fresh answers give the standard deviation; the budget can leave fewer, never fewer than the
#: least.
INPUTS, INPUTS_LEAST = 100, 10
#: Ticks of a window where the model leaves its number open.
OPEN_STEPS = 10
THREADS = 50
#: Answers of the variance that a short look at the model would find.
FIRST_ANSWERS = 5
#: In standard deviations; float32 rounds at 1e-7.
LEAK_ALLOWED = 1e-6
#: Seconds after which Python lets another thread run, instead of 5 ms: a whole request of the converted step would fit
#: into that, and 50 threads would take turns without ever meeting.
SWITCH_SECONDS = 1e-5
#: Where the system refuses a thread, the others stop waiting for it.
GATE_SECONDS = 60.0
_BOLD = re.compile(r"\x1b\[\d*m")
_STATM = Path("/proc/self/statm")

Answer = NDArray[np.float64]
Ask = Callable[[F32], Answer]
Clock = Callable[[], float]
#: Takes what comes next and which share of the whole is done, 0 to 1.
Listener = Callable[[str, float], None]


@dataclass(frozen=True)
class Trial:
    """The outcome of one test.

    Parameters
    ----------
    leak : largest |answer - fresh answer|, in standard deviations; infinite where an answer is not finite
    answers, planned : counts; fewer than planned where the budget ended
    """

    leak: float
    answers: int
    planned: int


@dataclass(frozen=True)
class Speed:
    """Time of one call after the other on one thread, resets and locks included; in ms and calls per second."""

    calls: int
    p50_ms: float
    p99_ms: float
    calls_per_second: float


@dataclass(frozen=True)
class Measured:
    """What was found of one way to serve.

    Parameters
    ----------
    trials : by test: repeat, between, threads
    leak_allowed : the largest leak that counts as none, in standard deviations
    variance, variance_first : of all answers and of the first five in *repeat*, mean over the outputs, in their unit
        squared. No verdict: it shrinks with the number of repeats, because the state converges.
    speed : by the function called: `predict` and `model(x)`, or `step` for one whole request to the converted step
    inputs : different inputs that the standard deviation comes from
    memory_growth_mb : growth of the process' resident memory, None where the system does not tell
    """

    trials: Mapping[str, Trial]
    leak_allowed: float
    variance: float
    variance_first: float
    speed: Mapping[str, Speed]
    inputs: int
    memory_growth_mb: float | None

    @property
    def leak(self) -> float:
        """The largest leak of the three tests, in standard deviations."""
        return max(trial.leak for trial in self.trials.values())

    @property
    def leaks(self) -> bool:
        return self.leak > self.leak_allowed

    @property
    def stopped_early(self) -> tuple[str, ...]:
        """Names of the tests that the budget cut short."""
        return tuple(name for name, trial in self.trials.items() if trial.answers < trial.planned)


@dataclass(frozen=True)
class Refused:
    """Why a model has no converted step."""

    reason: str


@dataclass(frozen=True)
class Report:
    """What the probe found.

    Parameters
    ----------
    window : one sentence: the shape of a request, and what was done about a batch size welded in
    stateful_layers : names of the recurrent layers that keep their state from call to call
    """

    model: str
    window: str
    stateful_layers: tuple[str, ...]
    as_is: Measured
    reset_unlocked: Measured
    reset: Measured
    converted: Measured | Refused

    @property
    def variants(self) -> dict[str, Measured | Refused]:
        return {
            "as_is": self.as_is,
            "reset_unlocked": self.reset_unlocked,
            "reset": self.reset,
            "converted": self.converted,
        }


def probe(
    model: Any,
    *,
    repeats: int = 100,
    budget_seconds: float = 60.0,
    step: Step | None = None,
    clock: Clock = time.perf_counter,
    listen: Listener | None = None,
) -> Report:
    """Ask a model, served in four ways, the same inputs again and again.

    Parameters
    ----------
    model : a `keras.Model` with one input of shape (batch, time, features) or (batch, features), float; its states are
        restored at the end. Inputs are standard normal, float32, from a fixed seed; a time dimension left open takes
        10 steps; where a batch size is welded in, each request fills the batch with copies and its first row answers.
    repeats : answers of *repeat* and, about, of *between*; calls of each speed. At least 2.
    budget_seconds : shared among fresh answers, variants and tests; a test that runs out stops early and says so
    step : judged as the converted step instead of the model's own, so that a check of this check can plant a leak
    clock : returns seconds; from it come latencies and the budget
    listen : told of each part before it begins

    Raises
    ------
    BundleError : if it is no model of one input, fails on the inputs, or its answers are not finite or all the same

    Notes
    -----
    The threads of the converted step share it as the instruments share it in the daemon: one tick at a time, each with
    its own state, ticks of different requests in any order. Its leak must be exactly 0.
    """
    subject = _Subject(model)
    inputs = _draw(subject.shape)
    whole = _Budget(budget_seconds, clock)
    course = _Course(max(2, repeats), clock, listen or (lambda stage, done: None))
    with subject.states_kept():
        subject.warm_up(inputs[0])
        course.begin("fresh answers")
        fresh = _ask_fresh(inputs, subject.fresh, whole.share(len(VARIANTS) + 1))
        as_is, reset_unlocked, reset = (
            course.run(name, served, fresh, whole.share(len(VARIANTS) - index))
            for index, (name, served) in enumerate(_ways(subject).items())
        )
    converted = _probe_converted(model, step, inputs, course, whole)
    return Report(str(model.name), subject.window, subject.stateful_layers, as_is, reset_unlocked, reset, converted)


def converted_step(model: Any) -> Step:
    """Return the step that the converted model would run on: numpy where it can, else TensorFlow.

    Raises
    ------
    BundleError : names the layer that cannot stream, and why
    """
    from daemon.model.conversion import translate
    from daemon.model.keras_model import take_apart

    graph = take_apart(model)
    program = translate(graph)
    if isinstance(program, Program):
        return NumpyStep(program)
    from daemon.model.tensorflow_step import TensorflowStep

    return TensorflowStep(graph)


def _probe_converted(model: Any, step: Step | None, inputs: F32, course: _Course, whole: _Budget) -> Measured | Refused:
    try:
        stepped = _Stepped(step or converted_step(model))
    except BundleError as error:
        return Refused(str(error))
    fresh = _ask_fresh(inputs, stepped.ask, whole.share(len(VARIANTS)))
    served = _Served(ask=stepped.ask, timed={"step": stepped.ask}, begin=lambda: None, leak_allowed=0.0)
    return course.run("converted", served, fresh, whole)


# --- the ways to serve ------------------------------------------------------------------------------------------------

#: In the order in which they run, and the parts of each.
VARIANTS = ("as_is", "reset_unlocked", "reset", "converted")
PARTS = ("repeat", "between", "threads", "speed")


@dataclass(frozen=True)
class _Served:
    """One way to serve."""

    ask: Ask
    #: The functions whose calls are timed, by name.
    timed: Mapping[str, Ask]
    #: Brings back the state of a fresh start.
    begin: Callable[[], None]
    leak_allowed: float = LEAK_ALLOWED


def _ways(subject: _Subject) -> dict[str, _Served]:
    """Return the ways to serve the model itself."""

    def served(wrapped: Callable[[Ask], Ask]) -> _Served:
        timed = {"predict": wrapped(subject.predict), "model(x)": wrapped(subject.call)}
        return _Served(wrapped(subject.ask), timed, subject.reset)

    return {
        "as_is": served(lambda ask: ask),
        "reset_unlocked": served(partial(_reset_before, subject, nullcontext())),
        "reset": served(partial(_reset_before, subject, threading.Lock())),
    }


def _reset_before(subject: _Subject, lock: AbstractContextManager[Any], ask: Ask) -> Ask:
    def reset_and_ask(x: F32) -> Answer:
        with lock:
            subject.reset()
            return ask(x)

    return reset_and_ask


class _Subject:
    """A Keras model, and how a service calls it."""

    def __init__(self, model: Any) -> None:
        self._model = model
        #: Shape of one request, without the batch.
        self.shape, self._rows = _window(model)
        layers = _stateful_layers(model)
        self.stateful_layers = tuple(str(layer.name) for layer in layers)
        self._states = _state_variables(layers)
        self._zeros = [np.zeros(tuple(state.shape), np.float32) for state in self._states]

    @property
    def window(self) -> str:
        text = f"each request is a window of shape {self.shape}"
        if self._rows > 1:
            text += f"; a batch of {self._rows} is welded in, so each fills it with copies and the first row answers"
        return text

    def ask(self, x: F32) -> Answer:
        return self._answer(self._model.predict_on_batch, x)

    def predict(self, x: F32) -> Answer:
        return self._answer(partial(self._model.predict, batch_size=self._rows, verbose=0), x)

    def call(self, x: F32) -> Answer:
        return self._answer(partial(self._model, training=False), x)

    def fresh(self, x: F32) -> Answer:
        self.reset()
        return self.ask(x)

    def reset(self) -> None:
        """Set every recurrent state to zero, those of nested layers too; models of Keras 3 have no reset of their own.

        Assigned one by one: the layers' own `reset_state` fails on stacked cells.
        """
        for state, zeros in zip(self._states, self._zeros, strict=True):
            state.assign(zeros)

    def warm_up(self, x: F32) -> None:
        """Call each function once: the first call compiles, and would stand out among the latencies.

        The plain call comes first, whose errors name the layer; those of a compiled function begin with its graph.
        """
        for ask in (self.call, self.ask, self.predict):
            ask(x)

    @contextmanager
    def states_kept(self) -> Iterator[None]:
        kept = [np.array(state) for state in self._states]
        try:
            yield
        finally:
            for state, value in zip(self._states, kept, strict=True):
                state.assign(value)

    def _answer(self, function: Callable[[F32], Any], x: F32) -> Answer:
        try:
            return _flat(function(np.repeat(x[np.newaxis], self._rows, axis=0)))
        except Exception as error:  # whatever layers and TensorFlow raise
            raise BundleError(
                f"model {self._model.name} fails on standard normal inputs of shape {self.shape}: {_said(error)}"
            ) from error


class _Stepped:
    """A converted step, and how the daemon calls it: ticks of many requests, each with its own state, one at a time."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._lock = threading.Lock()

    def ask(self, x: F32) -> Answer:
        """Return the outputs after every tick of a window, from the initial state."""
        state, outputs = self._step.initial_state[np.newaxis], []
        for tick in x.reshape(-1, 1, self._step.n_features):
            with self._lock:
                y, state = self._step.step(tick, state)
            outputs.append(y)
        return np.concatenate(outputs).ravel().astype(np.float64)


def _window(model: Any) -> tuple[tuple[int, ...], int]:
    """Return the shape of one request without the batch, and the rows of a batch."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise BundleError(f"{type(model).__name__} has no input shape; build it with keras.Input and save it again")
    if len(inputs) != 1:
        raise BundleError(f"model {model.name} has {len(inputs)} inputs; one is supported, concatenate them")
    shape = tuple(inputs[0].shape)
    rows, *rest = shape
    if len(rest) > 1 and rest[0] is None:
        rest[0] = OPEN_STEPS
    if not rest or None in rest:
        raise BundleError(
            f"model {model.name} takes inputs of shape {shape}, expected (batch, time, features) with a fixed "
            "number of features"
        )
    return tuple(rest), rows or 1


def _stateful_layers(model: Any) -> list[Any]:
    """Walk nested models and wrappers for the recurrent layers that keep their state; each once."""
    import keras

    layers = model._flatten_layers(include_self=False, recursive=True)
    found = {id(layer): layer for layer in layers if isinstance(layer, keras.layers.RNN) and layer.stateful}
    return list(found.values())


def _state_variables(layers: Sequence[Any]) -> list[Any]:
    import keras

    return [state for layer in layers for state in keras.tree.flatten(layer.states)]


def _flat(outputs: Any) -> Answer:
    """Return the first row of every output, as one line."""
    import keras

    return np.concatenate([np.asarray(y)[0].ravel().astype(np.float64) for y in keras.tree.flatten(outputs)])


def _said(error: Exception) -> str:
    """Return what an error says in one line: Keras' first line names the layer, its second the cause, in bold."""
    lines = [line.strip() for line in _BOLD.sub("", str(error)).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__


# --- the tests --------------------------------------------------------------------------------------------------------


class _Budget:
    """Seconds that can be shared out: what one part leaves over is there for the parts after it."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self._clock = clock
        self._end = clock() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._end - self._clock())

    @property
    def spent(self) -> bool:
        return self.left <= 0

    def share(self, parts: int) -> _Budget:
        """Return the budget of the next of so many equal parts."""
        return _Budget(self.left / parts, self._clock)


@dataclass(frozen=True)
class _Fresh:
    """Inputs, shape (n, *window), their fresh answers, shape (n, outputs), and the spread, the unit of leaks."""

    inputs: F32
    answers: Answer
    spread: float

    @property
    def count(self) -> int:
        return len(self.answers)

    def leak(self, asked: Sequence[int], answers: Sequence[Answer]) -> float:
        """Return the largest difference of answers to the inputs of these numbers, in standard deviations."""
        if not np.isfinite(answers).all():
            return math.inf
        return float(np.max(np.abs(np.stack(answers) - self.answers[list(asked)]))) / self.spread


def _draw(shape: tuple[int, ...]) -> F32:
    return np.random.default_rng(SEED).standard_normal((INPUTS, *shape), dtype=np.float32)


def _ask_fresh(inputs: F32, ask: Ask, budget: _Budget) -> _Fresh:
    """Ask each input once, fewer where the budget ends; the spread is the root of the mean variance of the outputs."""
    answers: list[Answer] = []
    for x in inputs:
        if len(answers) >= INPUTS_LEAST and budget.spent:
            break
        answers.append(ask(x))
    stacked = np.stack(answers)
    if not np.isfinite(stacked).all():
        raise BundleError("the answers to standard normal inputs are not finite; nothing can be compared")
    spread = math.sqrt(float(stacked.var(axis=0).mean()))
    if not spread > 0:
        raise BundleError("the answers to different inputs are all the same; there is nothing that could leak")
    return _Fresh(inputs[: len(answers)], stacked, spread)


class _Course:
    """Takes one way to serve after the other through the tests."""

    def __init__(self, repeats: int, clock: Clock, listen: Listener) -> None:
        self._repeats = repeats
        self._clock = clock
        self._listen = listen
        self._begun = 0

    def begin(self, stage: str) -> None:
        """Tell the listener which part comes next."""
        self._listen(stage, min(1.0, self._begun / (1 + len(VARIANTS) * len(PARTS))))
        self._begun += 1

    def run(self, name: str, served: _Served, fresh: _Fresh, budget: _Budget) -> Measured:
        before = _resident_mb()
        trials, answers = {}, {}
        for left, (test, run) in zip((4, 3, 2), self._tests(), strict=True):
            self.begin(f"{name}: {test}")
            served.begin()
            asked, answers[test], planned = run(served.ask, fresh, budget.share(left))
            trials[test] = Trial(fresh.leak(asked, answers[test]), len(asked), planned)
        self.begin(f"{name}: speed")
        speed = self._speeds(served, fresh.inputs[0], budget)
        after = _resident_mb()
        return Measured(
            trials=trials,
            leak_allowed=served.leak_allowed,
            variance=_variance(answers["repeat"]),
            variance_first=_variance(answers["repeat"][:FIRST_ANSWERS]),
            speed=speed,
            inputs=fresh.count,
            memory_growth_mb=None if before is None or after is None else round(after - before, 1),
        )

    def _tests(self) -> tuple[tuple[str, _Test], ...]:
        return ("repeat", self._repeat), ("between", self._between), ("threads", self._threads)

    def _repeat(self, ask: Ask, fresh: _Fresh, budget: _Budget) -> _Asked:
        answers = [ask(fresh.inputs[0]), ask(fresh.inputs[0])]
        while len(answers) < self._repeats and not budget.spent:
            answers.append(ask(fresh.inputs[0]))
        return [0] * len(answers), answers, self._repeats

    def _between(self, ask: Ask, fresh: _Fresh, budget: _Budget) -> _Asked:
        """Ask A, B, A with another B each time."""
        rounds = -(-self._repeats // 3)
        asked: list[int] = []
        answers: list[Answer] = []
        for index in range(rounds):
            if answers and budget.spent:
                break
            other = 1 + index % (fresh.count - 1)
            asked += [0, other, 0]
            answers += [ask(fresh.inputs[number]) for number in (0, other, 0)]
        return asked, answers, 3 * rounds

    def _threads(self, ask: Ask, fresh: _Fresh, budget: _Budget) -> _Asked:
        """Ask once from each thread, all released at once; inputs differ as far as there are fresh answers."""
        gate = threading.Barrier(THREADS, timeout=GATE_SECONDS)

        def one(thread: int) -> Answer | None:
            gate.wait()
            # Two go on in any case: one alone would test nothing.
            return None if thread >= 2 and budget.spent else ask(fresh.inputs[thread % fresh.count])

        with _quick_switches(), ThreadPoolExecutor(THREADS) as pool:
            given = list(pool.map(one, range(THREADS)))
        answered = [thread for thread, answer in enumerate(given) if answer is not None]
        answers = [answer for answer in given if answer is not None]
        return [thread % fresh.count for thread in answered], answers, THREADS

    def _speeds(self, served: _Served, x: F32, budget: _Budget) -> dict[str, Speed]:
        count = len(served.timed)
        return {
            name: self._speed(ask, x, budget.share(count - index))
            for index, (name, ask) in enumerate(served.timed.items())
        }

    def _speed(self, ask: Ask, x: F32, budget: _Budget) -> Speed:
        seconds: list[float] = []
        while not seconds or (len(seconds) < self._repeats and not budget.spent):
            began = self._clock()
            ask(x)
            seconds.append(self._clock() - began)
        p50, p99 = np.percentile(seconds, (50, 99)) * 1e3
        return Speed(len(seconds), float(p50), float(p99), len(seconds) / max(sum(seconds), 1e-9))


#: Numbers of the inputs asked, the answers in the same order, and how many were planned.
_Asked = tuple[list[int], list[Answer], int]
_Test = Callable[[Ask, _Fresh, _Budget], _Asked]


def _variance(answers: Sequence[Answer]) -> float:
    with np.errstate(all="ignore"):  # answers can overflow; the leak says so
        return float(np.var(np.stack(answers), axis=0).mean())


@contextmanager
def _quick_switches() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(usual)


def _resident_mb() -> float | None:
    """Return the process' resident memory in MB, None where the system has no /proc."""
    try:
        pages = int(_STATM.read_text("ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
