"""Findings on what there is to forecast at all: where the best simple predictor finds nothing, a constant is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daemon.doctor.finding import Check, Measurement, Outcome, judge, register
from daemon.doctor.linear import ridge
from daemon.judging.blocks import Estimate
from daemon.training.collect import Track
from daemon.training.dataset import returns_ahead

#: Below this, what a regression finds in some thousand rows of a random walk by chance. A larger figure whose interval
#: holds 0 is unsure, but no reason to call "no change" the right forecast.
RANDOM_WALK_R2 = 0.005

RANDOM_WALK = register(
    Check(
        code="random_walk",
        of=("data", "model"),
        severity="note",
        title="returns have no measurable predictability; 'no change' is the right forecast, and a constant no defect",
        measures="R² that a ridge over all columns reaches on the last 30 %, at its best horizon or output; one whose "
        "95 % interval lies above 0 counts as the limit at least",
        limit=RANDOM_WALK_R2,
        beyond="below",
        form="number",
        remedy="do not judge a model by how much its forecasts move; give other columns or horizons, or more ticks",
    )
)

ROWS_MIN = 400


def worth_of(estimate: Estimate) -> float:
    """Return how much a predictor explains, as `RANDOM_WALK` measures it: what is sure is something."""
    return max(estimate.value, RANDOM_WALK_R2) if estimate.low > 0 else estimate.value


def random_walks(tracks: Sequence[Track], horizons: Sequence[int]) -> Outcome:
    """Judge the best simple predictor of each instrument."""
    found = []
    for track in tracks:
        if len(track.ts) < ROWS_MIN:
            continue
        targets = returns_ahead(track, 0, len(track.ts), horizons).T
        estimates = {
            horizon: ridge(track.features, target, horizon)[1]
            for horizon, target in zip(horizons, targets, strict=True)
        }
        known = {horizon: each for horizon, each in estimates.items() if np.isfinite(each.low)}
        if known:
            best = max(map(worth_of, known.values()))
            detail = ", ".join(f"{horizon}: {interval_of(each)}" for horizon, each in known.items())
            found.append(Measurement(best, track.name, detail=f"R² by ticks ahead {detail}"))
    return judge(RANDOM_WALK, found, otherwise=f"no instrument has {ROWS_MIN} accepted ticks that move")


def interval_of(estimate: Estimate) -> str:
    """Return an estimate for people."""
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"
