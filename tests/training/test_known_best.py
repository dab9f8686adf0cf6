"""Made ticks with a known best: training gets at least 80 % of it, and claims nothing where there is nothing."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from daemon.dev.market import PERSISTENCE, PULL, WALK, Market
from daemon.training import TrainingOptions, train
from daemon.training.scores import skill
from tests.training.made_ticks import autoregressive, order_flow, order_flow_mean, random_walk, regimes

pytestmark = [pytest.mark.tensorflow, pytest.mark.long]

SHARE = 0.8


def trained(ticks, options, tmp_path):
    """Return the report and the last fold."""
    kept = []
    report = train(ticks, options, tmp_path / "bundle", keep=kept.append)
    return report, kept[-1]


def test_autoregressive_returns_are_forecast_almost_as_well_as_can_be(tmp_path):
    options = TrainingOptions(horizons=(1,), columns=("return", "ema:5:return", "wait"), units=16, epochs=4, split=0.6)
    report, fold = trained(autoregressive(125_000, 0.3), options, tmp_path)
    target, _ = fold.judged.forecasts(lambda split: split.test)["MADE"]
    assert np.isfinite(target).sum() == pytest.approx(50_000, abs=1)
    assert report.skill[0] > SHARE * 0.09
    assert report.skill[0] < 0.1


def test_a_random_walk_shows_no_skill(tmp_path):
    options = TrainingOptions(horizons=(1, 10), units=16, layers=1, epochs=4)
    report, fold = trained(random_walk(40_000), options, tmp_path)
    target, forecast = fold.judged.forecasts(lambda split: split.test)["MADE"]
    for column, horizon in enumerate((1, 10)):
        gain = (target**2 - (target - forecast) ** 2)[:, column]
        gain = gain[np.isfinite(gain)]
        # means of blocks far longer than the horizon are as good as independent
        blocks = np.array([block.mean() for block in np.array_split(gain, len(gain) // (20 * horizon))])
        low = blocks.mean() - 1.96 * blocks.std() / math.sqrt(len(blocks))
        assert low <= 0, "skill is claimed on a random walk"
        assert report.skill[column] < 0.005


def test_a_regime_that_only_memory_can_tell_is_told_and_a_reset_model_cannot(tmp_path):
    ticks, mean = regimes(60_000, drift=0.3, spacing=150)
    options = TrainingOptions(horizons=(1,), columns=("return", "signed_size"), units=32, layers=1, epochs=10)
    report, fold = trained(ticks, options, tmp_path)
    part = fold.splits[0].test
    best = skill(part.target, mean[part.begin : part.end, None])[0]
    assert best == pytest.approx(0.3**2 / (1 + 0.3**2), abs=0.01)
    assert report.skill[0] > SHARE * best
    assert report.skill_reset_every_tick[0] < 0.2 * best


def test_order_flow_that_is_seen_is_forecast_almost_as_well_as_by_the_simulator_itself(tmp_path):
    ticks, known = order_flow(40_000)
    options = TrainingOptions(horizons=(1, 10), columns=("return", "signed_size"), units=16, layers=1, epochs=8)
    report, fold = trained(ticks, options, tmp_path)
    part = fold.splits[0].test
    mean = np.column_stack([order_flow_mean(known, horizon) for horizon in options.horizons])
    best = skill(part.target, mean[part.begin : part.end])
    assert best[1] > 0.2
    for column in range(2):
        wanted = SHARE * best[column]
        assert wanted < report.skill[column] < 1.05 * best[column]
        # neither no change nor what sees one tick at a time gets there
        assert 0.0 < report.skill_reset_every_tick[column] < 0.5 * wanted
        assert report.skill_ridge[column] < 0.75 * wanted


def test_order_flow_is_forecast_almost_as_well_as_what_is_seen_of_it_allows(tmp_path):
    market = Market(3, 3, ticks_per_second=20, session_seconds=600.0)
    ticks, best = [], {name: [] for name in market.instruments}
    filters = {name: FlowFilter() for name in market.instruments}
    for tick in itertools.islice(market.ticks(), 90_000):
        name = tick["instrument"]
        ticks.append(tick)
        flow = filters[name].see(tick)
        hidden = market._books[name].flow
        # the simulator's mean is proportional to the flow; what is seen gives the flow's expectation
        best[name].append(market.conditional_mean(name, 10) * (flow / hidden if hidden else 0.0))
    report, fold = trained(ticks, replace(TrainingOptions(), horizons=(10,), units=32, epochs=10), tmp_path)
    skills = []
    for split in fold.splits:
        if split.track.name != WALK:
            part = split.test
            mean = np.array(best[split.track.name])[part.begin : part.end, None]
            skills.append(skill(part.target, mean)[0])
    flows = [found[0] for name, found in report.skill_by_instrument.items() if name != WALK]
    assert np.mean(skills) > 0.1
    assert np.mean(flows) > SHARE * np.mean(skills)
    assert report.skill_by_instrument[WALK][0] < 0.01


class FlowFilter:
    """The hidden flow's distribution given what an instrument's ticks show, on a grid: no forecast can know more.

    Moves of the price say a little, too; they are left out.
    """

    GRID = np.linspace(-4, 4, 81)
    GAP_NS = 3_000 * 10**9

    def __init__(self) -> None:
        noise = math.sqrt(1 - PERSISTENCE**2)
        steps = np.exp(-(((self.GRID[None, :] - PERSISTENCE * self.GRID[:, None]) / noise) ** 2) / 2)
        self._steps = steps / steps.sum(axis=1, keepdims=True)
        self._start = np.exp(-(self.GRID**2) / 2)
        self._last = None

    def see(self, tick) -> float:
        """Take a tick and return the expected flow after it."""
        if self._last is None or tick["ts"] - self._last > self.GAP_NS:
            self._seen = self._start / self._start.sum()
        self._last = tick["ts"]
        # a tick shows the flow after its own step
        seen = self._seen @ self._steps
        if "bid" in tick:
            bid, ask = tick["bid_size"], tick["ask_size"]
            shown = math.atanh(min(max((bid - ask) / (bid + ask), -0.999), 0.999)) / 0.6
            seen = seen * np.exp(-((shown - self.GRID) ** 2) / 2)
        else:
            buys = 1 / (1 + np.exp(-1.2 * self.GRID))
            seen = seen * (buys if tick["aggressor"] == "buy" else 1 - buys)
        self._seen = seen / seen.sum()
        return float(self._seen @ self.GRID)


def test_the_filter_knows_most_of_the_flow():
    market = Market(1, 2, ticks_per_second=20, session_seconds=1e9)
    seen, hidden = FlowFilter(), []
    for tick in itertools.islice(market.ticks(), 8000):
        if tick["instrument"] == "FLOW1":
            hidden.append((seen.see(tick), market._books["FLOW1"].flow))
    found, flow = np.array(hidden).T
    assert 0.6 < 1 - np.mean((found - flow) ** 2) / flow.var() < 0.9
    assert PULL > 0
