"""Records of both topics as the page reads them."""

from __future__ import annotations

import json
from typing import Any

from daemon.core.records import InputRecord

T0_MS = 1_700_000_000_000
HORIZONS = (1, 5)


def tick(name: str, offset: int, *, at_ms: int = T0_MS, partition: int = 0, **fields: Any) -> InputRecord:
    value = {"instrument": name, "ts": at_ms * 1_000_000, **(fields or {"price": 100.0})}
    return InputRecord("ticks", partition, offset, at_ms, name.encode(), json.dumps(value).encode())


def forecast(
    name: str, offset: int, step: int, price: float = 100.0, *, at_ms: int = T0_MS, partition: int = 0, **changes: Any
) -> InputRecord:
    """Return the forecast of the tick at `offset`; its means are the price unless given."""
    value = payload(name, offset, step, price, partition=partition, **changes)
    return InputRecord("forecasts", partition, offset, at_ms, name.encode(), json.dumps(value).encode())


def payload(name: str, offset: int, step: int, price: float, *, partition: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"ticks-{partition}-{offset}",
        "instrument": name,
        "ts": T0_MS * 1_000_000,
        "session": None,
        "step": step,
        "reset": "first" if step == 0 else None,
        "warm": True,
        "price": price,
        "horizons": list(HORIZONS),
        "mean": [price] * len(HORIZONS),
        "lower": None,
        "upper": None,
        "variance": None,
        "model": "0123456789abcdef",
        "schema_version": 1,
    } | changes
