"""Findings on the form and the order of the rows: what cannot be read, what stands twice, what goes back in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from daemon.doctor.finding import Check, Measurement, Outcome, judge, register
from daemon.doctor.sheets import TIME_UNITS, BadRows, Sheet, Sheets
from schemas import Reason

UNREADABLE = register(
    Check(
        code="unreadable_rows",
        of=("data", "model", "bundle"),
        severity="warning",
        title="rows cannot be read as ticks",
        measures="share of all rows with a NaN, an infinite number, a text where a number belongs or a missing value",
        limit=0.0,
        problem_limit=0.01,
        remedy="leave a cell empty where there is no value; drop rows without instrument or time",
    )
)
TIME_UNIT = register(
    Check(
        code="time_unit",
        of=("data", "model", "bundle"),
        severity="problem",
        title="times are not in nanoseconds",
        measures="share of rows whose time is an integer too small for nanoseconds since the epoch",
        limit=0.0,
        remedy="store ts as integer nanoseconds since the epoch, or as ISO 8601 text with an offset",
    )
)
REFUSED = register(
    Check(
        code="refused_ticks",
        of=("data", "model"),
        severity="warning",
        title="the daemon would refuse ticks",
        measures="share of the readable ticks that become dead letters, by reason (crossed and late ones apart)",
        limit=0.0,
        problem_limit=0.01,
        remedy="docs/messages.md says what each reason means; mend the producer, or drop these rows",
    )
)
CROSSED = register(
    Check(
        code="crossed_quotes",
        of=("data", "model"),
        severity="warning",
        title="quotes are crossed",
        measures="share of an instrument's quotes whose ask is below the bid",
        limit=0.0,
        problem_limit=0.05,
        remedy="such ticks become dead letters; look whether bid and ask are swapped, or come from two venues",
    )
)
UNSORTED = register(
    Check(
        code="unsorted_ticks",
        of=("data", "model", "bundle"),
        severity="problem",
        title="time goes back",
        measures="share of an instrument's ticks whose time is before that of the row before",
        limit=0.0,
        remedy="sort the rows by ts (a stable sort); several files go in the order of their time",
    )
)
SHUFFLED = register(
    Check(
        code="shuffled_time",
        of=("data", "model"),
        severity="problem",
        title="rows are shuffled",
        measures="share of an instrument's ticks whose time is before that of the row before",
        limit=0.2,
        remedy="sort by ts before anything is split or fitted: a random split of such rows trains on the future",
    )
)
DUPLICATES = register(
    Check(
        code="duplicate_ticks",
        of=("data", "model"),
        severity="warning",
        title="ticks stand twice",
        measures="share of an instrument's ticks that equal the row before in every value, the time included",
        limit=0.001,
        problem_limit=0.1,
        remedy="drop the repeated rows, and let the producer send a growing seq, so that the daemon drops them",
    )
)

#: The checks that need tick files.
OF_ROWS = (UNREADABLE, TIME_UNIT, REFUSED, CROSSED, UNSORTED, SHUFFLED, DUPLICATES)
#: Fewer ticks of an instrument give no share of anything.
ROWS_MIN = 20
#: Reasons that have a check of their own.
TOLD_APART = {Reason.CROSSED_QUOTE.value, Reason.LATE.value}


def examine_rows(sheets: Sheets) -> Iterator[Outcome]:
    """Judge rows by themselves and by the row before."""
    whole = max(sheets.row_count, 1)
    bad = [
        Measurement(kind.count / whole, column=kind.column, rows=_first(kind.first, kind.count), detail=_why(kind))
        for kind in sheets.bad
    ]
    yield judge(UNREADABLE, bad or [Measurement(0.0)])
    yield _time_unit(sheets)
    long = [sheet for sheet in sheets.by_instrument.values() if len(sheet) >= ROWS_MIN]
    yield judge(CROSSED, [_crossed(sheet) for sheet in long if np.isfinite(sheet.bid).any()], otherwise="no quotes")
    few = f"no instrument has {ROWS_MIN} readable ticks"
    back = [_back(sheet) for sheet in long]
    yield judge(UNSORTED, back, otherwise=few)
    yield judge(SHUFFLED, back, otherwise=few)
    yield judge(DUPLICATES, [_repeated(sheet) for sheet in long], otherwise=few)


def examine_refused(refused: Mapping[str, int], accepted: int) -> Outcome:
    """Judge what the daemon's own intake refused, apart from what has a check of its own."""
    others = Counter({reason: count for reason, count in refused.items() if reason not in TOLD_APART})
    whole = max(sum(refused.values()) + accepted, 1)
    found = [
        Measurement(count / whole, detail=f"{count} {reason}: {Reason(reason).meaning}")
        for reason, count in others.items()
    ]
    return judge(REFUSED, found or [Measurement(0.0)])


def mostly_refused(error: str) -> Outcome:
    """Say that the intake gave up: it does where it refuses more ticks than it accepts."""
    return judge(REFUSED, [Measurement(0.5, detail=f"at least; {error}")])


def _time_unit(sheets: Sheets) -> Outcome:
    found = [
        Measurement(count / max(sheets.row_count, 1), column="ts", detail=f"{count} rows look like {unit}")
        for unit, count in sheets.time_units.items()
    ]
    remedy = None
    if found:
        factors = {unit: factor for _, unit, factor in TIME_UNITS}
        unit = sheets.time_units.most_common(1)[0][0]
        remedy = f"multiply ts by {factors[unit]} to make nanoseconds of {unit}"
    return judge(TIME_UNIT, found or [Measurement(0.0)], remedy=remedy)


def _crossed(sheet: Sheet) -> Measurement:
    bid, ask = np.array(sheet.bid), np.array(sheet.ask)
    crossed = ask < bid
    return _share(sheet, crossed, np.isfinite(bid), "crossed")


def _back(sheet: Sheet) -> Measurement:
    back = np.diff(np.array(sheet.ts), prepend=sheet.ts[0]) < 0
    return _share(sheet, back, np.ones(len(sheet), np.bool_), "back in time")


def _repeated(sheet: Sheet) -> Measurement:
    return _share(sheet, np.array(sheet.repeats, np.bool_), np.ones(len(sheet), np.bool_), "repeated")


def _share(sheet: Sheet, found: np.ndarray, of: np.ndarray, word: str) -> Measurement:
    at = np.flatnonzero(found)
    count = len(at)
    rows = _first(sheet.places[at[0]], count) if count else None
    detail = f"{count} of {int(of.sum())} {word}"
    return Measurement(count / max(int(of.sum()), 1), sheet.name, rows=rows, detail=detail)


def _first(place: str, count: int) -> str:
    return place if count == 1 else f"from {place}"


def _why(kind: BadRows) -> str:
    problem = kind.problem.split(";")[0]
    said = problem if kind.example == "None" else f"{kind.example!r} is {problem}"
    return f"{kind.count} row{'s' if kind.count > 1 else ''}: {said}"
