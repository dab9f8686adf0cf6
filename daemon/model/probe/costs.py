"""What a way to serve costs: time of a call, and memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from daemon.core.step import F32
from daemon.model.probe.budget import Budget
from daemon.model.probe.ways import Ask

_STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class Speed:
    """Time of one call after the other on one thread, resets and locks included; in ms and calls per second."""

    calls: int
    p50_ms: float
    p99_ms: float
    calls_per_second: float


def time_calls(timed: Mapping[str, Ask], x: F32, calls: int, budget: Budget) -> dict[str, Speed]:
    """Time each function in turn: so many calls, fewer where the budget ends, at least one."""
    left = len(timed)
    return {
        name: _time(ask, x, calls, budget.share(1 / (left - index))) for index, (name, ask) in enumerate(timed.items())
    }


def resident_mb() -> float | None:
    """Return the process' resident memory in MB, None where the system has no /proc."""
    try:
        pages = int(_STATM.read_text("ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _time(ask: Ask, x: F32, calls: int, budget: Budget) -> Speed:
    seconds: list[float] = []
    while not seconds or (len(seconds) < calls and not budget.spent):
        began = budget.clock()
        ask(x)
        seconds.append(budget.clock() - began)
    p50, p99 = np.percentile(seconds, (50, 99)) * 1e3
    return Speed(len(seconds), float(p50), float(p99), len(seconds) / max(sum(seconds), 1e-9))
