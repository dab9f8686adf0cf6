"""Findings from fitting small models a few times: on the amount of data, the size of the network, the learning rate.

The same network is fitted from fresh weights with the same number of updates each time, on the latest 25, 50 and 100 %
of the fitting samples, with twice the units, and at multiples of the learning rate. What it explains is
measured on the samples after the split. A gain counts only beyond its noise: the standard error over the samples, whose
dependence is known, and the spread between two seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from daemon.doctor.finding import Check, Measurement, Outcome, Skipped, judge, register, skip_all
from daemon.doctor.samples import Samples
from daemon.errors import BundleError
from daemon.judging.long_run import mean_error

if TYPE_CHECKING:
    from daemon.doctor.networks import Learner

F64 = NDArray[np.float64]

TOO_LITTLE_DATA = register(
    Check(
        code="too_little_data",
        of=("data", "model"),
        severity="warning",
        title="more data would help: the learning curve still rises",
        measures="R² gained from the latest 50 % to all fitting samples, less two standard errors",
        limit=0.01,
        form="number",
        remedy="give more ticks, from more days or instruments, before more units or layers",
    )
)
TOO_LITTLE_CAPACITY = register(
    Check(
        code="too_little_capacity",
        of=("model",),
        severity="warning",
        title="a larger network would do better",
        measures="R² gained by twice the units in every recurrent layer, less two standard errors",
        limit=0.01,
        form="number",
        remedy="double the units of the recurrent layers, and look again",
    )
)
RATE_HIGH = register(
    Check(
        code="learning_rate_high",
        of=("model",),
        severity="problem",
        title="the learning rate is too high: the loss grows or jumps",
        measures="training loss at the end over the least of: those at 1/3 and 1/30 of the rate, that before training",
        limit=1.1,
        form="number",
        remedy="divide the learning rate by 3, and look again; bound gradients with clipnorm=1.0",
    )
)
RATE_LOW = register(
    Check(
        code="learning_rate_low",
        of=("model",),
        severity="warning",
        title="the learning rate is too low: three times as much learns far more in the same time",
        measures="fall of the training loss at three times the rate over the fall at the rate given; where it hardly "
        "falls at either, at thirty times",
        limit=2.0,
        form="number",
        remedy="multiply the learning rate by 3, and look again",
    )
)
CHECKS = (TOO_LITTLE_DATA, TOO_LITTLE_CAPACITY, RATE_HIGH, RATE_LOW)

BATCH = 64
#: Updates of one fit: fewer say nothing, more no longer change what comes out here.
UPDATES_MIN, UPDATES_MAX = 100, 1500
#: Samples that a fit is judged on, and its training loss measured on.
JUDGED = 2000
#: Fewer samples to fit on: nothing to halve.
SAMPLES_MIN = 400
#: The held-out error is taken at its best of so many points, as early stopping would.
LOOKS = 6
#: A loss that falls by less than this share has nothing to learn fast.
FALL_MIN = 0.02
#: At thirty times the rate some of the fall is noise learned by heart.
FAST_FALL_MIN = 0.1
#: Multiples of the learning rate that are tried beside it.
FACTORS = (1 / 30, 1 / 3, 3.0, 30.0)
SEEDS = (0, 1)
#: Cost of a network with twice the units, in fits of the other.
DOUBLE_COST = 2.5


@dataclass(frozen=True)
class Fit:
    """What came of one fit."""

    #: Squared error of each sample held out, at its best look.
    errors: F64
    #: On fitting samples, before and after.
    loss_before: float
    loss_after: float


@dataclass(frozen=True)
class Lesson:
    """What is learned from: samples to fit on, and to judge on."""

    samples: Samples
    #: shape (samples, outputs)
    y: F64

    @property
    def fitting(self) -> int:
        """Samples to fit on: none whose target looks past the split."""
        return max(self.samples.cut - self.samples.horizon, 0)

    def batch(self, at: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return inputs and targets of some samples."""
        return self.samples.inputs(at), self.y[at].astype(np.float32)


class Tutor:
    """Fits learners within a budget of time, each with the same number of updates."""

    def __init__(self, lesson: Lesson, rate: float, listen: Callable[[float], None]) -> None:
        self._lesson = lesson
        self._rate = rate
        self._listen = listen
        self._judged = lesson.samples.spread(JUDGED, lesson.samples.cut)
        self._seen = lesson.samples.spread(JUDGED, 0, lesson.fitting)
        self._updates = 0
        self._done = self._planned = 1.0

    def plan(self, learner: Learner, fits: float, ends_at: float) -> int:
        """Time a few updates, and set how many each of so many fits may have; 0 where the time is too short."""
        learner.start(0, self._rate)
        every = np.arange(BATCH) % max(self._lesson.fitting, 1)
        learner.update(*self._lesson.batch(every))  # traces
        learner.errors(*self._lesson.batch(self._judged))
        learner.errors(*self._lesson.batch(self._seen))
        began = time.monotonic()
        for _ in range(10):
            learner.update(*self._lesson.batch(every))
        a_update = (time.monotonic() - began) / 10
        began = time.monotonic()
        learner.errors(*self._lesson.batch(self._judged))
        looks = (LOOKS + 2) * (time.monotonic() - began)
        updates = int(((ends_at - time.monotonic()) / fits - looks) / a_update)
        self._updates = min(updates, UPDATES_MAX) if updates >= UPDATES_MIN else 0
        self._done, self._planned = 0.0, fits
        return self._updates

    def fit(self, learner: Learner, seed: int, share: float = 1.0, factor: float = 1.0, cost: float = 1.0) -> Fit:
        """Fit from fresh weights on the latest share of the fitting samples, at so many times the rate."""
        lesson = self._lesson
        random = np.random.default_rng(seed)
        learner.start(seed, self._rate * factor)
        low = int(lesson.fitting * (1 - share))
        seen = lesson.batch(self._seen)
        before = float(learner.errors(*seen).mean())
        held = lesson.batch(self._judged)
        best = learner.errors(*held)
        looks = set(np.linspace(self._updates / LOOKS, self._updates, LOOKS).astype(int).tolist())
        for update in range(1, self._updates + 1):
            learner.update(*lesson.batch(random.integers(low, lesson.fitting, BATCH)))
            if update in looks:
                errors = learner.errors(*held)
                if not np.mean(errors) >= np.mean(best):
                    best = errors
                self._listen((self._done + cost * update / self._updates) / self._planned)
        self._done += cost
        return Fit(best.astype(np.float64), before, float(learner.errors(*seen).mean()))

    def gain(self, worse: Sequence[Fit], better: Sequence[Fit]) -> tuple[float, float]:
        """Return by how much R² grows from the one set of fits to the other, and its standard error."""
        truth = self._lesson.y[self._judged]
        spread = float(np.mean((truth - truth.mean(axis=0)) ** 2)) or 1.0
        before, after = (np.mean([fit.errors for fit in fits], axis=0) / spread for fits in (worse, better))
        stride = max(len(self._lesson.samples) - self._lesson.samples.cut, 1) / len(self._judged)
        error, _ = mean_error(before - after, max(int(self._lesson.samples.horizon / stride), 1))
        seeds = sum(float(np.var([fit.errors.mean() / spread for fit in fits], ddof=1)) for fits in (worse, better))
        return float(np.mean(before - after)), float(np.sqrt(np.nan_to_num(error) ** 2 + seeds / len(SEEDS)))

    def explained(self, fits: Sequence[Fit]) -> float:
        """Return the R² of fits, mean over their seeds."""
        truth = self._lesson.y[self._judged]
        spread = float(np.mean((truth - truth.mean(axis=0)) ** 2)) or 1.0
        return 1 - float(np.mean([fit.errors.mean() for fit in fits])) / spread


def examine_learning(
    lesson: Lesson,
    make: Callable[[], Learner],
    make_double: Callable[[], Learner] | None,
    rate: float,
    budget_seconds: float,
    listen: Callable[[float], None],
) -> Iterator[Outcome]:
    """Fit and compare.

    Parameters
    ----------
    make, make_double : the learner, and one with twice the units; without the second only the data are judged
    rate : learning rate of Adam
    budget_seconds : for all fits together
    """
    wanted = CHECKS if make_double else (TOO_LITTLE_DATA,)
    if lesson.fitting < SAMPLES_MIN or len(lesson.samples) - lesson.samples.cut < SAMPLES_MIN / 4:
        yield from skip_all(wanted, f"{len(lesson.samples)} samples are too few to fit on parts of them")
        return
    if not np.ptp(lesson.y[: lesson.fitting], axis=0).any():
        yield from skip_all(wanted, "the targets never change")
        return
    began = time.monotonic()
    base = make()
    tutor = Tutor(lesson, rate, listen)
    fits = len(SEEDS) * 3.0 + (len(FACTORS) + len(SEEDS) * DOUBLE_COST if make_double else 0)
    if not tutor.plan(base, fits, began + budget_seconds):
        more = f"--budget {budget_seconds:.0f} allows fewer than {UPDATES_MIN} updates for each fit; give more seconds"
        yield from skip_all(wanted, more)
        return
    by_share = {share: [tutor.fit(base, seed, share) for seed in SEEDS] for share in (0.25, 0.5, 1.0)}
    yield _data(tutor, by_share)
    if make_double:
        yield from rates({1.0: by_share[1.0][0]} | {at: tutor.fit(base, SEEDS[0], factor=at) for at in FACTORS})
        try:
            double = make_double()
        except BundleError as error:
            yield Skipped(TOO_LITTLE_CAPACITY, str(error))
            return
        yield _capacity(tutor, by_share[1.0], [tutor.fit(double, seed, cost=DOUBLE_COST) for seed in SEEDS])


def rates(fits: Mapping[float, Fit]) -> Iterator[Outcome]:
    """Judge the learning rate by the training losses at multiples of it.

    Parameters
    ----------
    fits : by the multiple of the rate, one of them 1
    """
    given = fits[1.0]
    losses = ", ".join(f"{fits[at].loss_after:.3g} at {at:.3g} x" for at in sorted(fits))
    detail = f"training loss from {given.loss_before:.3g} to {losses} the rate"
    least = min([given.loss_before, *(fit.loss_after for at, fit in fits.items() if at < 1)])
    yield judge(RATE_HIGH, [Measurement(given.loss_after / least if least > 0 else 1.0, detail=detail)])
    fall = given.loss_before - given.loss_after
    for at, enough in ((3.0, FALL_MIN), (30.0, FAST_FALL_MIN)):
        faster = given.loss_before - fits[at].loss_after
        if faster > enough * given.loss_before:
            yield judge(RATE_LOW, [Measurement(faster / fall if fall > 0 else np.inf, detail=detail)])
            return
    yield Skipped(RATE_LOW, "the loss hardly falls at any rate")


def _data(tutor: Tutor, by_share: dict[float, list[Fit]]) -> Outcome:
    gain, error = tutor.gain(by_share[0.5], by_share[1.0])
    curve = ", ".join(f"{100 * share:.0f} %: {tutor.explained(fits):+.4f}" for share, fits in by_share.items())
    detail = f"R² by share of the fitting samples {curve}; gain {gain:+.4f}, standard error {error:.4f}"
    return judge(TOO_LITTLE_DATA, [Measurement(gain - 2 * error, detail=detail)])


def _capacity(tutor: Tutor, fits: Sequence[Fit], doubled: Sequence[Fit]) -> Outcome:
    gain, error = tutor.gain(fits, doubled)
    detail = f"R² {tutor.explained(fits):+.4f}, with twice the units {tutor.explained(doubled):+.4f}; "
    detail += f"gain {gain:+.4f}, standard error {error:.4f}"
    return judge(TOO_LITTLE_CAPACITY, [Measurement(gain - 2 * error, detail=detail)])
