"""How scores are written for people: heads and cells of the tables, the same on a terminal and in a report."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daemon.judging.page import Column, interval, number, percent
from daemon.judging.scores import PooledScore, Score, Scores

#: Log returns of ticks are small; a basis point is 0.0001.
BASIS_POINT = 1e-4


@dataclass(frozen=True)
class _Cell:
    """A column, and how its cell reads for a row."""

    column: Column
    text: Callable[[Score | PooledScore], str | None]


def forecast_table(scores: Scores) -> tuple[list[Column], list[list[str | None]]]:
    """Return heads and rows about the expected price: instruments first, then their mean and all rows together."""
    cells = [
        _Cell(Column("judged", "ticks"), lambda s: f"{s.count:,}"),
        _Cell(Column("R²", "%"), lambda s: percent(s.r2, sign=True)),
        _Cell(Column("95 % interval", "%"), lambda s: interval(s.r2_low, s.r2_high)),
        _Cell(Column("MAE skill", "%"), lambda s: percent(s.mae_skill, 1, sign=True)),
        _Cell(Column("DM"), lambda s: "" if isinstance(s, PooledScore) else _fixed(s.diebold_mariano)),
        _Cell(Column("p"), lambda s: "" if isinstance(s, PooledScore) else _probability(s.diebold_mariano_p)),
        _Cell(Column("no move", "%"), lambda s: percent(s.zero_move_share, 1)),
        _Cell(Column("median time"), lambda s: duration(s.median_seconds)),
    ]
    heads, rows = _table(scores, cells)
    for score in scores.pooled:
        mean = (percent(score.mean_r2, sign=True), interval(score.mean_r2_low, score.mean_r2_high))
        rows.append(["mean R²", str(score.horizon), f"{score.count:,}", *mean, *[""] * 5])
    return heads, rows


def interval_table(scores: Scores, *, differences: bool) -> tuple[list[Column], list[list[str | None]]]:
    """Return heads and rows about the interval: where outcomes fell, its width, and the quantiles' losses."""
    unit, scale = ("price", 1.0) if differences else ("bp", BASIS_POINT)
    cells = [
        _Cell(Column("inside", "%"), lambda s: percent(s.coverage, 1)),
        _Cell(Column("below", "%"), lambda s: percent(s.misses_below, 1)),
        _Cell(Column("above", "%"), lambda s: percent(s.misses_above, 1)),
        _Cell(Column("width", unit), lambda s: number(s.width / scale)),
        _Cell(Column("pinball lower", unit), lambda s: number(s.pinball_lower / scale)),
        _Cell(Column("median", unit), lambda s: number(s.pinball_median / scale)),
        _Cell(Column("upper", unit), lambda s: number(s.pinball_upper / scale)),
    ]
    return _table(scores, cells)


def _table(scores: Scores, cells: Sequence[_Cell]) -> tuple[list[Column], list[list[str | None]]]:
    heads = [Column("instrument", number=False), Column("ahead", "ticks"), *(cell.column for cell in cells)]
    rows: list[Score | PooledScore] = [*scores.scores, *scores.pooled]
    return heads, [[_name(row), str(row.horizon), *(cell.text(row) for cell in cells)] for row in rows]


def _name(row: Score | PooledScore) -> str:
    return row.instrument if isinstance(row, Score) else "all rows"


def _fixed(value: float) -> str | None:
    return f"{value:+.2f}".replace("-", "−") if math.isfinite(value) else None


def _probability(value: float) -> str | None:
    if not math.isfinite(value):
        return None
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def duration(seconds: float) -> str | None:
    """Return a time with a unit in which it reads well."""
    if not math.isfinite(seconds):
        return None
    for unit, size in (("µs", 1e-6), ("ms", 1e-3)):
        if seconds < 1000 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds / 60:,.0f} min"
