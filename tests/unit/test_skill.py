"""Skill, coverage and width of the last scored forecasts: right, bounded, and said with care."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from daemon.core.forecast import Forecaster
from daemon.core.kept_scores import Pending
from daemon.core.pipeline import Batch
from daemon.core.spec import Output
from daemon.logs import log
from daemon.metrics import Metrics
from daemon.skill import FEWEST, WINDOW, HorizonScores, LiveScores
from daemon.spread import PredictionSpread
from daemon.watched import Watch
from tests.ticks import model
from tests.unit.test_metrics import samples

HORIZONS = (1, 50)


def live(*, absolute: bool = False) -> LiveScores:
    outputs = [Output(h, "difference") for h in HORIZONS]
    return LiveScores(Forecaster(model(outputs=outputs), 0.9), absolute=absolute)


def scored(column: int, move: float, mean: float, *, slot: int = 0, half: float = 2.0, price: float = 100.0) -> Any:
    forecast = Pending(9, 0, 0, price, price + mean, mean, 1.0, mean - half, mean + half, 0.0)
    return SimpleNamespace(instrument=SimpleNamespace(slot=slot), price=price + move), column, forecast


def of(made: LiveScores, horizon: int) -> HorizonScores:
    return next(each for each in made.figures() if each.horizon == horizon)


def test_skill_coverage_and_width_are_those_of_the_outcomes() -> None:
    made, moves = live(), np.random.default_rng(0).standard_normal(1000)
    made.observe([scored(0, move, 0.5 * move) for move in moves])
    found = of(made, 1)
    assert found.skill == pytest.approx(0.75)
    assert found.coverage == pytest.approx((np.abs(0.5 * moves) <= 2).mean())
    assert found.width == pytest.approx(0.04)
    assert [each.horizon for each in made.figures()] == [1]


def test_errors_are_relative_to_the_price_unless_prices_may_be_negative() -> None:
    for absolute, expected in ((False, 0.04), (True, 4.0)):
        made = live(absolute=absolute)
        made.observe([scored(0, 1.0, 0.0)])
        assert of(made, 1).width == pytest.approx(expected)


def test_an_unknown_interval_counts_for_neither_coverage_nor_width() -> None:
    made = live()
    made.observe([scored(0, 1.0, 0.0, half=float("inf"))] * FEWEST)
    assert of(made, 1) == (1, 0.0, pytest.approx(0.0), None, None)


def test_prices_that_never_moved_have_no_skill() -> None:
    made = live()
    made.observe([scored(0, 0.0, 0.1)] * FEWEST)
    assert of(made, 1).skill is None


def test_the_upper_end_covers_no_skill_as_often_as_it_should_with_overlapping_truths() -> None:
    """Forecasts of no skill but noise: 2.5 % of worlds may call it below zero for sure, a naive interval many more."""
    rng, sure = np.random.default_rng(5), 0
    for _ in range(200):
        made = live()
        for slot in range(2):
            steps = rng.standard_normal(4 * 300 + 50)
            sums = np.convolve(steps, np.ones(50), "valid")[::8]
            # Noise as large as a fiftieth of the moves: skill is below zero by next to nothing.
            guess = np.convolve(rng.standard_normal(len(steps)), np.ones(50), "valid")[::8] * 0.02
            made.observe([scored(1, move, g, slot=slot) for move, g in zip(sums, guess, strict=True)])
        found = of(made, 50)
        sure += found.skill_upper < 0  # type: ignore[operator]
    assert sure < 20


def test_below_zero_is_said_when_it_is_sure_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    made, rng = live(), np.random.default_rng(1)
    with caplog.at_level(logging.INFO, logger=log.name):
        log.propagate = True
        try:
            for sign, count in ((-1, 2000), (-1, 100), (1, WINDOW), (1, 100)):
                made.observe([scored(0, move, 0.5 * sign * move) for move in rng.standard_normal(count)])
                made.warn(made.figures())
        finally:
            log.propagate = False
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_few_outcomes_say_nothing() -> None:
    made = live()
    made.observe([scored(0, 1.0, -1.0)] * (FEWEST - 1))
    assert of(made, 1).skill is None
    made.observe([scored(0, 1.0, -1.0)])
    assert of(made, 1).skill == pytest.approx(-3.0)


def test_memory_is_bounded_and_the_last_outcomes_count() -> None:
    made = live()
    for sign in (-1, 1):
        for _ in range(30):
            made.observe([scored(0, 1.0, 0.5 * sign)] * 1000)
        assert len(made._ring) <= 3 * WINDOW * 8
    assert of(made, 1).skill == pytest.approx(0.75)


def test_the_metrics_have_one_sample_per_horizon_once_something_was_scored() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, Watch(PredictionSpread(1, 5), live()))
    assert not any("skill" in name for name, _ in samples(registry))
    rng = np.random.default_rng(0)
    metrics.committed(Batch(scored=[scored(c, m, m / 2) for m in rng.standard_normal(500) for c in (0, 1)]), now=0)
    found = samples(registry)
    for name in (
        "forecast_skill_ratio",
        "forecast_skill_upper_ratio",
        "interval_coverage_ratio",
        "interval_width_ratio",
    ):
        assert {labels for key, labels in found if key == f"tickcast_{name}"} == {("1",), ("50",)}
    assert found["tickcast_forecast_skill_ratio", ("50",)] == pytest.approx(0.75)
