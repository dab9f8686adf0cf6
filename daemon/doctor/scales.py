"""Findings on scales: what a recurrent network sees should be of the order of 1, and known before the split.

Gates saturate on large values and do not open for small ones; a loss on targets of 0.0001 has gradients of that size,
below what Adam's epsilon of 1e-7 leaves of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register
from daemon.doctor.linear import SPLIT
from daemon.doctor.samples import Samples

F64 = NDArray[np.float64]

NOT_FINITE = register(
    Check(
        code="nan_in_arrays",
        of=("model",),
        severity="problem",
        title="X or y holds numbers that are not finite",
        measures="share of samples with a NaN or an infinity",
        limit=0.0,
        remedy="drop these samples or fill them before scaling: one NaN makes every weight NaN",
    )
)
INPUTS = register(
    Check(
        code="inputs_not_scaled",
        of=("model",),
        severity="problem",
        title="inputs are not scaled",
        measures="factor by which a column's root mean square, as the first layer sees it, is away from 1",
        limit=10.0,
        form="number",
        remedy="subtract the mean and divide by the standard deviation of the training part, also when serving",
    )
)
OFFSET = register(
    Check(
        code="inputs_off_centre",
        of=("model",),
        severity="warning",
        title="a column hardly varies beside its mean",
        measures="mean of a column over its standard deviation, as the first layer sees it",
        limit=10.0,
        form="number",
        remedy="a level such as a price: take returns or differences of it, or subtract its mean",
    )
)
TARGETS = register(
    Check(
        code="targets_not_scaled",
        of=("model",),
        severity="problem",
        title="targets are not scaled",
        measures="factor by which the root mean square of a target column is away from 1",
        limit=10.0,
        form="number",
        remedy="divide the targets by their root mean square in the training part, and multiply forecasts by it",
    )
)
OUT_OF_RANGE = register(
    Check(
        code="target_out_of_range",
        of=("model",),
        severity="problem",
        title="the head cannot say these targets",
        measures="share of targets outside the range of the last layer's activation",
        limit=0.01,
        remedy="end with a Dense layer without activation, or scale the targets into the range",
    )
)
PAST_SPLIT = register(
    Check(
        code="scaler_past_split",
        of=("model", "bundle"),
        severity="problem",
        title="the scaler has seen rows that it is judged on",
        measures="how many times closer the scales are to the statistics of all rows than to the training rows'",
        limit=20.0,
        form="number",
        remedy="fit the scaler on the training rows alone, and only apply it to the others",
    )
)

#: Values that the activation of a head can take.
RANGES = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, np.inf)}
#: Scales this close, in standard deviations, are those of the rows, but for rounding.
EXACT = 1e-3


def finite(samples: Samples) -> Outcome:
    """Judge whether all numbers are numbers."""
    found = []
    for name, array in (("X", samples.x), ("y", samples.y)):
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        first = f"first in sample {int(np.argmax(bad))}" if bad.any() else None
        found.append(Measurement(float(bad.mean()), column=name, rows=first))
    return judge(NOT_FINITE, found)


def inputs(seen: F32, names: Sequence[str]) -> Iterator[Outcome]:
    """Judge the columns as the model sees them, shape (samples, steps, features)."""
    rows = seen.reshape(-1, seen.shape[-1]).astype(np.float64)
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    size = np.sqrt(np.mean(rows**2, axis=0))
    moves = std > 1e-6 * np.maximum(np.abs(mean), 1e-30)
    yield judge(
        INPUTS,
        [
            Measurement(_factor(float(s)), column=name, detail=f"mean {m:.3g}, standard deviation {d:.3g}")
            for s, m, d, name in zip(size, mean, std, names, strict=True)
            if s > 0
        ],
        otherwise="all inputs are 0",
    )
    yield judge(
        OFFSET,
        [
            Measurement(float(abs(m) / d), column=name, detail=f"mean {m:.3g}, standard deviation {d:.3g}")
            for m, d, name, moved in zip(mean, std, names, moves, strict=True)
            if moved
        ],
        otherwise="every column is constant",
    )


def targets(y: NDArray[np.float64], activation: str) -> Iterator[Outcome]:
    """Judge target columns, shape (samples, outputs)."""
    size = np.sqrt(np.mean(y**2, axis=0))
    found = [
        Measurement(_factor(float(s)), column=f"y {at}", detail=f"root mean square {s:.3g}")
        for at, s in enumerate(size)
        if s > 0
    ]
    yield judge(TARGETS, found, otherwise="all targets are 0")
    if activation in RANGES:
        low, high = RANGES[activation]
        share = float(np.mean((y < low) | (y > high)))
        detail = f"{activation} says {low:g} to {high:g}, targets reach from {y.min():.3g} to {y.max():.3g}"
        yield judge(OUT_OF_RANGE, [Measurement(share, column="y", detail=detail)])
    else:
        yield judge(OUT_OF_RANGE, [Measurement(0.0)])


def scaler_of_arrays(samples: Samples) -> Outcome:
    """Judge whether X and what comes after it were scaled together."""
    otherwise = "put the rows after X into the file as X_val or X_test, then it can be told whose statistics were used"
    if not samples.later:
        return judge(PAST_SPLIT, [], otherwise=otherwise)
    own = unrolled(samples.x)
    whole = np.concatenate([own, *(unrolled(later) for _, later in samples.later)])
    found = []
    for centre, spread, kind in ((_mean, _std, "standard"), (_low, _range, "min-max")):
        aims = (0.0, 1.0)
        apart = [np.maximum(np.abs(centre(rows) - aims[0]), np.abs(spread(rows) - aims[1])) for rows in (whole, own)]
        found += [
            Measurement(ratio, column=name, detail=f"{kind}: {b:.2g} off on X alone, {a:.2g} on all rows")
            for ratio, a, b, name in zip(closer(*apart), *apart, samples.names, strict=True)
        ]
    return judge(PAST_SPLIT, found)


def closer(whole: F64, own: F64) -> list[float]:
    """Return how many times closer scales are to all rows than to the training rows; 0 where they are exact on neither.

    Parameters
    ----------
    whole, own : distance of the scales from the statistics of all rows, and of the training rows
    """
    exact = (whole < EXACT) & (own > EXACT)
    return np.where(exact, own / np.maximum(whole, EXACT / 20), 0.0).tolist()  # type: ignore[no-any-return]


def unrolled(x: F32) -> F64:
    """Return the rows that windows were cut from, where each window follows the one before; else all rows of all."""
    if x.ndim == 3 and x.shape[1] > 1 and len(x) > 1 and np.array_equal(x[1:, :-1], x[:-1, 1:]):
        return np.concatenate([x[0], x[1:, -1]]).astype(np.float64)
    return x.reshape(-1, x.shape[-1]).astype(np.float64)


def training_rows(count: int) -> int:
    """Return how many of so many rows are for fitting."""
    return int(count * SPLIT)


def _factor(size: float) -> float:
    return max(size, 1 / size)


def _mean(rows: F64) -> F64:
    found: F64 = rows.mean(axis=0)
    return found


def _std(rows: F64) -> F64:
    found: F64 = rows.std(axis=0)
    return found


def _low(rows: F64) -> F64:
    found: F64 = rows.min(axis=0)
    return found


def _range(rows: F64) -> F64:
    found: F64 = rows.max(axis=0) - rows.min(axis=0)
    return found
