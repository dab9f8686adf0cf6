"""The canary's ticks: one fixed sequence that the daemon slips into its live batches again and again.

Quotes and trades a few milliseconds apart, from a fixed seed, at a fixed time; only the names of `fields` follow the
bundle's columns. Same bundle, same bytes.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import orjson

from daemon.core.spec import Column

#: Instrument of the canary; the tilde keeps it apart from (and sorted behind) what people name instruments.
INSTRUMENT = "~canary"
#: Long enough for a stale or foreign state to show, short enough to finish a run within seconds of live batches.
TICK_COUNT = 24
#: 2024-01-02T15:00:00Z, a Tuesday inside the opening hours of most exchanges.
START_NS = 1_704_207_600_000_000_000
SEED = 20240102

_FIELD = re.compile(r"field:([a-z0-9_]{1,32})")


def field_names(columns: Sequence[Column]) -> list[str]:
    """Return the names of tick fields the columns read, sorted."""
    return sorted({name for column in columns for name in _FIELD.findall(column.feature)})


def canary_ticks(columns: Sequence[Column]) -> tuple[bytes, ...]:
    """Return the canary's ticks as JSON values of the input topic, in order."""
    draw = random.Random(SEED)  # noqa: S311 (a fixed sequence, not a secret)
    names = field_names(columns)
    ts, mid = START_NS, 100.0
    ticks = []
    for _ in range(TICK_COUNT):
        ts += draw.randint(1_000_000, 9_000_000)
        mid *= 1 + draw.gauss(0, 1e-4)
        tick: dict[str, object] = {"instrument": INSTRUMENT, "ts": ts}
        tick |= _trade(draw, mid) if draw.random() < 0.4 else _quote(draw, mid)
        if names:
            tick["fields"] = {name: round(mid * (1 + draw.gauss(0, 1e-3)), 4) for name in names}
        ticks.append(orjson.dumps(tick))
    return tuple(ticks)


def _quote(draw: random.Random, mid: float) -> dict[str, object]:
    half = 0.01 * draw.randint(1, 3)
    sizes = {"bid_size": draw.randint(1, 500), "ask_size": draw.randint(1, 500)}
    return {"bid": round(mid - half, 4), "ask": round(mid + half, 4), **sizes}


def _trade(draw: random.Random, mid: float) -> dict[str, object]:
    aggressor = draw.choice(["buy", "sell"])
    return {"price": round(mid, 4), "size": draw.randint(1, 100), "aggressor": aggressor}
