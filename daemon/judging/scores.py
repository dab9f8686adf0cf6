"""Scores of tapes: one per instrument and horizon, and one per horizon over all instruments.

What counts: every tick from the instrument's first quote on (all of them where it has none) whose outcome, `horizon`
ticks later, is in the same session, and which is not before the point in time from which is judged. Moves are log
returns, so losses and widths are too; for models of differences both are in the unit of the price.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from daemon.judging.statistics import (
    Rows,
    coverage,
    diebold_mariano,
    mae_skill,
    mean_r2,
    pinball,
    pooled_r2,
    r2,
    time_cells,
    zero_share,
)
from daemon.judging.tape import Ahead, Tape

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """How good the forecasts of one instrument at one horizon were; NaN where it cannot be said."""

    instrument: str
    horizon: int
    #: Forecasts that were judged.
    count: int
    #: 1 - MSE / MSE of persistence, and its 95 % interval.
    r2: float
    r2_low: float
    r2_high: float
    #: 1 - MAE / MAE of persistence.
    mae_skill: float
    #: Mean pinball loss of `lower`, of `mean` (taken for the median), and of `upper`.
    pinball_lower: float
    pinball_median: float
    pinball_upper: float
    #: Shares of outcomes below `lower`, above `upper`, and between them.
    misses_below: float
    misses_above: float
    coverage: float
    #: Mean width of the interval.
    width: float
    #: Share of outcomes at the very price the forecast was made at.
    zero_move_share: float
    #: Median time until the outcome.
    median_seconds: float
    #: Statistic and two-sided p of equal squared loss with persistence; above 0 where the model's is less.
    diebold_mariano: float
    diebold_mariano_p: float


@dataclass(frozen=True)
class PooledScore:
    """All instruments at one horizon together: shares and losses over all rows, R2 also as the instruments' mean."""

    horizon: int
    count: int
    #: Mean of the instruments' R2, of those whose price moved; each weighs the same.
    mean_r2: float
    mean_r2_low: float
    mean_r2_high: float
    #: R2 over the rows of all; instruments weigh by the variance of their moves.
    r2: float
    r2_low: float
    r2_high: float
    mae_skill: float
    pinball_lower: float
    pinball_median: float
    pinball_upper: float
    misses_below: float
    misses_above: float
    coverage: float
    width: float
    zero_move_share: float
    median_seconds: float


@dataclass(frozen=True)
class Scores:
    """All that was judged."""

    scores: Sequence[Score]
    pooled: Sequence[PooledScore]
    #: Event times of the first and the last judged tick; None where there is none.
    span: tuple[int, int] | None

    def as_json(self) -> dict[str, object]:
        """Return plain values; what is not known is null."""
        return {
            "scores": [_plain(asdict(score)) for score in self.scores],
            "pooled": [_plain(asdict(score)) for score in self.pooled],
        }


def cut_at(tapes: Sequence[Tape], share: float) -> int:
    """Return the event time that parts this share of all ticks from the rest, as `tickcast train --split` does."""
    ts = np.sort(np.concatenate([tape.ts for tape in tapes]))
    return int(ts[min(int(len(ts) * share), len(ts) - 1)])


def judge(tapes: Sequence[Tape], begin_ts: int, levels: tuple[float, float]) -> Scores:
    """Judge every instrument and horizon, and all instruments together.

    Parameters
    ----------
    begin_ts : ticks before this event time warmed the states up and are not judged
    levels : of the quantiles that `lower` and `upper` stand for
    """
    horizons = tapes[0].horizons if tapes else ()
    judged = [tape.ts[(tape.ts >= begin_ts) & tape.counts] for tape in tapes]
    judged = [ts for ts in judged if len(ts)]
    span = (min(int(ts.min()) for ts in judged), max(int(ts.max()) for ts in judged)) if judged else None
    scores: dict[tuple[str, int], Score] = {}
    pooled = []
    for column, horizon in enumerate(horizons):
        ahead = [tape.ahead(column, begin_ts) for tape in tapes]
        for tape, rows in zip(tapes, ahead, strict=True):
            scores[tape.instrument, horizon] = _score(tape.instrument, rows, levels)
        pooled.append(_pooled(horizon, ahead, span or (0, 0), levels))
    ordered = [scores[tape.instrument, horizon] for tape in tapes for horizon in horizons]
    return Scores(ordered, pooled, span)


def _score(instrument: str, rows: Ahead, levels: tuple[float, float]) -> Score:
    skill = r2(rows.move, rows.forecast, rows.horizon)
    test = diebold_mariano(np.square(rows.move - rows.forecast), np.square(rows.move), rows.horizon)
    return Score(
        instrument=instrument,
        horizon=rows.horizon,
        count=len(rows.move),
        r2=skill.value,
        r2_low=skill.low,
        r2_high=skill.high,
        diebold_mariano=test.statistic,
        diebold_mariano_p=test.p,
        **_losses(rows, levels),
    )


def _pooled(horizon: int, ahead: Sequence[Ahead], span: tuple[int, int], levels: tuple[float, float]) -> PooledScore:
    rows = [Rows(each.move, each.forecast, time_cells(each.ts, *span)) for each in ahead]
    mean, pooled = mean_r2(rows), pooled_r2(rows)
    together = joined(horizon, ahead)
    return PooledScore(
        horizon=horizon,
        count=len(together.move),
        mean_r2=mean.value,
        mean_r2_low=mean.low,
        mean_r2_high=mean.high,
        r2=pooled.value,
        r2_low=pooled.low,
        r2_high=pooled.high,
        **_losses(together, levels),
    )


def joined(horizon: int, ahead: Sequence[Ahead]) -> Ahead:
    """Return the rows of several instruments one after the other."""
    names = [field.name for field in fields(Ahead) if field.name != "horizon"]
    return Ahead(horizon, *(np.concatenate([getattr(each, name) for each in ahead]) for name in names))


def _losses(rows: Ahead, levels: tuple[float, float]) -> dict[str, float]:
    covered = coverage(rows.move, rows.lower, rows.upper)
    return {
        "mae_skill": mae_skill(rows.move, rows.forecast),
        "pinball_lower": pinball(rows.move, rows.lower, levels[0]),
        "pinball_median": pinball(rows.move, rows.forecast, 0.5),
        "pinball_upper": pinball(rows.move, rows.upper, levels[1]),
        "misses_below": covered.below,
        "misses_above": covered.above,
        "coverage": covered.inside,
        "width": covered.width,
        "zero_move_share": zero_share(rows.move),
        "median_seconds": float(np.median(rows.seconds)) if len(rows.seconds) else math.nan,
    }


def levels_of(coverage: float) -> tuple[float, float]:
    """Return the levels of the ends of an interval: half of the rest lies on either side."""
    return round((1 - coverage) / 2, 12), round((1 + coverage) / 2, 12)


def trained_until(trained_on: Mapping[str, object]) -> int | None:
    """Return the event time up to which a bundle's model was fitted or tuned; None where it does not say."""
    until = trained_on.get("to")
    try:
        moment = datetime.fromisoformat(until) if isinstance(until, str) else None
    except ValueError:
        return None
    return None if moment is None or moment.tzinfo is None else round(moment.timestamp()) * 10**9


def trained_from(trained_on: Mapping[str, object]) -> int | None:
    """Return the event time from which a bundle's model was fitted; None where it does not say."""
    return trained_until({"to": trained_on.get("from")})


def leak(trained_on: Mapping[str, object], span: tuple[int, int] | None) -> str | None:
    """Say that ticks are judged on which the model was fitted, or None.

    Other instruments of the same time count as well: they move together.
    """
    begin, end = trained_from(trained_on), trained_until(trained_on)
    if span is None or begin is None or end is None or span[0] > end or span[1] < begin:
        return None
    later = clock(end + 10**9)
    return (
        f"the judged ticks, {clock(span[0])} to {clock(span[1])}, overlap those the model was trained on, "
        f"{clock(begin)} to {clock(end)}: these scores flatter it; judge later ones, e.g. with --from-ts {later}"
    )


def clock(ts: int) -> str:
    """Return an event time as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(ts // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _plain(values: dict[str, object]) -> dict[str, object]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
