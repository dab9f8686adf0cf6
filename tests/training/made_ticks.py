"""Ticks whose best possible forecast is known."""

from __future__ import annotations

from typing import Any

import numpy as np

STEP_NS = 50_000_000
START_NS = 1_704_067_200_000_000_000
#: Standard deviation of one-tick log returns.
SIGMA = 1e-4
#: Order flow: what a side keeps of itself from trade to trade, what the pressure on the price keeps of itself, and how
#: much of it, in standard deviations, moves the price at each tick.
SIDE_KEEPS = 0.6
PRESSURE_KEEPS = 0.95
IMPACT = 0.04


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


def order_flow(count: int, seed: int = 0) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Return trades whose sides are seen and whose prices follow them late, with the pressure and the side after each.

    Sides are a Markov chain: a trade has the side of the one before with probability ``(1 + SIDE_KEEPS) / 2``. Each
    trade presses on the price by its side, and the pressure fades by ``PRESSURE_KEEPS`` a tick::

        pressure[t] = PRESSURE_KEEPS pressure[t - 1] + side[t]
        return[t]   = SIGMA (IMPACT pressure[t - 1] + noise[t])

    Everything but the noise to come can be told from the ticks seen. The second array has shape (count, 2).
    """
    random = np.random.default_rng(seed)
    turns = np.where(random.random(count) < (1 + SIDE_KEEPS) / 2, 1.0, -1.0)
    sides = np.cumprod(turns)
    pressure = np.empty(count)
    last = 0.0
    for number, side in enumerate(sides.tolist()):
        last = PRESSURE_KEEPS * last + side
        pressure[number] = last
    # `trades` has the return of the next tick at each row
    returns = SIGMA * (IMPACT * pressure + random.standard_normal(count))
    ticks = trades(returns, size=[1.0] * count, aggressor=np.where(sides > 0, "buy", "sell").tolist())
    return ticks, np.column_stack([pressure, sides])


def order_flow_mean(known: np.ndarray, horizon: int) -> np.ndarray:
    """Return the simulator's conditional mean of the log return over `horizon` ticks, in closed form.

    From a tick on, the expected pressure and side move by a matrix; the return is the sum of the pressures on the way.
    """
    step = np.array([[PRESSURE_KEEPS, SIDE_KEEPS], [0.0, SIDE_KEEPS]])
    powers = sum(np.linalg.matrix_power(step, ahead) for ahead in range(horizon))
    return SIGMA * IMPACT * (known @ powers[0])
