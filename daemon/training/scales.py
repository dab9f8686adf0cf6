"""Scales: of the columns, of the targets, and the running estimates that the daemon will make of them.

A target is counted in the instrument's own running volatility, so that one model serves instruments of any volatility.
The columns are standardised by running estimates for the same reason; training only says what they start from.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from daemon.core.features import CLIP, RUNNING_VARIANCE_MIN, RUNNING_WEIGHT, VOLATILITY_FLOOR, VOLATILITY_WEIGHT
from daemon.core.spec import Column, Output, OutputOf
from daemon.core.step import F32
from daemon.training.collect import F64, Track
from daemon.training.dataset import Split

#: A column whose spread is below this share of its mean is constant, up to rounding.
CONSTANT_SHARE = 1e-12


def columns_of(splits: Sequence[Split], names: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns with the scales they start from, of the training part; a constant one keeps a scale of 1."""
    rows = np.concatenate([split.track.features[: split.train.end] for split in splits])
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    std = np.where(std > CONSTANT_SHARE * np.maximum(np.abs(mean), 1e-300), std, 1.0)
    return tuple(Column(name, "running", float(m), float(s)) for name, m, s in zip(names, mean, std, strict=True))


def volatility_of(splits: Sequence[Split]) -> float:
    """Return the standard deviation of one-tick log returns, the median over the instruments' training parts."""
    stds = [split.track.returns[: split.train.end].std() for split in splits if split.train.end]
    return float(np.median([std for std in stds if std > 0]))


def outputs_of(
    splits: Sequence[Split], volatilities: Sequence[F64], horizons: Sequence[int], more: Sequence[OutputOf] = ()
) -> tuple[Output, ...]:
    """Return the outputs: a mean for each horizon, then for each of `more` one column per horizon.

    The scale is the root mean square of the training targets, in volatilities.
    """
    target = np.concatenate(
        [split.train.target / v[: split.train.end, None] for split, v in zip(splits, volatilities, strict=True)]
    )
    scales = np.sqrt(np.nanmean(target**2, axis=0)).tolist()
    return tuple(
        Output(horizon, "log_return", scale=scale, volatile=True, of=of)
        for of in ("mean", *more)
        for horizon, scale in zip(horizons, scales, strict=True)
    )


def in_units(target: F64, outputs: Sequence[Output], volatility: F64) -> F64:
    """Convert log returns, shape (rows, horizons), to the units of the mean outputs; `volatility` has shape (rows,)."""
    units: F64 = target / (_means(outputs) * volatility[:, None])
    return units


def in_returns(y: F32, outputs: Sequence[Output], volatility: F64) -> F64:
    """Convert the mean outputs, the first of `y` with shape (rows, outputs), to log returns, shape (rows, horizons)."""
    scale = _means(outputs)
    returns: F64 = y[:, : len(scale)].astype(np.float64) * scale * volatility[:, None]
    return returns


def _means(outputs: Sequence[Output]) -> F64:
    return np.array([output.scale for output in outputs if output.of == "mean"])


# --- what the daemon's features keep per instrument, for a whole track at once. The bits are those of
# --- `FeatureTable.update`, whose hot loop holds the same lines; a test compares them.


def running_volatility(track: Track, prior: float) -> F64:
    """Return the running standard deviation of one-tick log returns after each tick, shape (ticks,)."""
    variance, least = prior**2, (prior * VOLATILITY_FLOOR) ** 2
    found = []
    for value, opened in zip(track.returns.tolist(), track.resets.tolist(), strict=True):
        if not opened:
            squared = min(value * value, CLIP * CLIP * variance)
            variance = max(variance + VOLATILITY_WEIGHT * (squared - variance), least)
        found.append(sqrt(variance))
    return np.array(found)


def running_rows(track: Track, columns: Sequence[Column]) -> F32:
    """Return what the model sees, shape (ticks, columns): each value standardised by the ticks before it."""
    found = np.empty(track.features.shape, np.float32)
    for at, column in enumerate(columns):
        found[:, at] = _running(track.features[:, at].tolist(), column.mean, column.std**2)
    return found


def _running(values: Sequence[float], mean: float, variance: float) -> list[float]:
    found = []
    for value in values:
        std = sqrt(variance)
        scaled = (value - mean) / std
        if scaled > CLIP:
            scaled = CLIP
        elif scaled < -CLIP:
            scaled = -CLIP
        found.append(scaled)
        moved = RUNNING_WEIGHT * scaled
        mean += moved * std
        variance *= (1 - RUNNING_WEIGHT) * (1 + moved * scaled)
        if variance < RUNNING_VARIANCE_MIN:
            variance = RUNNING_VARIANCE_MIN
    return found
