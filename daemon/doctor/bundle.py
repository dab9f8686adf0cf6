"""Examines a bundle by running it over ticks: what it refuses, what it sees, what it answers, what that is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.core.sessions import Rules
from daemon.doctor.answers import COLLAPSED
from daemon.doctor.data import facts
from daemon.doctor.finding import Check, Measurement, Outcome, Report, Severity, judge, register, registered, skip_all
from daemon.doctor.material import Listener, Material, gather
from daemon.doctor.pauses import short_sessions
from daemon.doctor.prices import constant_prices, few_ticks
from daemon.doctor.running import Forecasts, Watched, run
from daemon.doctor.scales import PAST_SPLIT, closer
from daemon.doctor.ticks import examine_rows
from daemon.doctor.worth import interval_of
from daemon.errors import BundleError
from daemon.judging.statistics import Rows, mean_r2, r2, r2_difference, time_cells
from daemon.model.bundle import Bundle
from daemon.model.selftest import TOLERANCE, golden_difference, self_test

F64 = NDArray[np.float64]

SELF_TEST = register(
    Check(
        code="self_test",
        of=("bundle",),
        severity="problem",
        title="the bundle does not give its own model's answers",
        measures="largest difference between the step and Keras on the golden sequence, relative above 1",
        limit=TOLERANCE,
        form="number",
        remedy="convert the model again; the daemon refuses to run this bundle",
    )
)
DEAD_LETTERS = register(
    Check(
        code="dead_letters",
        of=("bundle",),
        severity="warning",
        title="ticks would become dead letters",
        measures="share of the readable ticks, by reason",
        limit=0.0,
        problem_limit=0.01,
        remedy="send the fields that the model reads; docs/messages.md says what each reason means",
    )
)
OTHER_SCALES = register(
    Check(
        code="other_statistics",
        of=("bundle",),
        severity="warning",
        title="columns have other statistics than those the bundle was scaled with",
        measures="distance of a column's mean from 0, or of its deviation from 1 (as a ratio, less 1), as the model "
        "sees it; only beyond five standard errors",
        limit=1.0,
        problem_limit=5.0,
        form="number",
        remedy="look whether the column holds the same thing in the same unit as in training; train on newer ticks, or "
        "with running scales",
    )
)
SEEN_BEFORE = register(
    Check(
        code="trained_on_these",
        of=("bundle",),
        severity="note",
        title="the bundle was fitted on some of these ticks",
        measures="share of the ticks within the time that the bundle was trained and validated on",
        limit=0.0,
        remedy="skill is judged on the later ticks alone, where there are at least 1,000; give ticks of another day",
    )
)
WORSE = register(
    Check(
        code="worse_than_naive",
        of=("bundle",),
        severity="problem",
        title="forecasts are worse than 'no change', and not by chance",
        measures="upper end of the interval of R² against 'no change' (95 % for all instruments and horizons at once)",
        limit=0.0,
        beyond="below",
        form="number",
        remedy="do not run it on these instruments or horizons; look at other_statistics, and train on ticks of them",
    )
)
NO_SKILL = register(
    Check(
        code="no_measurable_skill",
        of=("bundle",),
        severity="note",
        title="no skill can be measured at any horizon",
        measures="lower end of the 95 % interval of R², mean over the instruments, at the best horizon",
        limit=0.0,
        beyond="below",
        form="number",
        remedy="`tickcast doctor data` says whether there is anything to forecast; give more ticks to be sure",
    )
)
STATE_WORTH = register(
    Check(
        code="state_without_worth",
        of=("bundle",),
        severity="note",
        title="the carried state does not earn its keep",
        measures="lower end of the 95 % interval of the R² gained by carrying the state, against the same model reset "
        "at every tick, at the best horizon",
        limit=0.0,
        beyond="below",
        form="number",
        remedy="a model without memory does as well here: train longer, or take features that remember less themselves",
    )
)

#: Ticks after the training span that are enough to judge on.
LATER_MIN = 1000
#: A shift of a column counts beyond so many standard errors.
STANDARD_ERRORS = 5.0
#: A deviation so many times smaller than in training is that of a column that stands still.
RATIO_MAX = 1000.0


def examine_bundle(
    path: Path, data: Sequence[Path], rules: Rules, *, listen: Listener = lambda stage, done: None
) -> Report:
    """Examine a bundle on tick files.

    Raises
    ------
    BundleError : no bundle, or one that was changed
    TickFileError : a file is missing or no table of ticks
    """
    bundle = Bundle.load(path)
    material = gather(data, rules, [column.feature for column in bundle.spec.columns], listen)
    outcomes = [*examine_rows(material.sheets), *_of_bundle(bundle, material, data, rules, listen)]
    done = {outcome.check.code for outcome in outcomes}
    rest = [check for check in registered() if "bundle" in check.of and check.code not in done]
    why = material.error or "the self-test comes first"
    outcomes = [outcome for outcome in outcomes if "bundle" in outcome.check.of]
    about = {"id": bundle.id, **facts(material)}
    return Report("bundle", str(path), about, (*outcomes, *skip_all(rest, why)))


def _of_bundle(
    bundle: Bundle, material: Material, data: Sequence[Path], rules: Rules, listen: Listener
) -> Iterator[Outcome]:
    try:
        step = self_test(bundle)
    except BundleError as error:
        yield judge(SELF_TEST, [Measurement(np.inf, detail=str(error))])
        return
    difference = golden_difference(bundle.model_step(), bundle.golden_inputs, bundle.golden_outputs)
    yield judge(SELF_TEST, [Measurement(difference)])
    yield few_ticks({name: len(sheet) for name, sheet in material.sheets.by_instrument.items()})
    if not material.sheets.readable_count:
        return
    if not material.error:
        yield constant_prices(material.tracks)
        yield short_sessions(material.tracks, bundle.spec.horizons)
        yield past_split(bundle, material)
    watched = Watched(step)
    count = material.sheets.readable_count
    carried = run(bundle.spec, watched, rules, data, lambda done: listen("running", done / count))
    yield _dead_letters(carried)
    if not carried.by_instrument:
        return
    yield from _of_step(bundle, watched)
    yield from _of_skill(bundle, carried)
    if bundle.spec.mode != "carried" or not step.state_size:
        yield judge(STATE_WORTH, [], otherwise="the model carries no state from tick to tick")
        return
    reset = run(bundle.spec, watched.forgetful(), rules, data, lambda done: listen("running reset", done / count))
    yield state_worth(bundle, carried, reset)


def _dead_letters(found: Forecasts) -> Outcome:
    whole = max(found.tick_count, 1)
    measured = [
        Measurement(
            letters.count / whole,
            rows=f"from tick {letters.first}",
            detail=f"{letters.count} {reason}: {letters.detail}",
        )
        for reason, letters in found.dead_letters.items()
    ]
    return judge(DEAD_LETTERS, measured or [Measurement(0.0)])


def _of_step(bundle: Bundle, watched: Watched) -> Iterator[Outcome]:
    mean, std, error = watched.inputs()
    shifts = []
    for at, column in enumerate(bundle.spec.columns):
        off, deviation = abs(float(mean[at])), float(std[at])
        stands = deviation < 1 / RATIO_MAX
        ratio = RATIO_MAX if stands else max(deviation, 1 / deviation) - 1
        if off > STANDARD_ERRORS * error[at] or ratio > off:
            spread = "it stands still" if stands else f"standard error {error[at]:.2g}, deviation {deviation:.3g}"
            shifts.append(Measurement(max(off, ratio), column=column.feature, detail=f"mean {mean[at]:+.3g}, {spread}"))
    yield judge(OTHER_SCALES, shifts or [Measurement(0.0)])
    expected, variance = bundle.manifest.validation_variance, watched.variance_of_means(bundle.spec.outputs)
    if not expected:
        yield judge(COLLAPSED, [], otherwise="the bundle does not say how much its forecasts vary in validation")
        return
    detail = f"variance {variance:.3g} here, {expected:.3g} in validation, in output units"
    yield judge(COLLAPSED, [Measurement(variance / expected, detail=detail)])


def _of_skill(bundle: Bundle, found: Forecasts) -> Iterator[Outcome]:
    span = trained_span(bundle)
    share = found.share_within(*span) if span is not None else 0.0
    notes = bundle.manifest.trained_on
    detail = f"trained and validated from {notes.get('from')} to {notes.get('to')}" if span is not None else ""
    yield judge(SEEN_BEFORE, [Measurement(share, detail=detail)])
    since = judged_since(bundle, found)
    horizons = bundle.spec.horizons
    single, pooled = [], []
    z = _z_for(len(found.by_instrument) * len(horizons))
    for at, horizon in enumerate(horizons):
        for name, tape in found.by_instrument.items():
            ahead = tape.ahead(at, since)
            estimate = r2(ahead.move, ahead.forecast, horizon)
            if np.isfinite(estimate.standard_error):
                upper = estimate.value + z * estimate.standard_error
                text = f"{horizon} ticks ahead, R² {interval_of(estimate)}"
                single.append(Measurement(upper, name, detail=text))
        estimate = mean_r2(_rows(found, at, since))
        if np.isfinite(estimate.low):
            pooled.append((horizon, estimate))
    yield judge(WORSE, single, otherwise="too few ticks that move")
    best = max((estimate.low for _, estimate in pooled), default=np.nan)
    text = ", ".join(f"{horizon}: {interval_of(estimate)}" for horizon, estimate in pooled)
    measured = [Measurement(best, detail=f"R² by ticks ahead {text}")] if pooled else []
    yield judge(NO_SKILL, measured, otherwise="too few ticks that move")


def state_worth(bundle: Bundle, carried: Forecasts, reset: Forecasts) -> Outcome:
    """Judge what carrying the state is worth.

    Parameters
    ----------
    carried, reset : forecasts of the same ticks, with the state carried and with the state reset at every tick
    """
    since = judged_since(bundle, carried)
    gains = []
    for at, horizon in enumerate(bundle.spec.horizons):
        forgetful = [reset.by_instrument[name].ahead(at, since).forecast for name in carried.by_instrument]
        pairs = [
            (rows, forecast)
            for rows, forecast in zip(_rows(carried, at, since), forgetful, strict=True)
            if len(forecast) == len(rows.move)  # a state that overflowed in one run only: not the same ticks
        ]
        gain = r2_difference(pairs)
        if np.isfinite(gain.low):
            gains.append((horizon, gain))
    best = max((gain.low for _, gain in gains), default=np.nan)
    text = ", ".join(f"{horizon}: {interval_of(gain)}" for horizon, gain in gains)
    harmful = bool(gains) and all(gain.below_zero for _, gain in gains)
    measured = [Measurement(best, detail=f"R² gained by ticks ahead {text}")] if gains else []
    severity: Severity | None = "warning" if harmful else None
    return judge(STATE_WORTH, measured, severity=severity, otherwise="too few ticks that move")


def past_split(bundle: Bundle, material: Material) -> Outcome:
    """Judge whether the frozen scales are the statistics of the training rows, or of all rows."""
    frozen = [at for at, column in enumerate(bundle.spec.columns) if column.scale == "frozen"]
    count = _trained_count(bundle)
    if count is None or not frozen:
        why = "the bundle does not say on how many ticks it was fitted" if frozen else "scales are running"
        return judge(PAST_SPLIT, [], otherwise=why)
    ts = np.concatenate([track.ts for track in material.tracks])
    features = np.concatenate([track.features for track in material.tracks])[:, frozen]
    if count >= len(ts):
        return judge(PAST_SPLIT, [], otherwise="the file holds no ticks after those that it was fitted on")
    training = ts < np.sort(ts)[count]
    columns = [bundle.spec.columns[at] for at in frozen]
    apart = [_apart(columns, features), _apart(columns, features[training])]
    found = [
        Measurement(ratio, column=column.feature, detail=f"{own:.2g} off the training rows, {whole:.2g} off all rows")
        for ratio, whole, own, column in zip(closer(*apart), *apart, columns, strict=True)
    ]
    return judge(PAST_SPLIT, found)


def trained_span(bundle: Bundle) -> tuple[int, int] | None:
    """Return the event times, in ns, between which the bundle was fitted or validated; None where it does not say."""
    notes = bundle.manifest.trained_on
    try:
        begin, end = (datetime.fromisoformat(str(notes.get(name))) for name in ("from", "to"))
    except ValueError:
        return None
    if begin.tzinfo is None or end.tzinfo is None:
        return None
    return int(begin.timestamp()) * 10**9, int(end.timestamp() + 1) * 10**9


def judged_since(bundle: Bundle, found: Forecasts) -> int:
    """Return the event time that judging begins at: after the training span, where that matters and enough is left."""
    span = trained_span(bundle)
    if span is None or not found.share_within(*span):
        return 0
    later = sum(int(np.sum(each.ts >= span[1])) for each in found.by_instrument.values())
    return span[1] if later >= LATER_MIN else 0


def _rows(found: Forecasts, at: int, since: int) -> list[Rows]:
    """Return the judged rows of all instruments at one horizon, in cells of time that are common to them."""
    begin, end = found.span(since)
    aheads = [tape.ahead(at, since) for tape in found.by_instrument.values()]
    return [Rows(ahead.move, ahead.forecast, time_cells(ahead.ts, begin, end)) for ahead in aheads]


def _apart(columns: Sequence[Any], rows: F64) -> F64:
    """Return how far each column's scale is from the statistics of rows, in standard deviations."""
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    given_mean, given_std = (np.array([getattr(column, name) for column in columns]) for name in ("mean", "std"))
    moves = std > 1e-12 * np.maximum(np.abs(mean), 1e-300)
    unit = np.where(moves, std, 1.0)
    apart: F64 = np.where(moves, np.maximum(np.abs(given_mean - mean) / unit, np.abs(given_std / unit - 1)), 0.0)
    return apart


def _trained_count(bundle: Bundle) -> int | None:
    ticks = bundle.manifest.trained_on.get("ticks")
    count = ticks.get("train") if isinstance(ticks, dict) else None
    return count if isinstance(count, int) else None


def _z_for(tests: int) -> float:
    """Return how many standard errors bound so many upper ends at once (Bonferroni)."""
    return NormalDist().inv_cdf(1 - 0.025 / max(tests, 1))
