"""Ticks for tests of training."""

from __future__ import annotations

import itertools
from typing import Any

from daemon.dev.market import Market


def market_ticks(
    count: int, *, seed: int = 0, instruments: int = 3, session_seconds: float = 60.0
) -> list[dict[str, Any]]:
    """Return ticks of a simulated market: 20 a second, a new session every `session_seconds`."""
    market = Market(seed, instruments, ticks_per_second=20, session_seconds=session_seconds)
    return list(itertools.islice(market.ticks(), count))
