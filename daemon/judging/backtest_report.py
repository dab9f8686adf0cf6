"""The backtest as one HTML page: what came out, how sure that is, and what the forecasts looked like."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daemon import __version__
from daemon.judging import plots
from daemon.judging.backtest import Backtest
from daemon.judging.page import Block, Facts, Figure, Note, Pair, Section, Table, Text, page, percent
from daemon.judging.scores import Scores, clock, levels_of
from daemon.judging.statistics import autocorrelation
from daemon.judging.tape import Ahead, Tape
from daemon.judging.wording import BASIS_POINT, forecast_table, interval_table

#: More bars side by side cannot be told apart; the tables hold all of them.
INSTRUMENTS_SHOWN = 12
#: Points of coverage over time, and judged ticks that each shall rest on at least.
TIME_POINTS = 40
TIME_POINT_TICKS = 50
#: Ticks of the stretch of price that is shown, in the longest horizon, and forecasts drawn into it.
STRETCH_HORIZONS = 12
STRETCH_TICKS = 600
FANS = 8

WHAT_R2_MEANS = (
    "R² compares the squared errors of the forecasts with those of “no change”: 0 % is no better than saying that the "
    "price stays, 100 % is to know it. An R² of 1 % makes errors half a percent smaller. Whiskers and intervals hold "
    "the truth in 95 of 100 cases; they know that forecasts of neighbouring ticks overlap."
)
WHAT_MAE_MEANS = (
    "Where most prices do not move at all, “no change” has the least absolute error by construction, so the MAE skill "
    "of a good mean forecast is often below zero; squared errors are what a mean is made for. DM is the statistic of "
    "Diebold and Mariano against “no change” on squared errors: above 0 the model is better; p is the chance of so "
    "large a difference between equally good forecasts."
)
WHAT_WIDTH_MEANS = (
    "Width and pinball losses are means per forecast; a basis point (bp) is 0.01 % of the price. Less is better at "
    "equal coverage. Where most outcomes are no move at all, an interval that holds the present price cannot miss as "
    "often as it may."
)
WHAT_ERRORS_REMEMBER = (
    "autocorrelation of the forecast errors. Up to the horizon outcomes overlap and errors must resemble each other; "
    "beyond it they should not: there, what is left could have been known."
)
WHAT_TENTHS_SAY = (
    "Forecasts that mean what they say lie on the diagonal: the mean outcome of each tenth of them, from the lowest to "
    "the highest, is what they said."
)


def report(run: Backtest, scores: Scores, warnings: Sequence[str], *, title: str = "") -> str:
    """Return the page."""
    shown = sorted(run.tapes, key=lambda tape: -len(tape.ts))[:INSTRUMENTS_SHOWN]
    shown = sorted(shown, key=lambda tape: tape.instrument)
    sections = [
        Section("", [_facts(run, scores), *(Note(warning, "warning") for warning in warnings)]),
        Section("Skill", _skill(run, scores, shown)),
    ]
    begin = scores.span[0] if scores.span else 0
    busiest = max(run.tapes, key=lambda tape: int(np.count_nonzero((tape.ts >= begin) & tape.counts)))
    sections.append(Section("Forecasts and outcomes", _outcomes(busiest, begin)))
    sections.append(Section("Intervals", _intervals(run, scores, begin)))
    made = f"tickcast {__version__}; the same ticks, bundle and settings give this page again"
    return page(title or f"Backtest of {run.bundle.id}", _lead(run, scores), sections, footer=made)


def _lead(run: Backtest, scores: Scores) -> str:
    parts = []
    for score in scores.pooled:
        value = percent(score.mean_r2, 1, sign=True)
        if value is not None:
            parts.append(
                f"{value} % {score.horizon} ticks ahead" if score.horizon > 1 else f"{value} % at the next tick"
            )
    instruments = f"{len(run.tapes)} instrument{'s' if len(run.tapes) > 1 else ''}"
    found = f"Mean R² against no change: {', '.join(parts)}." if parts else "No price moved, so there is no R²."
    return f"{run.forecast_count:,} forecasts of {instruments}. {found}"


def _facts(run: Backtest, scores: Scores) -> Facts:
    ts = [(int(tape.ts[0]), int(tape.ts[-1])) for tape in run.tapes]
    refused = ", ".join(f"{count:,} {reason}" for reason, count in run.refused.most_common())
    judged = f"{clock(scores.span[0])} to {clock(scores.span[1])}" if scores.span else "nothing"
    return Facts(
        [
            ("bundle", f"{run.bundle.path} ({run.bundle.id})"),
            ("ticks", f"{run.tick_count:,}, {clock(min(at for at, _ in ts))} to {clock(max(at for _, at in ts))}"),
            ("judged", f"{judged}, every tick after the instrument's first quote whose outcome is in the same session"),
            ("dead letters", refused or "none"),
            ("sessions", f"{sum(int(tape.session[-1]) + 1 for tape in run.tapes):,} over all instruments"),
            ("interval", f"{100 * run.coverage:g} % of outcomes were promised"),
        ]
    )


def _skill(run: Backtest, scores: Scores, shown: Sequence[Tape]) -> list[Block]:
    names = [tape.instrument for tape in shown]
    by_place = {(score.instrument, score.horizon): score for score in scores.scores}
    groups = []
    for horizon in run.tapes[0].horizons:
        row = [by_place[name, horizon] for name in names]
        groups.append(
            plots.Bars(_ahead(horizon), [s.r2 for s in row], [s.r2_low for s in row], [s.r2_high for s in row])
        )
    few = f"The {len(names)} instruments with the most ticks. " if len(names) < len(run.tapes) else ""
    figure = Figure(plots.bars(names, groups, y="R² against no change"), f"{few}Whiskers are 95 % intervals.")
    heads, rows = forecast_table(scores)
    strong = range(len(scores.scores), len(rows))
    caption = (
        "“all rows” weighs instruments by the variance of their moves, “mean R²” all alike; both intervals know that "
        "instruments move together."
    )
    return [Text(WHAT_R2_MEANS), figure, Table(heads, rows, caption, strong), Text(WHAT_MAE_MEANS)]


def _ahead(horizon: int) -> str:
    return "next tick" if horizon == 1 else f"{horizon} ticks ahead"


def _outcomes(tape: Tape, begin: int) -> list[Block]:
    column = len(tape.horizons) // 2
    rows = tape.ahead(column, begin)
    if not len(rows.move):
        return [Note("No outcome was judged at the middle horizon, so there is nothing to show.")]
    unit, scale = ("price", 1.0) if tape.differences else ("basis points", BASIS_POINT)
    cloud = plots.scatter(rows.forecast / scale, rows.move / scale, x=f"forecast move, {unit}", y=f"outcome, {unit}")
    pair = Pair(
        [
            Figure(
                cloud,
                f"{tape.instrument}, {_ahead(rows.horizon)}. {WHAT_TENTHS_SAY}",
            ),
            Figure(
                _memory([tape.ahead(each, begin) for each in range(len(tape.horizons))]),
                f"{tape.instrument}: {WHAT_ERRORS_REMEMBER}",
            ),
        ]
    )
    return [_stretch(tape, begin), pair]


def _memory(ahead: Sequence[Ahead]) -> str:
    lines = []
    for rows in ahead:
        found = autocorrelation(rows.move - rows.forecast, 3 * rows.horizon)
        lines.append(plots.Line(_ahead(rows.horizon), np.arange(len(found)) / rows.horizon, found))
    return plots.lines(lines, x="lag, in horizons", y="autocorrelation", level=0, half=True)


def _stretch(tape: Tape, begin: int) -> Figure:
    """Show the stretch, among the judged ticks, in which the price moves most often."""
    first = int(np.searchsorted(tape.ts, begin))
    length = min(max(STRETCH_HORIZONS * max(tape.horizons), 50), STRETCH_TICKS, len(tape.ts) - first)
    moved = np.concatenate([[0], np.cumsum(tape.price[first + 1 :] != tape.price[first:-1])])
    start = first + int(np.argmax(moved[length - 1 :] - moved[: len(moved) - length + 1]))
    rows = slice(start, start + length)
    seconds = (tape.ts[rows] - tape.ts[start]) * 1e-9
    fans = [_fan(tape, start, at) for at in np.linspace(0, max(length - max(tape.horizons) - 1, 0), FANS).astype(int)]
    price = plots.Line("price", seconds, tape.price[rows], steps=True)
    drawn = plots.price_fans(
        price, [fan for fan in fans if fan], x=f"seconds from {clock(int(tape.ts[start]))}", y="price"
    )
    return Figure(
        drawn,
        f"{tape.instrument}: the liveliest {length} ticks that were judged, and what was forecast at {FANS} of them. A "
        "forecast hugs the price because most of a price is its own past; that alone is no skill.",
    )


def _fan(tape: Tape, start: int, at: int) -> plots.Fan | None:
    """Return the forecast of a row, with its horizons at the times at which they came."""
    row = start + at
    known = [
        k
        for k in np.argsort(tape.horizons).tolist()
        if row + tape.horizons[k] < len(tape.ts) and tape.session[row + tape.horizons[k]] == tape.session[row]
    ]
    if not known:
        return None
    ahead = [(tape.ts[row + tape.horizons[k]] - tape.ts[start]) * 1e-9 for k in known]
    bounds = [tape.lower[row, known], tape.upper[row, known]]
    lower, upper = ([], []) if not np.isfinite(bounds).all() else (each.tolist() for each in bounds)
    x = float((tape.ts[row] - tape.ts[start]) * 1e-9)
    return plots.Fan(x, float(tape.price[row]), ahead, tape.mean[row, known].tolist(), lower, upper)


def _intervals(run: Backtest, scores: Scores, begin: int) -> list[Block]:
    if not any(np.isfinite(score.coverage) for score in scores.pooled):
        return [Note("This bundle knows no interval: it holds no residuals of a validation part.")]
    tail = levels_of(run.coverage)[0]
    misses = plots.bars(
        [str(score.horizon) for score in scores.pooled],
        [
            plots.Bars("below", [score.misses_below for score in scores.pooled]),
            plots.Bars("above", [score.misses_above for score in scores.pooled]),
        ],
        x="ticks ahead",
        y="share of outcomes",
        level=tail,
        level_label="promised, each side",
    )
    heads, rows = interval_table(scores, differences=run.tapes[0].differences)
    return [
        Figure(misses, "Outcomes outside the interval, all instruments together."),
        Figure(
            _coverage_over_time(run, scores, begin),
            f"Share of outcomes inside the interval over time, all instruments together, each point {TIME_POINT_TICKS} "
            "outcomes or more.",
        ),
        Table(
            heads,
            rows,
            WHAT_WIDTH_MEANS,
            range(len(scores.scores), len(rows)),
        ),
    ]


def _coverage_over_time(run: Backtest, scores: Scores, begin: int) -> str:
    first, last = scores.span or (0, 0)
    width = max((last - first) / TIME_POINTS, 1.0)
    lines = []
    for column, horizon in enumerate(run.tapes[0].horizons):
        ahead = [tape.ahead(column, begin) for tape in run.tapes]
        inside = np.concatenate([(rows.lower <= rows.move) & (rows.move <= rows.upper) for rows in ahead])
        at = np.concatenate([((rows.ts - first) / width).astype(np.intp) for rows in ahead]).clip(0, TIME_POINTS - 1)
        count = np.bincount(at, minlength=TIME_POINTS)
        hits = np.bincount(at, inside, TIME_POINTS)
        share = np.where(count >= TIME_POINT_TICKS, hits / np.maximum(count, 1), np.nan)
        lines.append(plots.Line(_ahead(horizon), (np.arange(TIME_POINTS) + 0.5) * width * 1e-9, share))
    return plots.lines(
        lines,
        x=f"seconds from {clock(first)}",
        y="inside",
        level=run.coverage,
        level_label="promised",
        percent=True,
    )
