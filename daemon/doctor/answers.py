"""Findings on what a model answers: always the same, a level that is known already, and how far back it looks.

How much forecasts should move depends on what can be known: a forecast with an R² of 1 % moves with 1 % of the
variance of the truth, and on a random walk a constant is the best there is. So the variance of forecasts is held
against what the best simple predictor explains.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register
from daemon.doctor.leakage import LEAKING
from daemon.doctor.linear import ridge, single_r2s
from daemon.doctor.worth import RANDOM_WALK, interval_of, worth_of
from daemon.judging.blocks import Estimate

F64 = NDArray[np.float64]

COLLAPSED = register(
    Check(
        code="collapsed_predictions",
        of=("model", "bundle"),
        severity="warning",
        title="the model says about the same all the time, though there is something to say",
        measures="variance of the forecasts over the variance that they should have: what the best simple predictor "
        "explains for sure (model), the variance in validation (bundle)",
        limit=0.1,
        problem_limit=0.01,
        beyond="below",
        form="number",
        remedy="look at the findings on scales, learning rate and gradients first; then train longer, without dropout",
    )
)
LEVEL_TARGET = register(
    Check(
        code="level_target",
        of=("model",),
        severity="warning",
        title="the target is a level that the last value of a column nearly gives",
        measures="R² of the best column at the last step, alone, against the mean",
        limit=0.95,
        form="number",
        remedy="forecast the difference to the last value: a model of levels looks right by repeating it, a step late",
    )
)
VANISHING = register(
    Check(
        code="vanishing_gradient",
        of=("model",),
        severity="warning",
        title="the first steps of the window have no say",
        measures="norm of d output / d input at the first step over that at the last",
        limit=1e-4,
        beyond="below",
        form="number",
        remedy="cut shorter windows, or let the layer remember: LSTM or GRU for SimpleRNN, a forget bias of 1 and more",
    )
)
EXPLODING = register(
    Check(
        code="exploding_gradient",
        of=("model",),
        severity="warning",
        title="the first steps of the window have far more say than the last",
        measures="norm of d output / d input at the first step over that at the last",
        limit=1e3,
        form="number",
        remedy="bound gradients (clipnorm=1.0), use LSTM or GRU, or a smaller learning rate",
    )
)
SHUFFLED_WINDOWS = register(
    Check(
        code="shuffled_windows",
        of=("model",),
        severity="problem",
        title="windows were shuffled before they were split",
        measures="share of the windows whose successor in time stands elsewhere than next",
        limit=0.2,
        remedy="split in time first and shuffle the training part alone: neighbours share all rows but one, so a "
        "random split judges on rows that were fitted on",
    )
)

#: A step counts as seen where its gradient is at least this share of the largest.
SEEN = 0.01
#: Consecutive targets this alike are levels, or returns over hundreds of ticks.
LEVEL_AUTOCORRELATION = 0.98
SHUFFLE_SAMPLES = 20_000


def examine_answers(
    last: F64, context: F64, y: F64, answer: F32 | None, begin: int, horizon: int, names: Sequence[str]
) -> Iterator[Outcome]:
    """Judge targets and answers against what simple predictors reach.

    Parameters
    ----------
    last : shape (samples, features): the columns at the last step of each window
    context : shape (samples, columns): what the simple predictor may use
    y : shape (samples, outputs)
    answer : shape (samples - begin, outputs): the model's answers to the last samples; None where their units are
        not those of y
    horizon : samples that a target looks ahead
    """
    level = _levels(last, y, names)
    yield judge(LEVEL_TARGET, level, otherwise="too few samples")
    is_level = any(LEVEL_TARGET.found_at(each.value) for each in level)
    centred = y - y[:begin].mean(axis=0)
    if is_level:
        yield judge(LEAKING, [], otherwise="the target is a level")
    else:
        found = [
            Measurement(float(r2) - own, column=name, detail=f"y {at}: R² {r2:.3f}, its own past explains {own:.3f}")
            for at in range(y.shape[1])
            for own in [_own_past(centred[:, at], horizon)]
            for r2, name in zip(single_r2s(last, centred[:, at], horizon), names, strict=True)
            if np.isfinite(r2)
        ]
        yield judge(LEAKING, found, otherwise="too few samples")
    simple = [ridge(context, centred[:, at], horizon)[1] for at in range(y.shape[1])]
    yield random_targets(simple)
    yield collapsed(answer, y[begin:], simple)


def random_targets(simple: Sequence[Estimate]) -> Outcome:
    """Judge whether the simple predictor finds anything, for any output."""
    known = [(at, each) for at, each in enumerate(simple) if np.isfinite(each.low)]
    if not known:
        return judge(RANDOM_WALK, [], otherwise="too few samples")
    detail = ", ".join(f"y {at}: {interval_of(each)}" for at, each in known)
    return judge(RANDOM_WALK, [Measurement(max(worth_of(each) for _, each in known), detail=f"R² of {detail}")])


def collapsed(answer: F32 | None, truth: F64, simple: Sequence[Estimate]) -> Outcome:
    """Judge the variance of answers against what the simple predictor explains for sure.

    Parameters
    ----------
    answer, truth : shape (samples, outputs)
    simple : R² of the simple predictor for each output
    """
    if answer is None:
        why = "ticks do not say the units of the answers; give your own arrays, or convert and ask `doctor bundle`"
        return judge(COLLAPSED, [], otherwise=why)
    found = []
    for at, each in enumerate(simple):
        spread = float(truth[:, at].var())
        if each.low > 0 and spread > 0:
            share = float(answer[:, at].astype(np.float64).var()) / spread
            detail = (
                f"forecasts have {share:.2g} of the variance of the truth, a ridge explains {each.low:.2g} and more"
            )
            found.append(Measurement(share / each.low, column=f"y {at}", detail=detail))
    return judge(COLLAPSED, found, otherwise="nothing here can be forecast for sure, so a constant may be right")


def gradients(norms: F64) -> Iterator[Outcome]:
    """Judge the norm of d output / d input for each step, oldest first."""
    if len(norms) < 2 or not norms.max() > 0:
        reason = "the window has one step" if len(norms) < 2 else "the output depends on no input"
        yield judge(VANISHING, [], otherwise=reason)
        yield judge(EXPLODING, [], otherwise=reason)
        return
    ratio = float(norms[0] / norms[-1]) if norms[-1] > 0 else np.inf
    seen = int(np.sum(norms >= SEEN * norms.max()))
    picked = np.unique(np.linspace(0, len(norms) - 1, min(len(norms), 6)).astype(int))[::-1]
    by_step = ", ".join(f"{len(norms) - 1 - at} back {norms[at]:.2g}" for at in picked)
    detail = f"{seen} of {len(norms)} steps have a say of 1 % and more; norms: {by_step}"
    command = f"windows of {seen} steps would do" if VANISHING.found_at(ratio) else None
    yield judge(VANISHING, [Measurement(ratio, rows=f"{len(norms)} steps", detail=detail)], command=command)
    yield judge(EXPLODING, [Measurement(ratio, rows=f"{len(norms)} steps", detail=detail)])


def shuffled_windows(x: F32) -> Outcome:
    """Judge the order of windows that overlap."""
    if x.ndim != 3 or x.shape[1] < 2:
        return judge(SHUFFLED_WINDOWS, [], otherwise="windows of one step do not overlap")
    x = np.ascontiguousarray(x[:SHUFFLE_SAMPLES])
    heads: dict[bytes, int] = {window[:-1].tobytes(): at for at, window in enumerate(x)}
    after = [heads.get(window[1:].tobytes()) for window in x]
    known = [(at, there) for at, there in enumerate(after) if there is not None and there != at]
    if len(known) < 0.5 * len(x):
        return judge(SHUFFLED_WINDOWS, [], otherwise="the windows do not overlap by all rows but one")
    elsewhere = np.mean([not np.array_equal(x[(at + 1) % len(x), :-1], x[at, 1:]) for at, _ in known])
    return judge(SHUFFLED_WINDOWS, [Measurement(float(elsewhere), column="X")])


def _own_past(y: F64, horizon: int) -> float:
    """Return the share of a target that its last known value explains."""
    if len(y) <= horizon or not y.any():
        return 0.0
    alike = float(np.dot(y[horizon:], y[:-horizon]) / np.dot(y, y))
    return alike * alike


def _levels(last: F64, y: F64, names: Sequence[str]) -> list[Measurement]:
    found = []
    for at in range(y.shape[1]):
        centred = y[:, at] - y[:, at].mean()
        spread = float(np.dot(centred, centred))
        if len(y) < 400 or not spread > 0:
            continue
        alike = float(np.dot(centred[1:], centred[:-1])) / spread
        if alike < LEVEL_AUTOCORRELATION:
            found.append(Measurement(0.0, column=f"y {at}"))
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            r2s = np.nan_to_num([np.corrcoef(column, y[:, at])[0, 1] ** 2 for column in last.T])
        best = int(np.argmax(r2s))
        detail = f"y {at} follows {names[best]}; consecutive targets have a correlation of {alike:.4f}"
        found.append(Measurement(float(r2s[best]), column=names[best], detail=detail))
    return found
