"""Made cases for the doctor: small series with one known defect each, and the same without it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from daemon.boundaries import resolve_rules
from daemon.doctor.data import examine_data
from daemon.doctor.finding import Clear, Finding, Outcome, Report

START = 1_704_207_600 * 10**9
SECOND = 10**9
Ticks = list[dict[str, Any]]


def returns(count: int, phi: float = 0.4, seed: int = 0) -> np.ndarray:
    """Return an AR(1) series with innovations of variance 1."""
    drawn = np.random.default_rng(seed).standard_normal(count)
    series = np.zeros(count)
    for at in range(1, count):
        series[at] = phi * series[at - 1] + drawn[at]
    return series


def quotes(count: int = 1500, phi: float = 0.4, seed: int = 0, name: str = "A") -> Ticks:
    """Return quotes a second apart; their log returns are an AR(1)."""
    mid = 100 * np.exp(np.cumsum(returns(count, phi, seed)) * 1e-4)
    sizes = np.random.default_rng(seed + 1).integers(1, 50, (count, 2))
    return [
        {
            "instrument": name,
            "ts": START + at * SECOND,
            "bid": float(mid[at] * (1 - 1e-5)),
            "ask": float(mid[at] * (1 + 1e-5)),
            "bid_size": int(sizes[at, 0]),
            "ask_size": int(sizes[at, 1]),
        }
        for at in range(count)
    ]


def with_fields(ticks: Ticks, **fields: Iterable[float]) -> Ticks:
    """Return ticks with fields of the producer's own."""
    columns = {name: list(values) for name, values in fields.items()}
    return [
        tick | {"fields": {name: float(values[at]) for name, values in columns.items()}}
        for at, tick in enumerate(ticks)
    ]


def mids(ticks: Ticks) -> np.ndarray:
    """Return the mid of each quote."""
    return np.array([(tick["bid"] + tick["ask"]) / 2 for tick in ticks])


def written(folder: Path, ticks: Ticks, name: str = "ticks.jsonl") -> Path:
    """Write ticks as JSON lines, as they come."""
    file = folder / name
    file.write_bytes(b"\n".join(map(orjson.dumps, ticks)))
    return file


def data_report(folder: Path, ticks: Ticks, **options: Any) -> Report:
    """Examine ticks without fitting anything."""
    options = {"budget_seconds": 0.0, **options}
    return examine_data([written(folder, ticks)], resolve_rules(()), **options)


def outcome(outcomes: Report | Iterable[Outcome], code: str) -> Outcome:
    """Return what came of one check; it was made once."""
    listed = outcomes.outcomes if isinstance(outcomes, Report) else list(outcomes)
    (found,) = [each for each in listed if each.check.code == code]
    return found


def found(outcomes: Report | Iterable[Outcome], code: str) -> Finding:
    """Return a finding; it has evidence beyond its limit."""
    each = outcome(outcomes, code)
    assert isinstance(each, Finding), each
    assert each.evidence
    assert all(each.check.found_at(measured.value) for measured in each.evidence)
    return each


def clear(outcomes: Report | Iterable[Outcome], code: str) -> Clear:
    """Return a check that was made and found nothing."""
    each = outcome(outcomes, code)
    assert isinstance(each, Clear), each
    return each


Change = Callable[[Ticks], Ticks]
