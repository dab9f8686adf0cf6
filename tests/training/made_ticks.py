"""Ticks whose best possible forecast is known."""

from __future__ import annotations

from typing import Any

import numpy as np

STEP_NS = 50_000_000
START_NS = 1_704_067_200_000_000_000
#: Standard deviation of one-tick log returns.
SIGMA = 1e-4


def trades(returns: np.ndarray, name: str = "MADE", **columns: Any) -> list[dict[str, Any]]:
    """Return trades whose log returns these are; the first return belongs to the second tick."""
    prices = 100 * np.exp(np.concatenate([[0.0], np.cumsum(returns[:-1])]))
    rows = [
        {"instrument": name, "ts": START_NS + number * STEP_NS, "price": price}
        for number, price in enumerate(prices.tolist())
    ]
    for key, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[key] = value
    return rows


def random_walk(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return a walk of independent returns: nothing can be forecast."""
    return trades(SIGMA * np.random.default_rng(seed).standard_normal(count))


def autoregressive(count: int, phi: float, seed: int = 0) -> list[dict[str, Any]]:
    """Return AR(1) returns; one tick ahead the best R2 is phi squared."""
    noise = np.random.default_rng(seed).standard_normal(count)
    returns = np.empty(count)
    last = 0.0
    for number, value in enumerate(noise.tolist()):
        last = phi * last + value
        returns[number] = last
    return trades(SIGMA * returns)


def regimes(count: int, drift: float, spacing: int, seed: int = 0) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Return ticks whose drift has the side of the latest large trade, with what each tick's return will be on average.

    A large trade comes every `spacing` ticks on average; all others are of size 1 and of either side. The drift is
    `drift` standard deviations a tick.
    """
    random = np.random.default_rng(seed)
    events = random.random(count) < 1 / spacing
    events[0] = True
    buys = random.random(count) < 0.5
    latest = np.maximum.accumulate(np.where(events, np.arange(count), 0))
    mean = SIGMA * drift * np.where(buys[latest], 1.0, -1.0)
    returns = mean + SIGMA * random.standard_normal(count)
    ticks = trades(
        returns, size=np.where(events, 1000.0, 1.0).tolist(), aggressor=np.where(buys, "buy", "sell").tolist()
    )
    return ticks, mean
