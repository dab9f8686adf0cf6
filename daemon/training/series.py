"""Instruments as the model sees them: scaled rows, volatility, and the sequences it is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from daemon.core.spec import Column, Output
from daemon.core.step import F32
from daemon.training.collect import F64
from daemon.training.dataset import Split
from daemon.training.scales import in_units, running_rows
from daemon.training.streams import SessionRows

#: An instrument with so many rows counts half in the loss, one with many more counts in full: what counts is the mean
#: over instruments, but a handful of rows must not decide.
HALF_COUNT_ROWS = 5000


@dataclass(frozen=True)
class Series:
    """One instrument, all parts."""

    split: Split
    #: float32 array, shape (ticks, columns): what the model sees
    x: F32
    #: float64 array, shape (ticks,): running volatility after each tick
    volatility: F64

    def sessions(self, begin: int, end: int) -> list[F32]:
        """Return the rows `begin` to `end`, cut where the state starts anew."""
        cuts = np.flatnonzero(self.split.track.resets[begin:end])
        return [part for part in np.split(self.x[begin:end], cuts) if len(part)]


def series_of(splits: Sequence[Split], columns: Sequence[Column], volatilities: Sequence[F64]) -> list[Series]:
    """Scale every instrument's rows."""
    return [
        Series(split, running_rows(split.track, columns), volatility)
        for split, volatility in zip(splits, volatilities, strict=True)
    ]


def training_rows(series: Sequence[Series], outputs: Sequence[Output]) -> list[SessionRows]:
    """Return the sessions of the training parts; those without any target are left out."""
    weights = loss_weights(series)
    found = []
    for one, weight in zip(series, weights, strict=True):
        part, track = one.split.train, one.split.track
        volatility = one.volatility[: part.end]
        y = np.nan_to_num(in_units(part.target, outputs, volatility)).astype(np.float32)
        for begin, end in track.sessions(part.end):
            if weight[begin:end].any():
                found.append(SessionRows(one.x[begin:end], y[begin:end], weight[begin:end]))
    return found


def loss_weights(series: Sequence[Series]) -> list[F32]:
    """Return what each target counts in the loss, shape (rows, horizons) by instrument; 0 where there is none.

    A row counts by its volatility squared, over the mean square of the instrument's targets: the loss of targets in
    volatilities is then the share of each instrument's variance that is left, however restless the instrument. Naively
    weighted, such targets lost on real ticks: quiet hours, where nothing can be forecast, counted as much as others.
    """
    found = []
    for one in series:
        part = one.split.train
        known = np.isfinite(part.target)
        count = np.maximum(known.sum(axis=0), 1)
        square = np.nansum(part.target**2, axis=0) / count
        weight = np.where(known, one.volatility[: part.end, None] ** 2, 0.0)
        size = 1 / (count + HALF_COUNT_ROWS)
        found.append(weight * np.where(square > 0, size / np.where(square > 0, square, 1.0), 0.0))
    total = sum(weight.sum(axis=0) for weight in found)
    counts = sum((weight > 0).sum(axis=0) for weight in found)
    return [(weight * (counts / total)).astype(np.float32) for weight in found]
