"""The probe: whether a Keras model gives the same answer to the same input.

A stateful layer keeps its state from call to call, so a service that holds such a model answers one request out of the
state of another. Three tests bring that to light, each from the state of a fresh start (`trials`), and four ways to
serve the model go through them (`ways`): as it is; every recurrent layer reset before each call, without a lock and
with one; and the converted step, which takes its state as an argument.

The verdict is the *leak*: the largest |answer - fresh answer| over the standard deviation of the fresh answers to 100
different inputs. A fresh answer is that of a model freshly reset, or of a first chain of the converted step. Variance,
time and memory stand beside it and judge nothing.

Invariants
----------
- Answers are compared with fresh answers of the same function, so that rounding cannot look like a leak: the model's
  come from `predict_on_batch`, the compiled function that `predict` runs too.
- Every test gets at least its first answers, however small the budget is; with fewer than enough of them the verdict
  is "not enough", never "no leak".
- The model's states are afterwards what they were before.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from daemon.core.step import F32, Step
from daemon.errors import BundleError
from daemon.model.probe.budget import Budget, Clock
from daemon.model.probe.costs import Speed, resident_mb, time_calls
from daemon.model.probe.report import Measured, Refused, Report
from daemon.model.probe.trials import TESTS, Fresh, Trial, ask_fresh, draw_inputs
from daemon.model.probe.ways import ServedModel, ServedStep, Way, as_converted, converted_step
from daemon.model.selftest import TOLERANCE

__all__ = ["Listener", "Measured", "Refused", "Report", "Speed", "Trial", "probe"]

#: In the order in which they run.
WAYS = ("as_is", "reset_unlocked", "reset", "converted")

#: Takes the way and the part of it that come next, and which share of the whole is done, 0 to 1.
Listener = Callable[[str, str, float], None]


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
        restored at the end. Inputs are normal, float32, from a fixed seed: standard, or in the scale of a Normalization
        in front. A time dimension left open takes 10 steps; where a batch size is welded in, each request fills the
        batch with copies and its first row answers.
    repeats : answers of *repeat* and, about, of *between*; calls of each speed. At least 2.
    budget_seconds : shared among fresh answers, ways and tests; a test that runs out stops early and says so
    step : judged as the converted step instead of the model's own, so that a check of this check can plant a leak
    clock : returns seconds; from it come latencies and the budget
    listen : told of each part before it begins

    Raises
    ------
    BundleError : if it is no model of one input, fails on the inputs, or its answers are not finite or all the same
    """
    served = ServedModel(as_converted(model))
    inputs = draw_inputs(served.shape, served.scale)
    whole = Budget(budget_seconds, clock)
    course = _Course(max(2, repeats), listen or (lambda way, part, done: None))
    with served.states_kept():
        course.begin("fresh", "answers")
        served.warm_up(inputs[0])
        fresh = ask_fresh(inputs, served.fresh, whole.share(1 / (len(WAYS) + 1)))
        as_is, reset_unlocked, reset = (
            course.run(name, way, fresh, whole.share(1 / (len(WAYS) - index)))
            for index, (name, way) in enumerate(served.ways().items())
        )
    converted = _probe_converted(model, step, inputs, fresh, course, whole)
    return Report(
        model=str(model.name),
        shape=served.shape,
        rows=served.rows,
        scaled=served.scale is not None,
        stateful_layers=served.stateful_layers,
        as_is=as_is,
        reset_unlocked=reset_unlocked,
        reset=reset,
        converted=converted,
    )


def _probe_converted(
    model: Any, step: Step | None, inputs: F32, fresh: Fresh, course: _Course, whole: Budget
) -> Measured | Refused:
    try:
        served = ServedStep(step or converted_step(model))
        own = ask_fresh(inputs, served.ask, whole.share(0.3))
    except BundleError as error:
        return Refused(str(error))
    found = course.run("converted", served.way(), own, whole)
    difference = _difference(own, fresh)
    if found.verdict != "leaks" and not difference <= TOLERANCE:
        return Refused(f"carried from tick to tick it differs by {difference:.2e} from the model's own answers")
    return dataclasses.replace(found, difference=difference)


def _difference(converted: Fresh, model: Fresh) -> float:
    """Compare the outputs after the last ticks: a model may answer after all of them or after the last alone."""
    count = min(converted.count, model.count)
    width = min(converted.answers.shape[1], model.answers.shape[1])
    a, b = (fresh.answers[:count, -width:] for fresh in (converted, model))
    return float(np.max(np.abs(a - b) / np.maximum(1, np.abs(b))))


class _Course:
    """Takes one way to serve after the other through the tests."""

    def __init__(self, repeats: int, listen: Listener) -> None:
        self._repeats = repeats
        self._listen = listen
        self._begun = 0

    def begin(self, way: str, part: str) -> None:
        """Tell the listener which part comes next."""
        parts = 1 + len(WAYS) * (len(TESTS) + 1)
        self._listen(way, part, self._begun / parts)
        self._begun += 1

    def run(self, name: str, way: Way, fresh: Fresh, budget: Budget) -> Measured:
        before = resident_mb()
        trials = {}
        for test, (run, share) in TESTS.items():
            self.begin(name, test)
            way.begin()
            trials[test] = run(way, fresh, self._repeats, budget.share(share))
        self.begin(name, "speed")
        speed = time_calls(way.timed, fresh.inputs[0], self._repeats, budget)
        after = resident_mb()
        growth = None if before is None or after is None else round(after - before, 1)
        return Measured(trials, way.leak_allowed, speed, fresh.count, fresh.seconds_each, growth)
