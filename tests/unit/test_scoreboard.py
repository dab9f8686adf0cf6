"""The demo's scoreboard: skill worked out by hand, from forecasts as they are published."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.dev.demo.scoreboard import Scoreboard


def forecast(step: int, price: float, mean: float, **changes: Any) -> dict[str, Any]:
    """A forecast for 2 and 40 ticks ahead; the one for 2 is nearer to what is shown."""
    return {
        "instrument": "A",
        "session": "s",
        "step": step,
        "reset": None,
        "warm": True,
        "price": price,
        "horizons": [2, 40],
        "mean": [mean, 0.0],
        "lower": [mean - 1, 0.0],
        "upper": [mean + 1, 0.0],
    } | changes


def board(*forecasts: dict[str, Any]) -> Scoreboard:
    made = Scoreboard()
    for each in forecasts:
        made.add(each, latency_ms=None)
    return made


def test_skill_is_one_minus_the_ratio_of_squared_errors() -> None:
    made = board(
        forecast(0, 100.0, 101.0),  # comes to 102: error 1, and 2 without a model
        forecast(1, 200.0, 204.0),  # comes to 202: error 2, and 2 without a model
        forecast(2, 102.0, 0.0),
        forecast(3, 202.0, 0.0),
    )
    model = (1 / 100) ** 2 + (2 / 200) ** 2
    naive = (2 / 100) ** 2 + (2 / 200) ** 2
    (row,) = made.rows()
    assert made.horizon == 2
    assert row.errors.judged_count == 2
    assert row.errors.skill == pytest.approx(1 - model / naive)
    assert made.errors.skill == pytest.approx(1 - model / naive)


def test_forecasts_of_no_change_have_no_skill_and_perfect_ones_have_all() -> None:
    prices = [100.0, 101.0, 99.0, 102.0, 98.0]
    naive = board(*(forecast(step, price, price) for step, price in enumerate(prices)))
    assert naive.errors.skill == 0
    coming = [*prices[2:], 0.0, 0.0]
    perfect = board(*(forecast(s, price, mean) for s, (price, mean) in enumerate(zip(prices, coming, strict=True))))
    assert perfect.errors.skill == 1
    assert perfect.errors.judged_count == 3


def test_there_is_no_skill_before_a_price_has_moved() -> None:
    assert board().errors.skill is None
    assert board(*(forecast(step, 100.0, 101.0) for step in range(5))).errors.skill is None


def test_a_reset_leaves_open_forecasts_unjudged() -> None:
    made = board(
        forecast(7, 100.0, 101.0),
        forecast(8, 100.0, 101.0),
        forecast(0, 500.0, 501.0, reset="session"),
        forecast(1, 500.0, 501.0),
        forecast(2, 505.0, 501.0),
    )
    assert made.errors.judged_count == 1
    assert made.errors.naive == pytest.approx((5 / 500) ** 2)


def test_forecasts_that_are_not_warm_are_not_judged() -> None:
    made = board(forecast(0, 100.0, 101.0, warm=False), forecast(1, 100.0, 101.0), *[forecast(2, 102.0, 0.0)])
    assert made.errors.judged_count == 0


def test_instruments_are_judged_by_their_own_prices_and_keep_their_order() -> None:
    made = Scoreboard()
    for step, (a, b) in enumerate([(100.0, 7.0), (100.0, 7.0), (102.0, 7.0)]):
        made.add(forecast(step, b, b, instrument="B"), latency_ms=5.0)
        made.add(forecast(step, a, a + 1), latency_ms=None)
    first, second = made.rows()
    assert (first.instrument, second.instrument) == ("A", "B")
    assert first.errors.skill == pytest.approx(1 - 1 / 4)
    assert second.errors.skill is None
    assert (first.latency_ms, second.latency_ms) == (None, 5.0)
    assert made.errors.judged_count == 2


def test_a_row_shows_the_nearest_horizon_and_intervals_where_they_are_known() -> None:
    (row,) = board(forecast(0, 100.0, 100.5)).rows()
    assert (row.price, row.mean, row.lower, row.upper) == (100.0, 100.5, 99.5, 101.5)
    assert row.basis_points(row.mean) == pytest.approx(50.0)
    (row,) = board(forecast(0, 100.0, 100.5, lower=None, upper=None)).rows()
    assert (row.lower, row.upper) == (None, None)


def test_a_forecast_whose_outcome_was_never_seen_is_not_judged_by_a_later_one() -> None:
    made = board(forecast(0, 100.0, 101.0), forecast(1, 100.0, 100.0), forecast(3, 102.0, 0.0))
    assert made.errors.judged_count == 1
    assert made.errors.skill == 0
