"""Splits in time, and the targets of each part.

Invariants
----------
- The three parts are cut at two points in time that hold for all instruments, so no instrument's past sees another's
  future.
- A target exists only where the tick `horizon` later is in the same part and the same session: nothing of one part
  reaches into another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from daemon.errors import SettingsError, TickFileError
from daemon.training.collect import F64, Collected, Track

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

    def settled(self) -> Split:
        """Return the split with the validation part at the end of the training part."""
        end = self.validation.end
        count = self.train.target.shape[1]
        joined = np.concatenate([self.train.target, self.validation.target]).reshape(end, count)
        return replace(self, train=Part(0, end, joined))


PARTS = ("train", "validation", "test")


def part_sizes(splits: Sequence[Split]) -> dict[str, int]:
    """Return the ticks of each part, over all instruments."""
    return {name: sum(len(getattr(split, name).target) for split in splits) for name in PARTS}


def split_in_time(collected: Collected, share: float, horizons: Sequence[int], until: float = 1.0) -> list[Split]:
    """Cut every instrument at the same points in time.

    Parameters
    ----------
    share : of all ticks read, for training and validation
    until : where the test part ends, as a share of all ticks; what comes later is left out

    Raises
    ------
    TickFileError : too few ticks, or prices that never move
    SettingsError : a horizon for which the training or validation part has no target
    """
    if collected.tick_count < PART_ROWS_MIN:
        raise TickFileError(f"{collected.tick_count} usable ticks are too few to train on; give some thousands")
    ts = collected.times
    cuts = [ts[int(len(ts) * part)] for part in (share * (1 - VALIDATION_SHARE), share)]
    cuts.append(ts[int(len(ts) * until)] if until < 1 else ts[-1] + 1)
    splits = [_split(track, cuts, horizons) for track in collected.tracks]
    _check(splits, horizons)
    return splits


def _split(track: Track, cuts: Sequence[int], horizons: Sequence[int]) -> Split:
    first, second, end = (int(at) for at in np.searchsorted(track.ts, cuts))
    bounds = ((0, first), (first, second), (second, end))
    train, validation, test = (Part(low, high, returns_ahead(track, low, high, horizons)) for low, high in bounds)
    return Split(track, train, validation, test)


def returns_ahead(track: Track, begin: int, end: int, horizons: Sequence[int]) -> F64:
    """Compute log returns of the reference price to each horizon, from the prices of these rows alone.

    Returns
    -------
    float64 array, shape (end - begin, horizons); NaN where the tick is not among these rows, or in another session
    """
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
        # The test part has no say, not even by being unusable.
        if name != "test" and rows < PART_ROWS_MIN:
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
