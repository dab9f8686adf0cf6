"""What a model is asked and should answer: windows and targets, from a user's own arrays or cut out of ticks."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32
from daemon.doctor.linear import SPLIT
from daemon.errors import TickFileError
from daemon.training.collect import Track
from daemon.training.dataset import returns_ahead

Index = NDArray[np.intp]

#: Bound on what unpacks from a file of arrays.
ARRAY_BYTES_MAX = 4 * 1024**3
#: Arrays that a file may hold beside X and y: rows that no scaler may have seen.
LATER = ("X_val", "X_test")


@dataclass(frozen=True)
class Samples:
    """Inputs and targets in order of time."""

    #: From arrays: shape (samples, ...). From ticks: the rows that windows are cut from, shape (rows, features).
    x: F32
    #: Shape (samples, ...), as given.
    y: NDArray[Any]
    #: Names of the features.
    names: tuple[str, ...]
    #: Samples that a target looks ahead: so far neighbours are no independent evidence.
    horizon: int = 1
    #: From ticks: the row after each window, and its length.
    ends: Index | None = None
    steps: int = 0
    #: Rows after X in time, by the name of their array.
    later: tuple[tuple[str, F32], ...] = ()

    def __len__(self) -> int:
        return len(self.x) if self.ends is None else len(self.ends)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the inputs, samples first."""
        return self.x.shape if self.ends is None else (len(self.ends), self.steps, self.x.shape[1])

    def inputs(self, at: Index | slice) -> F32:
        """Return the inputs of some samples, shape (samples, steps, features)."""
        if self.ends is None:
            return self.x[at]
        windows: F32 = self.x[self.ends[at][:, None] + np.arange(-self.steps, 0)]
        return windows

    def spread(self, count: int, begin: int = 0, end: int | None = None) -> Index:
        """Return at most `count` sample numbers between two, evenly spread."""
        end = len(self) if end is None else end
        return np.unique(np.linspace(begin, end - 1, min(count, max(end - begin, 1))).astype(np.intp))

    @property
    def cut(self) -> int:
        """The first sample that judges; what comes before fits."""
        return int(len(self) * SPLIT)


def read_arrays(path: Path, horizon: int) -> Samples:
    """Read X and y from an .npz file; nothing in it is run.

    Raises
    ------
    TickFileError : the file is missing, too large, no .npz, or holds no X and y
    """
    if not path.is_file():
        raise TickFileError(f"{path}: no such file; check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > ARRAY_BYTES_MAX:
            raise TickFileError(f"{path}: unpacks to {size} bytes; give at most {ARRAY_BYTES_MAX}, e.g. fewer samples")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name in ("X", "y", *LATER)}
            found = ", ".join(file.files)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise TickFileError(f"{path}: is no .npz of plain arrays ({error}); write it with np.savez") from error
    for name in ("X", "y"):
        if name not in arrays:
            raise TickFileError(f"{path}: no array {name}, found {found}; write it with np.savez(file, X=X, y=y)")
    if any(array.dtype.kind not in "fiub" for array in arrays.values()):
        raise TickFileError(f"{path}: X and y must be numbers, found {arrays['X'].dtype} and {arrays['y'].dtype}")
    x, y = arrays["X"].astype(np.float32), arrays["y"]
    if x.ndim < 2 or len(x) < 2 or len(x) != len(y):
        raise TickFileError(f"{path}: X {x.shape} and y {y.shape} need the same number of samples, at least 2")
    later = tuple((name, arrays[name].astype(np.float32)) for name in LATER if name in arrays)
    names = tuple(f"column {number}" for number in range(x.shape[-1]))
    return Samples(x, y, names, horizon, later=later)


def cut_windows(
    tracks: Sequence[Track],
    names: Sequence[str],
    steps: int,
    horizons: Sequence[int],
    scales: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> Samples:
    """Cut windows out of sessions; targets are log returns, each horizon in units of its root mean square.

    Parameters
    ----------
    scales : mean and standard deviation of each column; None takes those of the fitting part

    Raises
    ------
    TickFileError : no window has a target
    """
    rows, targets, ends, times, offset = [], [], [], [], 0
    for track in tracks:
        target = returns_ahead(track, 0, len(track.ts), horizons)
        since = _ticks_since_reset(track.resets)
        usable = np.flatnonzero(np.isfinite(target).all(axis=1) & (since >= steps - 1))
        rows.append(track.features)
        targets.append(target[usable])
        ends.append(offset + usable + 1)
        times.append(track.ts[usable])
        offset += len(track.ts)
    order = np.argsort(np.concatenate(times), kind="stable") if times else np.empty(0, np.intp)
    if len(order) < 2:
        raise TickFileError(
            f"no session holds {steps} ticks and another {max(horizons)} later; give shorter --steps or --horizons"
        )
    end, y = np.concatenate(ends)[order], np.concatenate(targets)[order]
    cut = int(len(y) * SPLIT)
    x = np.concatenate(rows)
    if scales is None:
        fit = x[np.unique(end[:cut] - 1)]
        scales = (fit.mean(axis=0), np.where(fit.std(axis=0) > 0, fit.std(axis=0), 1.0))
    unit = np.sqrt(np.mean(y[:cut] ** 2, axis=0))
    unit = np.where(unit > 0, unit, 1.0)
    with np.errstate(over="ignore"):
        scaled = ((x - scales[0]) / scales[1]).astype(np.float32)
    # samples of several instruments lie between one and the one that its target overlaps with
    reach = max(horizons) * max(len(tracks), 1)
    return Samples(scaled, (y / unit).astype(np.float32), tuple(names), reach, ends=end, steps=steps)


def _ticks_since_reset(resets: NDArray[np.bool_]) -> Index:
    at = np.arange(len(resets))
    return at - np.maximum.accumulate(np.where(resets, at, 0))
