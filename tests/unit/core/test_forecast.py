"""From outputs back to prices, by hand: kinds, scales, intervals, variances, rounding."""

from math import exp

import numpy as np
import pytest

from daemon.core.forecast import Forecaster, Levels
from daemon.core.scores import WIDTH, Scorer
from daemon.core.spec import Output
from tests.ticks import model

QUANTILES = ((0.05, -2.0), (0.25, -1.0), (0.75, 1.0), (0.95, 3.0))


def levels(*outputs: Output, y: float = 0.5, price: float = 100.0, volatility: float = 0.01, coverage=0.9) -> Levels:
    """Forecast one row in which every output says `y`."""
    made = Forecaster(model(outputs=outputs), coverage)
    outlook = made.outlook(np.full((1, len(outputs)), y, np.float32), np.array([price]), np.array([volatility]))
    return made.levels(outlook, beginning(made))


def beginning(made: Forecaster) -> np.ndarray:
    """Return the corrections of an instrument of which nothing is scored yet, for one row."""
    scorer = Scorer(made)
    scores = scorer.start()
    scorer.look(scores)
    return np.array(scores.corrections).reshape(1, -1, WIDTH)


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
def test_an_interval_that_nothing_is_known_of_is_unknown_for_all_horizons(quantiles):
    found = levels(Output(1, residual_quantiles=QUANTILES), Output(5, residual_quantiles=quantiles))
    assert not found.known[0]


def test_an_interval_of_which_only_the_variance_is_known_begins_with_the_bell_curve():
    found = levels(Output(1, "difference", scale=10, residual_variance=4.0))
    assert [found.lower[0, 0], found.upper[0, 0]] == pytest.approx([105 - 20 * 1.6448536, 105 + 20 * 1.6448536])


def test_residual_quantiles_change_sides_where_the_scale_is_negative():
    found = levels(Output(1, "difference", scale=-10, residual_quantiles=QUANTILES))
    assert [found.lower[0, 0], found.upper[0, 0]] == pytest.approx([95 - 30, 95 + 20])


def test_a_log_variance_says_the_variance_and_the_width():
    """Every output says 0.5, so the variance is exp(0.5) in units of y squared."""
    found = levels(Output(1, "difference", scale=10), Output(1, of="log_variance"))
    assert found.variance[0, 0] == pytest.approx(100 * exp(0.5), rel=5e-4)
    assert found.upper[0, 0] - found.mean[0, 0] == pytest.approx(10 * exp(0.25) * 1.6448536)
    assert found.mean.shape == (1, 1)


def test_quantile_columns_are_the_ends_and_the_nearest_to_the_coverage_count():
    kind = {"kind": "difference", "residual_variance": 1.0}
    columns = [Output(1, mean=m, of=level, kind="difference") for m, level in ((-3, 0.25), (-8, 0.05), (9, 0.95))]
    found = levels(Output(1, **kind), *columns)
    assert [found.lower[0, 0], found.mean[0, 0], found.upper[0, 0]] == pytest.approx([92.5, 100.5, 109.5])
    narrow = levels(Output(1, **kind), *columns, coverage=0.5)
    assert narrow.lower[0, 0] == pytest.approx(97.5)


def test_ends_that_would_cross_hold_the_mean():
    columns = [Output(1, "difference", mean=m, of=level) for m, level in ((5, 0.05), (3, 0.95))]
    found = levels(Output(1, "difference", residual_variance=1.0), *columns)
    assert [found.lower[0, 0], found.mean[0, 0], found.upper[0, 0]] == pytest.approx([100.5, 100.5, 105.5])


def test_an_interval_holds_the_price_to_the_bit_where_it_must():
    made = Forecaster(model(outputs=[Output(1, "difference", scale=1e-3, residual_variance=1e-6)]), 0.9)
    outlook = made.outlook(np.array([[9.0]], np.float32), np.array([0.12345678901234567]), np.array([0.01]))
    corrections = beginning(made)
    assert made.levels(outlook, corrections).lower[0, 0] > 0.12345678901234567
    corrections[0, 0, 3] = 1
    assert made.levels(outlook, corrections).lower[0, 0] == 0.12345678901234567


def test_the_variance_is_that_of_the_residual_in_the_unit_of_the_output():
    found = levels(
        Output(1, scale=3, residual_variance=0.5), Output(5, scale=3, residual_variance=0.5, volatile=True)
    ).variance[0]
    assert found == pytest.approx([4.5, 4.5e-4])


def test_a_variance_unknown_for_one_horizon_is_unknown():
    assert not levels(Output(1, residual_variance=0.5), Output(5)).known[0]


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


@pytest.mark.parametrize(
    ("outputs", "y", "finite"),
    [
        ([Output(1)], 1000.0, False),
        ([Output(1)], -1000.0, True),
        ([Output(1)], np.nan, False),
        ([Output(1)], np.inf, False),
        ([Output(1), Output(1, of="log_variance", mean=2000)], 0.0, False),
        ([Output(1), Output(1, of=0.05, mean=np.inf), Output(1, of=0.95)], 0.0, False),
    ],
)
def test_what_does_not_fit_a_number_is_said_not_to_be_finite(outputs, y, finite):
    made = Forecaster(model(outputs=outputs), 0.9)
    outlook = made.outlook(np.full((1, len(outputs)), y, np.float32), np.array([100.0]), np.array([0.01]))
    assert bool(outlook.finite[0]) is finite


@pytest.mark.parametrize(
    "output",
    [
        Output(1, "price", residual_quantiles=((0.05, -1e308), (0.95, 1e308)), scale=10),
        Output(1, "price", residual_variance=1e308, scale=1e200),
        Output(1, residual_quantiles=((0.05, -1e308), (0.95, 1e308))),
    ],
)
def test_ends_and_variances_beyond_all_numbers_are_the_largest(output):
    found = levels(output, y=0.0)
    assert np.isfinite([found.lower, found.mean, found.upper, found.variance]).all()
    assert found.lower[0, 0] <= found.mean[0, 0] <= found.upper[0, 0]


def test_a_row_does_not_depend_on_the_rows_around_it():
    rng = np.random.default_rng(3)
    known = {"residual_variance": 1.0, "residual_quantiles": QUANTILES}
    outputs = [Output(1, volatile=True, **known), Output(5, "price", **known), Output(5, of="log_variance")]
    made = Forecaster(model(outputs=outputs), 0.9)
    y = rng.standard_normal((101, 3)).astype(np.float32)
    price, volatility = rng.uniform(1, 1e5, 101), rng.uniform(1e-5, 1e-2, 101)
    corrections = beginning(made) * rng.uniform(0.5, 2, (101, 2, 4))
    y[50] = np.nan
    outlook = made.outlook(y, price, volatility)
    together = made.levels(outlook, corrections)
    for row in range(101):
        at = slice(row, row + 1)
        seen = made.outlook(y[at], price[at], volatility[at])
        alone = made.levels(seen, corrections[at])
        assert seen.finite[0] == outlook.finite[row] == (row != 50)
        for name in ("mean", "lower", "upper", "variance", "known"):
            assert getattr(alone, name)[0].tobytes() == getattr(together, name)[row].tobytes()
