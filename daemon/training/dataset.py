"""Splits in time, scales from the training part, and the sequences a recurrent model is fitted on.

Invariants
----------
- The three parts are cut at two points in time that hold for all instruments, so no instrument's past sees another's
  future.
- A target exists only where the tick `horizon` later is in the same part and the same session: nothing of one part
  reaches into another.
- Scales come from the training part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daemon.core.features import frozen_scales, scaled
from daemon.core.spec import Column, Output
from daemon.core.step import F32
from daemon.errors import SettingsError, TickFileError
from daemon.training.collect import F64, Collected, Track
from daemon.training.streams import SessionRows

#: Share of the ticks before the test part that validates: early stopping, variance and intervals.
VALIDATION_SHARE = 0.15
#: Fewer rows than this in a part say nothing, whatever the model.
PART_ROWS_MIN = 100


@dataclass(frozen=True)
class Part:
    """Rows of one instrument in one part: `begin` to `end`, and their targets."""

    begin: int
    end: int
    #: float64 array, shape (end - begin, horizons): log return; NaN where there is none.
    target: F64


@dataclass(frozen=True)
class Split:
    """One instrument's three parts."""

    track: Track
    train: Part
    validation: Part
    test: Part


PARTS = ("train", "validation", "test")


def part_sizes(splits: Sequence[Split]) -> dict[str, int]:
    """Return the ticks of each part, over all instruments."""
    return {name: sum(len(getattr(split, name).target) for split in splits) for name in PARTS}


def split_in_time(collected: Collected, share: float, horizons: Sequence[int]) -> list[Split]:
    """Cut every instrument at the same two points in time.

    Parameters
    ----------
    share : of all ticks, for training and validation

    Raises
    ------
    TickFileError : too few ticks, or prices that never move
    SettingsError : a horizon for which the training or validation part has no target
    """
    if collected.tick_count < PART_ROWS_MIN:
        raise TickFileError(f"{collected.tick_count} usable ticks are too few to train on; give some thousands")
    ts = np.sort(np.concatenate([track.ts for track in collected.tracks]))
    cuts = [ts[int(len(ts) * part)] for part in (share * (1 - VALIDATION_SHARE), share)]
    splits = [_split(track, cuts, horizons) for track in collected.tracks]
    _check(splits, horizons)
    return splits


def _split(track: Track, cuts: Sequence[int], horizons: Sequence[int]) -> Split:
    first, second = (int(at) for at in np.searchsorted(track.ts, cuts))
    bounds = ((0, first), (first, second), (second, len(track.ts)))
    train, validation, test = (Part(low, high, _targets(track, low, high, horizons)) for low, high in bounds)
    return Split(track, train, validation, test)


def _targets(track: Track, begin: int, end: int, horizons: Sequence[int]) -> F64:
    """Compute log returns of the reference price to each horizon, from the prices of these rows alone."""
    target = np.full((end - begin, len(horizons)), np.nan)
    log_price = np.log(track.price[begin:end])
    session = np.cumsum(track.resets[begin:end])
    for column, horizon in enumerate(horizons):
        if horizon < len(log_price):
            same = session[horizon:] == session[:-horizon]
            returns = log_price[horizon:] - log_price[:-horizon]
            target[:-horizon, column] = np.where(same, returns, np.nan)
    return target


def _check(splits: Sequence[Split], horizons: Sequence[int]) -> None:
    for name, rows in part_sizes(splits).items():
        if rows < PART_ROWS_MIN:
            raise TickFileError(
                f"the {name} part has {rows} ticks, at least {PART_ROWS_MIN} are needed; give more ticks"
            )
    for name in PARTS[:2]:
        target = np.concatenate([getattr(split, name).target for split in splits])
        for column, horizon in enumerate(horizons):
            known = target[:, column][np.isfinite(target[:, column])]
            if not len(known):
                raise SettingsError(
                    f"horizon {horizon} is longer than any session in the {name} part; "
                    "give shorter --horizons, or more ticks"
                )
            if not known.any():
                raise TickFileError(
                    f"no price moves in the {name} part (horizon {horizon}); there is nothing to learn from"
                )


def columns_of(splits: Sequence[Split], names: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns with their scales from the training part; a constant column keeps a scale of 1."""
    rows = np.concatenate([split.track.features[: split.train.end] for split in splits])
    mean, std = rows.mean(axis=0), rows.std(axis=0)
    std = np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-300), std, 1.0)
    return tuple(Column(name, "frozen", float(m), float(s)) for name, m, s in zip(names, mean, std, strict=True))


def outputs_of(splits: Sequence[Split], horizons: Sequence[int]) -> tuple[Output, ...]:
    """Return one output per horizon; its scale is the root mean square of the training targets."""
    target = np.concatenate([split.train.target for split in splits])
    return tuple(
        Output(horizon, "log_return", scale=float(np.sqrt(np.nanmean(target[:, column] ** 2))))
        for column, horizon in enumerate(horizons)
    )


def volatility_of(splits: Sequence[Split]) -> float:
    """Return the standard deviation of one-tick log returns, the median over the instruments' training parts."""
    stds = []
    for split in splits:
        rows = slice(0, split.train.end)
        returns = np.diff(np.log(split.track.price[rows]))[~split.track.resets[rows][1:]]
        if returns.any():
            stds.append(float(returns.std()))
    return float(np.median(stds))


def in_units(target: F64, outputs: Sequence[Output]) -> F64:
    """Convert log returns, shape (rows, outputs), to the model's output units."""
    units: F64 = target / np.array([output.scale for output in outputs])
    return units


def in_returns(y: F32, outputs: Sequence[Output]) -> F64:
    """Convert the model's outputs, shape (rows, outputs), to log returns."""
    returns: F64 = y.astype(np.float64) * np.array([output.scale for output in outputs])
    return returns


def training_rows(splits: Sequence[Split], columns: Sequence[Column], outputs: Sequence[Output]) -> list[SessionRows]:
    """Return the sessions of the training parts; those without any target are left out."""
    found = []
    for split in splits:
        part, track = split.train, split.track
        x = scaled(track.features[: part.end], *frozen_scales(columns))
        weight = np.isfinite(part.target)
        y = np.where(weight, in_units(part.target, outputs), 0.0)
        for begin, end in track.sessions(part.end):
            if weight[begin:end].any():
                found.append(
                    SessionRows(x[begin:end], y[begin:end].astype(np.float32), weight[begin:end].astype(np.float32))
                )
    return found
