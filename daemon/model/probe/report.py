"""What the probe found: the verdict of each way to serve, and the figures beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from daemon.model.probe.costs import Speed
from daemon.model.probe.trials import FIRST_ANSWERS, THREADS, Trial

#: Share of the budget that is left for the threads of each way, whatever the parts before it took: 0.13, and 0.09 for
#: the converted step, which needs fresh answers of its own.
THREADS_SHARE = 0.08

Verdict = Literal["leaks", "no leak", "not enough", "cannot convert"]


@dataclass(frozen=True)
class Measured:
    """What was found of one way to serve.

    Parameters
    ----------
    trials : by test: repeat, between, threads
    leak_allowed : the largest leak that counts as none, in standard deviations
    speed : by the function called: `predict` and `model(x)`; of the converted step a `window` and one `tick`
    inputs, seconds_each : different inputs that the standard deviation comes from, and what a fresh answer took
    memory_growth_mb : growth of the process' resident memory, None where the system does not tell
    difference : of the converted step: largest |a - b| / max(1, |b|) of its fresh answers to the model's own
    """

    trials: Mapping[str, Trial]
    leak_allowed: float
    speed: Mapping[str, Speed]
    inputs: int
    seconds_each: float
    memory_growth_mb: float | None
    difference: float | None = None

    @property
    def verdict(self) -> Verdict:
        """One answer that leaks is enough for `leaks`; `no leak` takes enough answers in each test."""
        if self.leak > self.leak_allowed:
            return "leaks"
        return "no leak" if all(trial.is_enough for trial in self.trials.values()) else "not enough"

    @property
    def leak(self) -> float:
        """The largest leak of the three tests, in standard deviations."""
        return max(trial.leak for trial in self.trials.values())

    @property
    def leaking(self) -> tuple[str, ...]:
        """Names of the tests that found a leak."""
        return tuple(name for name, trial in self.trials.items() if trial.leak > self.leak_allowed)

    @property
    def variance(self) -> float:
        """Variance of all answers of *repeat*, mean over the outputs, in their unit squared.

        No verdict: the state converges while the same input goes in again and again, so that this variance shrinks
        with the number of repeats and looks better the longer one measures.
        """
        return _variance(self.trials["repeat"])

    @property
    def variance_first(self) -> float:
        """Variance of the first five answers of *repeat*: what a short look at the model would find."""
        return _variance(self.trials["repeat"], FIRST_ANSWERS)


@dataclass(frozen=True)
class Refused:
    """Why a model has no converted step."""

    reason: str
    verdict: Verdict = "cannot convert"


@dataclass(frozen=True)
class Report:
    """What the probe found.

    Parameters
    ----------
    shape, rows : of one request without the batch; of the batch it is sent in, which is filled with copies
    scaled : the inputs have the scale of the model's own Normalization, not mean 0 and deviation 1
    stateful_layers : names of the recurrent layers that keep their state from call to call
    """

    model: str
    shape: tuple[int, ...]
    rows: int
    scaled: bool
    stateful_layers: tuple[str, ...]
    as_is: Measured
    reset_unlocked: Measured
    reset: Measured
    converted: Measured | Refused

    @property
    def ways(self) -> dict[str, Measured | Refused]:
        return {
            "as_is": self.as_is,
            "reset_unlocked": self.reset_unlocked,
            "reset": self.reset,
            "converted": self.converted,
        }

    @property
    def budget_enough(self) -> int:
        """Seconds, in tens, in which 50 threads get their answers whichever way they are served."""
        slowest = max(way.seconds_each for way in self.ways.values() if isinstance(way, Measured))
        return 10 * math.ceil(THREADS * slowest / THREADS_SHARE / 10)


def _variance(trial: Trial, first: int | None = None) -> float:
    with np.errstate(all="ignore"):  # answers can overflow; the leak says so
        return float(np.var(trial.answers[:first], axis=0).mean())
