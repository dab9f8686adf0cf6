"""Examines tick files: rows, prices, pauses, columns, and what there is to learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daemon.core.sessions import Rules
from daemon.doctor.finding import Check, Outcome, Report, Skipped, registered, skip_all
from daemon.doctor.leakage import examine_columns, partial_fields
from daemon.doctor.learning import TOO_LITTLE_DATA, Lesson, examine_learning
from daemon.doctor.material import Listener, Material, gather
from daemon.doctor.pauses import examine_pauses
from daemon.doctor.prices import examine_prices, few_ticks, time_of
from daemon.doctor.samples import cut_windows
from daemon.doctor.ticks import examine_refused, examine_rows, mostly_refused
from daemon.doctor.worth import random_walks
from daemon.errors import TickFileError

#: How far ahead the simple predictors look where nobody says otherwise.
HORIZONS = (1, 10, 50)
#: The small network that says whether more ticks would help.
STEPS = 16
UNITS = 16
LEARNING_RATE = 3e-3


def examine_data(
    paths: Sequence[Path],
    rules: Rules,
    *,
    horizons: Sequence[int] = HORIZONS,
    budget_seconds: float = 60.0,
    listen: Listener = lambda stage, done: None,
) -> Report:
    """Examine tick files.

    Parameters
    ----------
    horizons : in ticks
    budget_seconds : for fitting small models; 0 fits none

    Raises
    ------
    TickFileError : a file is missing or no table of ticks
    """
    material = gather(paths, rules, None, listen)
    outcomes = [*examine_rows(material.sheets), partial_fields(material.sheets.fields, material.sheets.readable_count)]
    if material.error:
        outcomes.append(few_ticks({name: len(sheet) for name, sheet in material.sheets.by_instrument.items()}))
        if material.sheets.readable_count:
            outcomes.append(mostly_refused(material.error))
        outcomes += skip_all(_others(outcomes), material.error)
    else:
        outcomes += _of_tracks(material, horizons, budget_seconds, listen)
    return Report("data", ", ".join(str(path) for path in paths), facts(material), tuple(outcomes))


def _of_tracks(
    material: Material, horizons: Sequence[int], budget_seconds: float, listen: Listener
) -> Iterator[Outcome]:
    listen("looking at prices and columns", None)
    tracks = material.tracks
    yield examine_refused(material.refused, material.accepted_count)
    yield from examine_prices(material.sheets, tracks)
    yield from examine_pauses(tracks, horizons)
    yield from examine_columns(tracks, material.columns)
    yield random_walks(tracks, horizons)
    yield from _of_learning(material, sorted(horizons), budget_seconds, listen)


def _of_learning(
    material: Material, horizons: Sequence[int], budget_seconds: float, listen: Listener
) -> Iterator[Outcome]:
    """Fit a small network on windows of the ticks, at the horizon in the middle."""
    if budget_seconds <= 0:
        yield Skipped(TOO_LITTLE_DATA, "--budget 0 fits nothing")
        return
    try:
        samples = cut_windows(material.tracks, material.columns, STEPS, [horizons[len(horizons) // 2]])
        from daemon.doctor.networks import Learner, small_lstm
    except TickFileError as error:
        yield Skipped(TOO_LITTLE_DATA, str(error))
        return
    except ImportError:
        yield Skipped(TOO_LITTLE_DATA, "fitting needs TensorFlow: pip install 'tickcast[tensorflow]'")
        return
    listen("fitting", 0.0)
    yield from examine_learning(
        Lesson(samples, samples.y.astype(np.float64)),
        lambda: Learner(small_lstm(STEPS, len(material.columns), UNITS)),
        None,
        LEARNING_RATE,
        budget_seconds,
        lambda done: listen("fitting", done),
    )


def facts(material: Material) -> dict[str, Any]:
    """Return what was looked at, in a few numbers."""
    tracks = [track for track in material.tracks if len(track.ts)]
    span = {}
    if tracks:
        first, last = min(int(track.ts[0]) for track in tracks), max(int(track.ts[-1]) for track in tracks)
        span = {"from": time_of(first), "to": time_of(last)}
    return {
        "rows": material.sheets.row_count,
        "ticks_accepted": material.accepted_count,
        "instruments": len(material.sheets.by_instrument),
        **span,
    }


def _others(outcomes: Sequence[Outcome]) -> list[Check]:
    made = {outcome.check.code for outcome in outcomes}
    return [check for check in registered() if "data" in check.of and check.code not in made]
