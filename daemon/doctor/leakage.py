"""Findings on what a column knows that it cannot know, and on columns that mean something else later on.

A return is hard to forecast: of the real ticks that this was tried on, the best single column reached an R² of 0.09 one
tick ahead and 0.21 ten ticks ahead, all columns together 0.12 and 0.32. What explains half of the next moves holds the
future.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.doctor.finding import Check, Measurement, Outcome, judge, register
from daemon.doctor.linear import ROWS_MIN, SPLIT, ridge, single_r2s
from daemon.training.collect import Track
from daemon.training.dataset import returns_ahead

F64 = NDArray[np.float64]

LEAKING = register(
    Check(
        code="leaking_column",
        of=("data", "model"),
        severity="warning",
        title="the future is explained far too well",
        measures="R² of one column, and of all in a ridge, against 'no change', one and ten ticks ahead, fitted on the "
        "first 70 % and judged on the rest; fields of the size of the price also as its ratio to the price; of arrays, "
        "less what the target's own past explains",
        limit=0.5,
        problem_limit=0.7,
        form="number",
        remedy="look how the column is made: a centred average, a shift by -1, a bar's close stamped with its opening "
        "time, or a value joined by date instead of time all hold the future",
    )
)
FUTURE_PRICE = register(
    Check(
        code="future_price",
        of=("data",),
        severity="problem",
        title="a field is a later price",
        measures="share of ticks whose field is the reference price up to 50 ticks later, of those where it differs",
        limit=0.5,
        remedy="shift the field the other way: only what was known at ts may stand in a tick",
    )
)
DRIFT = register(
    Check(
        code="column_drift",
        of=("data",),
        severity="warning",
        title="a column moves away from where it was",
        measures="distance of a column's mean on the last 30 % from that on the first 70 %, in deviations there",
        limit=3.0,
        form="number",
        remedy="a model sees values there that it was not fitted on: take differences or returns of it "
        "(diff:, return:), or a running scale",
    )
)
PARTIAL_FIELD = register(
    Check(
        code="partial_field",
        of=("data",),
        severity="warning",
        title="a field is missing in some ticks",
        measures="share of readable rows without a field that others have",
        limit=0.0,
        remedy="a model that reads it makes dead letters of those ticks: fill it in the producer, or do without it",
    )
)

HORIZONS = (1, 10)
#: A column that mixes the future with the past gives itself away once the other columns take the past out.
TOGETHER = "all columns together"
LEAD_MAX = 50
#: A field within this factor of the price is compared with prices.
PRICE_FACTOR = 1.5
PRICE_DIGITS = 1e-9


def examine_columns(tracks: Sequence[Track], columns: Sequence[str]) -> Iterator[Outcome]:
    """Judge every column of every instrument that has enough ticks."""
    long = [track for track in tracks if len(track.ts) >= 4 * ROWS_MIN]
    few = f"no instrument has {4 * ROWS_MIN} accepted ticks that move"
    leaks, futures, drifts = [], [], []
    for track in long:
        x, names = with_ratios(track, columns)
        leaks += _leaks(track, x, names)
        futures += _futures(track, columns)
        drifts += _drifts(track, columns)
    yield judge(LEAKING, leaks, otherwise=few)
    yield judge(FUTURE_PRICE, futures, otherwise="no field of the size of the price")
    yield judge(DRIFT, drifts, otherwise=few)


def partial_fields(counts: dict[str, int], readable: int) -> Outcome:
    """Judge whether every row has the producer's own fields."""
    found = [
        Measurement(1 - count / readable, column=f"field:{name}", detail=f"{readable - count} of {readable} rows")
        for name, count in counts.items()
    ]
    return judge(PARTIAL_FIELD, found, otherwise="no fields")


def with_ratios(track: Track, columns: Sequence[str]) -> tuple[F64, list[str]]:
    """Return the columns, and for each field of the size of the price the logarithm of its ratio to the price."""
    x, names = [track.features], list(columns)
    for at in _price_like(track, columns):
        x.append(np.log(track.features[:, at] / track.price)[:, None])
        names.append(f"{columns[at]} / price")
    return np.hstack(x), names


def _price_like(track: Track, columns: Sequence[str]) -> list[int]:
    found = []
    for at, name in enumerate(columns):
        values = track.features[:, at]
        if name.startswith("field:") and (values > 0).all():
            ratio = values / track.price
            if 1 / PRICE_FACTOR < np.median(ratio) < PRICE_FACTOR:
                found.append(at)
    return found


def _leaks(track: Track, x: F64, names: Sequence[str]) -> list[Measurement]:
    names = [*names, TOGETHER]
    best = np.full(len(names), -np.inf)
    ahead = np.zeros(len(names), np.intp)
    for horizon in HORIZONS:
        target = returns_ahead(track, 0, len(track.ts), [horizon])[:, 0]
        together = ridge(x, target, horizon)[1].value
        r2s = np.nan_to_num([*single_r2s(x, target, horizon), together], nan=-np.inf)
        ahead = np.where(r2s > best, horizon, ahead)
        best = np.maximum(best, r2s)
    return [
        Measurement(float(value), track.name, name, detail=f"{horizon} tick{'s' if horizon > 1 else ''} ahead")
        for value, horizon, name in zip(best, ahead.tolist(), names, strict=True)
        if np.isfinite(value)
    ]


def _futures(track: Track, columns: Sequence[str]) -> list[Measurement]:
    found = []
    for at in _price_like(track, columns):
        shares = []
        for lead in range(1, LEAD_MAX + 1):
            differs = track.price[lead:] != track.price[:-lead]
            near = np.abs(track.features[:-lead, at] / track.price[lead:] - 1) < PRICE_DIGITS
            shares.append(float(near[differs].mean()) if differs.sum() >= ROWS_MIN else 0.0)
        lead = int(np.argmax(shares)) + 1
        found.append(Measurement(shares[lead - 1], track.name, columns[at], detail=f"the price {lead} ticks later"))
    return found


def _drifts(track: Track, columns: Sequence[str]) -> list[Measurement]:
    cut = int(len(track.ts) * SPLIT)
    first, rest = track.features[:cut], track.features[cut:]
    std = first.std(axis=0)
    moved = std > 1e-12 * np.maximum(np.abs(first.mean(axis=0)), 1e-300)
    distance = np.abs(rest.mean(axis=0) - first.mean(axis=0)) / np.where(moved, std, 1.0)
    return [
        Measurement(float(value), track.name, name)
        for value, name, told in zip(distance, columns, moved, strict=True)
        if told
    ]
