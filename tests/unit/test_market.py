"""The simulated market: it repeats itself, its flow moves prices, its walk does not, and it knows its own mean."""

import itertools
from collections import defaultdict

import numpy as np
import pytest

from daemon.dev.market import START_NS, WALK, Market
from schemas import Tick

HORIZON = 10


def cut(market: Market, count: int) -> list[dict]:
    return list(itertools.islice(market.ticks(), count))


def test_the_same_seed_gives_the_same_ticks_and_another_one_others():
    ticks = cut(Market(7), 2000)
    assert cut(Market(7), 2000) == ticks
    assert cut(Market(8), 2000) != ticks


def test_every_tick_keeps_the_schema_and_event_time_and_seq_only_grow():
    market = Market(1, instruments=5)
    last_ts, last_seq = START_NS, dict.fromkeys(market.instruments, 0)
    for raw in cut(market, 5000):
        tick = Tick.model_validate(raw)
        assert tick.ts > last_ts
        assert tick.seq == last_seq[tick.instrument] + 1
        last_ts, last_seq[tick.instrument] = tick.ts, tick.seq
    assert min(last_seq.values()) > 100  # all of them tick


def test_prices_are_whole_ticks_and_trades_hit_the_quote():
    quotes: dict[str, dict] = {}
    tick_size = {"FLOW1": 0.01, "FLOW2": 0.001, WALK: 0.0001}
    for tick in cut(Market(2, instruments=3), 3000):
        name = tick["instrument"]
        prices = [tick[key] for key in ("price", "bid", "ask") if key in tick]
        assert all(price == round(price, 4) and price > 0 for price in prices)
        assert all(abs(price / tick_size[name] - round(price / tick_size[name])) < 1e-6 for price in prices)
        if "bid" in tick:
            quotes[name] = tick
            assert tick["bid"] < tick["ask"]
        elif name in quotes:
            assert tick["price"] == quotes[name]["ask" if tick["aggressor"] == "buy" else "bid"]


def test_sessions_are_apart_by_the_quiet_time_for_every_instrument():
    ticks = cut(Market(3, ticks_per_second=50, session_seconds=20, quiet_seconds=5000), 4000)
    waits = np.diff([tick["ts"] for tick in ticks]) / 1e9
    quiet = waits > 5000
    assert quiet.sum() in (3, 4)  # 4000 ticks are about 80 seconds of trading
    assert waits[~quiet].max() < 5


def outcomes(seed: int, count: int) -> dict[str, np.ndarray]:
    """Per instrument: what the market expected over the horizon, what happened, and the quoted imbalance."""
    market = Market(seed, instruments=4, ticks_per_second=1000, session_seconds=1e9)
    rows = defaultdict(list)
    mid: dict[str, float] = {}
    imbalance: dict[str, float] = {}
    for tick in itertools.islice(market.ticks(), count):
        name = tick["instrument"]
        if "bid" in tick:
            mid[name] = (tick["bid"] + tick["ask"]) / 2
            imbalance[name] = (tick["bid_size"] - tick["ask_size"]) / (tick["bid_size"] + tick["ask_size"])
        if name in mid:
            rows[name].append((market.conditional_mean(name, HORIZON), np.log(mid[name]), imbalance[name]))
    tables = {name: np.array(table) for name, table in rows.items()}
    return {
        name: np.column_stack([table[:-HORIZON, 0], table[HORIZON:, 1] - table[:-HORIZON, 1], table[:-HORIZON, 2]])
        for name, table in tables.items()
    }


@pytest.fixture(scope="module")
def moves() -> dict[str, np.ndarray]:
    return outcomes(seed=5, count=60_000)


def test_the_market_knows_the_mean_of_what_happens_next(moves):
    for name, (expected, happened, _) in ((name, table.T) for name, table in moves.items() if name != WALK):
        slope = expected @ happened / (expected @ expected)
        skill = 1 - np.sum((happened - expected) ** 2) / np.sum(happened**2)
        assert slope == pytest.approx(1.0, abs=0.1), name  # the size of the mean is right, not only its sign
        assert 0.2 < skill < 0.4, name


def test_what_can_be_seen_says_something_about_flow_instruments_and_nothing_about_the_walk(moves):
    seen = {name: np.corrcoef(table[:, 1], table[:, 2])[0, 1] for name, table in moves.items()}
    assert all(correlation > 0.2 for name, correlation in seen.items() if name != WALK)
    # overlapping outcomes: the error of the correlation is about sqrt(horizon / ticks) = 0.04
    assert abs(seen[WALK]) < 0.1
    assert not moves[WALK][:, 0].any()


def test_the_walk_moves_all_the_same(moves):
    assert moves[WALK][:, 1].std() > 1e-5
