"""How far the two modes of one model differ on real ticks: their forecasts from each other, and each from the truth.

R² is against persistence, "no change", as everywhere: 1 - sum((truth - mean)²) / sum((truth - price)²), relative to the
price, over every tick whose target lies in its own session, and its mean over the instruments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.core.sessions import Rules
from daemon.core.spec import ModelSpec
from daemon.core.step import Step
from daemon.model.facts import Mode
from daemon.model.predict import outcomes

F64 = NDArray[np.float64]

#: Ticks that are compared at most: enough for a figure, and a minute on TensorFlow.
TICKS_MAX = 20_000


@dataclass(frozen=True)
class Comparison:
    """What a mode changes."""

    ticks: int
    refused: int
    instruments: int
    steps: int
    #: Mean |window - carried| over all forecasts, relative to the price.
    difference: float
    #: Horizon -> R² by mode; None where no price moved, or no target was known.
    r2: dict[int, dict[Mode, float | None]]


def compare(
    ways: Mapping[Mode, tuple[ModelSpec, Step]], ticks: Iterable[Mapping[str, Any]], rules: Rules, steps: int
) -> Comparison:
    """Run the same ticks in both modes.

    Parameters
    ----------
    ways : the model by mode
    ticks : dicts with the keys of `Tick`, in order; the first `TICKS_MAX` count
    """
    taken = list(islice(ticks, TICKS_MAX))
    found: dict[Mode, dict[str, _Track]] = {
        mode: _tracks(outcomes(spec, step, taken, rules=rules)) for mode, (spec, step) in ways.items()
    }
    window, carried = found["window"], found["carried"]
    names = sorted(window.keys() & carried.keys())
    count = sum(len(window[name].price) for name in names)
    gaps = [window[name].gap(carried[name]) for name in names]
    horizons = ways["window"][0].horizons
    return Comparison(
        ticks=count,
        refused=len(taken) - count,
        instruments=len(names),
        steps=steps,
        difference=float(np.mean(np.concatenate(gaps))) if gaps else 0.0,
        r2={
            horizon: {mode: _mean(track.r2(at, horizon) for track in tracks.values()) for mode, tracks in found.items()}
            for at, horizon in enumerate(horizons)
        },
    )


class _Track:
    """The forecasts of one instrument, in order."""

    def __init__(self) -> None:
        self.price: list[float] = []
        self.session: list[str] = []
        self.mean: list[list[float]] = []

    def gap(self, other: _Track) -> F64:
        both = min(len(self.price), len(other.price))  # a break of the model in one mode only
        means = np.array(self.mean[:both]) - np.array(other.mean[:both])
        gaps: F64 = (np.abs(means) / np.abs(np.array(self.price[:both]))[:, np.newaxis]).ravel()
        return gaps

    def r2(self, at: int, horizon: int) -> float | None:
        price = np.array(self.price)
        if len(price) <= horizon:
            return None
        now, truth, mean = price[:-horizon], price[horizon:], np.array(self.mean)[:-horizon, at]
        sessions = np.array(self.session)
        same = (sessions[:-horizon] == sessions[horizon:]) & (now != 0)
        moved = float(np.sum((((truth - now) / now)[same]) ** 2))
        return 1 - float(np.sum((((truth - mean) / now)[same]) ** 2)) / moved if moved > 0 else None


def _tracks(found: Iterable[Mapping[str, Any]]) -> dict[str, _Track]:
    tracks: dict[str, _Track] = {}
    for each in found:
        if "reason" in each:
            continue
        track = tracks.setdefault(each["instrument"], _Track())
        track.price.append(each["price"])
        track.session.append(str(each["session"]))
        track.mean.append(each["mean"])
    return tracks


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
