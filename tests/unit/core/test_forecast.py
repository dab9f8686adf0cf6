"""From outputs back to prices, by hand: kinds, scales, intervals, variances, rounding."""

from math import exp

import numpy as np
import pytest

from daemon.core.forecast import Forecaster, Levels
from daemon.core.spec import Output
from tests.ticks import model

QUANTILES = ((0.05, -2.0), (0.25, -1.0), (0.75, 1.0), (0.95, 3.0))


def levels(*outputs: Output, y: float = 0.5, price: float = 100.0, volatility: float = 0.01, coverage=0.9) -> Levels:
    """Forecast one row in which every output says `y`."""
    made = Forecaster(model(outputs=outputs), coverage)
    return made.levels(np.full((1, len(outputs)), y, np.float32), np.array([price]), np.array([volatility]))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Output(1), 100 * exp(0.5)),
        (Output(1, scale=0.1, mean=0.2), 100 * exp(0.25)),
        (Output(1, scale=2, volatile=True), 100 * exp(0.01)),
        (Output(1, scale=2, mean=0.3, volatile=True), 100 * exp(0.31)),
        (Output(1, "difference", scale=4, mean=1), 103),
        (Output(1, "difference", scale=400, volatile=True), 102),
        (Output(1, "price", scale=4, mean=90), 92),
    ],
)
def test_a_level_is_mean_plus_scale_times_output_in_the_unit_of_its_kind(output, expected):
    assert levels(output).mean[0, 0] == pytest.approx(expected, rel=1e-10)


def test_kinds_may_stand_side_by_side():
    found = levels(Output(1, scale=0.1), Output(2, "difference"), Output(3, "price", mean=7)).mean[0]
    assert found == pytest.approx([100 * exp(0.05), 100.5, 7.5], rel=1e-10)


def test_a_negative_price_goes_with_differences():
    assert levels(Output(1, "difference", scale=2), price=-37.63).mean[0, 0] == -36.63


@pytest.mark.parametrize(("coverage", "tails"), [(0.9, (-2.0, 3.0)), (0.5, (-1.0, 1.0)), (0.7, (-1.5, 2.0))])
def test_the_interval_adds_the_residual_quantiles_of_both_tails_interpolated(coverage, tails):
    output = Output(1, "difference", mean=1, scale=10, residual_quantiles=QUANTILES)
    found = levels(output, coverage=coverage)
    assert [found.lower[0, 0], found.upper[0, 0]] == pytest.approx([106 + 10 * tail for tail in tails])


def test_the_interval_of_a_return_is_one_of_prices():
    found = levels(Output(1, scale=0.1, residual_quantiles=QUANTILES))
    assert [found.lower[0, 0], found.upper[0, 0]] == pytest.approx([100 * exp(-0.15), 100 * exp(0.35)], rel=1e-10)


@pytest.mark.parametrize(
    "quantiles", [(), ((0.06, -1.0), (0.95, 1.0)), ((0.05, -1.0), (0.94, 1.0))], ids=["none", "low", "high"]
)
def test_an_interval_that_the_known_quantiles_do_not_reach_is_unknown_for_all_horizons(quantiles):
    found = levels(Output(1, residual_quantiles=QUANTILES), Output(5, residual_quantiles=quantiles))
    assert found.lower is None
    assert found.upper is None


def test_the_variance_is_that_of_the_residual_in_the_unit_of_the_output():
    found = levels(
        Output(1, scale=3, residual_variance=0.5), Output(5, scale=3, residual_variance=0.5, volatile=True)
    ).variance[0]
    assert found == pytest.approx([4.5, 4.5e-4])


def test_a_variance_unknown_for_one_horizon_is_unknown():
    assert levels(Output(1, residual_variance=0.5), Output(5)).variance is None


@pytest.mark.parametrize("price", [1.23456789e-7, 0.1, 0.99, 1.01, 61837.63, 123456.7, 9.87654321e11])
def test_prices_keep_at_least_ten_digits_and_are_short(price):
    (found,) = levels(Output(1, scale=1e-5), price=price).mean[0].tolist()
    exact = price * exp(np.float64(np.float32(0.5)) * 1e-5)
    assert abs(found - exact) <= 0.5e-9 * price
    assert len(f"{found!r}".replace(".", "").lstrip("0").partition("e")[0]) <= 13


@pytest.mark.parametrize("variance", [1.23456789e-9, 0.123456789, 9876.54321])
def test_variances_keep_at_least_four_digits_and_are_short(variance):
    found = levels(Output(1, scale=1, residual_variance=variance)).variance[0, 0].item()
    assert found == pytest.approx(variance, rel=5e-4)
    assert len(f"{found!r}".replace(".", "").lstrip("0").partition("e")[0]) <= 7


@pytest.mark.parametrize("price", [5e-324, 1e-308, 1e-290, 1e300, 1.7e308])
def test_no_price_is_too_small_or_too_large_to_round(price):
    found = levels(Output(1, scale=1e-9), price=price)
    assert found.mean[0, 0] == pytest.approx(price, rel=1e-7, abs=1e-300)
    assert found.finite[0]


@pytest.mark.parametrize(
    ("output", "y", "finite"),
    [
        (Output(1), 1000.0, False),
        (Output(1), -1000.0, True),
        (Output(1), np.nan, False),
        (Output(1), np.inf, False),
        (Output(1, "price", residual_quantiles=((0.05, -1e308), (0.95, 1e308)), scale=10), 0.0, False),
        (Output(1, "price", residual_variance=1e308, scale=1e200), 0.0, False),
    ],
)
def test_what_does_not_fit_a_number_is_said_not_to_be_finite(output, y, finite):
    assert bool(levels(output, y=y).finite[0]) is finite


def test_a_row_does_not_depend_on_the_rows_around_it():
    rng = np.random.default_rng(3)
    known = {"residual_variance": 1.0, "residual_quantiles": QUANTILES}
    outputs = [Output(1, volatile=True, **known), Output(5, "price", **known)]
    made = Forecaster(model(outputs=outputs), 0.9)
    y = rng.standard_normal((101, 2)).astype(np.float32)
    price, volatility = rng.uniform(1, 1e5, 101), rng.uniform(1e-5, 1e-2, 101)
    y[50] = np.nan
    together = made.levels(y, price, volatility)
    for row in range(101):
        alone = made.levels(y[row : row + 1], price[row : row + 1], volatility[row : row + 1])
        for name in ("mean", "lower", "upper", "variance", "finite"):
            assert getattr(alone, name)[0].tobytes() == getattr(together, name)[row].tobytes()
