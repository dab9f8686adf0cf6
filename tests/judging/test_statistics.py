"""Statistics against known answers: made series whose R2 is known, and intervals counted over many of them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from daemon.judging.blocks import CELLS
from daemon.judging.long_run import long_run_variance, two_sided
from daemon.judging.statistics import (
    Rows,
    autocorrelation,
    coverage,
    diebold_mariano,
    mae_skill,
    mean_r2,
    pinball,
    pooled_r2,
    r2,
    r2_difference,
    time_cells,
    zero_share,
)

PHI = 0.3


def moves_and_best_forecasts(rng: np.random.Generator, rows: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw AR(1) returns; return overlapping moves over `horizon` ticks and the best forecasts of them."""
    noise = rng.standard_normal(rows + horizon + 100)
    returns = np.zeros(len(noise))
    for n in range(1, len(noise)):
        returns[n] = PHI * returns[n - 1] + noise[n]
    returns = returns[100:]
    log_price = np.concatenate([[0.0], np.cumsum(returns)])
    moves = log_price[1 + horizon :] - log_price[1:-horizon]
    return moves, PHI * (1 - PHI**horizon) / (1 - PHI) * returns[: len(moves)]


def best_r2(horizon: int) -> float:
    """Return variance of the best forecast over variance of the move, from the autocovariances of an AR(1)."""
    lag = np.arange(horizon)
    covariance = PHI**lag / (1 - PHI**2)
    moved = horizon * covariance[0] + 2 * ((horizon - lag) * covariance)[1:].sum()
    return float((PHI * (1 - PHI**horizon) / (1 - PHI)) ** 2 * covariance[0] / moved)


@pytest.mark.parametrize("horizon", [1, 5, 20])
def test_r2_of_the_best_forecast_of_an_autoregression_is_the_known_one(horizon: int):
    found = r2(*moves_and_best_forecasts(np.random.default_rng(0), 200_000, horizon), horizon)
    assert best_r2(1) == pytest.approx(0.09)
    assert found.value == pytest.approx(best_r2(horizon), abs=3 * found.standard_error)
    assert found.standard_error < 0.004
    assert found.count == 200_000


@pytest.mark.parametrize(("rows", "horizon"), [(1000, 1), (1500, 10), (2000, 50)])
def test_intervals_hold_the_truth_as_often_as_they_say(rows: int, horizon: int):
    rng = np.random.default_rng(horizon)
    found = [r2(*moves_and_best_forecasts(rng, rows, horizon), horizon) for _ in range(300)]
    hits = sum(each.low <= best_r2(horizon) <= each.high for each in found)
    assert 0.90 <= hits / len(found) <= 0.99


@pytest.mark.parametrize(("rows", "horizon"), [(1000, 1), (1500, 10), (2000, 50)])
def test_forecasts_that_are_equally_good_are_rarely_called_different(rows: int, horizon: int):
    rng = np.random.default_rng(horizon)
    ps = []
    for _ in range(300):
        move, best = moves_and_best_forecasts(rng, rows, horizon)
        first, second = (np.square(move - best - rng.standard_normal(len(move))) for _ in range(2))
        ps.append(diebold_mariano(first, second, horizon).p)
    assert 0.01 <= np.mean(np.array(ps) < 0.05) <= 0.10


def test_a_better_forecast_is_found_and_the_sign_says_which():
    move, best = moves_and_best_forecasts(np.random.default_rng(3), 5000, 1)
    loss, naive = np.square(move - best), np.square(move)
    ahead, behind = diebold_mariano(loss, naive, 1), diebold_mariano(naive, loss, 1)
    assert ahead.statistic > 5
    assert ahead.p < 1e-6
    assert (behind.statistic, behind.p) == (-ahead.statistic, ahead.p)


def test_on_a_random_walk_no_skill_is_claimed():
    rng = np.random.default_rng(5)
    found = [r2(rng.standard_normal(3000), 0.05 * rng.standard_normal(3000), 1) for _ in range(100)]
    assert sum(each.low > 0 for each in found) <= 5
    assert np.mean([each.value for each in found]) == pytest.approx(-0.0025, abs=5e-4)


def test_skills_are_ratios_to_no_change():
    move, forecast = np.array([1.0, -2.0, 0.0, 4.0]), np.array([1.0, 0.0, 1.0, 2.0])
    assert mae_skill(move, forecast) == pytest.approx(1 - 5 / 7)
    assert r2(move, forecast, 1).value == pytest.approx(1 - 9 / 21)
    assert zero_share(move) == 0.25


def test_rows_without_a_truth_do_not_count():
    move, forecast = np.array([1.0, np.nan, -2.0]), np.array([1.0, 5.0, np.nan])
    assert (r2(move, forecast, 1).count, r2(move, forecast, 1).value) == (1, 1.0)


def test_a_price_at_rest_and_a_series_too_short_are_unknown_and_no_error():
    rest = r2(np.zeros(100), np.full(100, 0.1), 1)
    assert math.isnan(rest.value)
    assert math.isnan(rest.low)
    assert not rest.below_zero
    short = r2(np.arange(1.0, 11), np.zeros(10), 50)
    assert short.value == 0.0
    assert math.isnan(short.high)
    for found in (r2(np.empty(0), np.empty(0), 1).value, mae_skill(np.zeros(3), np.zeros(3)), zero_share(np.empty(0))):
        assert math.isnan(found)
    assert math.isnan(diebold_mariano(np.ones(100), np.ones(100), 1).p)
    assert math.isnan(pooled_r2([]).value)
    assert math.isnan(mean_r2([]).value)
    assert math.isnan(r2_difference([]).value)


def test_pinball_weighs_misses_by_their_side_and_is_least_at_the_quantile():
    assert pinball(np.array([1.0, -1.0]), np.zeros(2), 0.9) == pytest.approx((0.9 + 0.1) / 2)
    assert pinball(np.array([1.0]), np.zeros(1), 0.9) == pytest.approx(0.9)
    move = np.random.default_rng(0).standard_normal(100_000)
    losses = {at: pinball(move, np.full(len(move), at), 0.95) for at in (1.2, 1.645, 2.1)}
    assert min(losses, key=losses.__getitem__) == 1.645


def test_coverage_counts_each_side_and_the_edge_is_inside():
    found = coverage(np.array([-2.0, -1.0, 0.0, 1.0, 3.0]), np.full(5, -1.0), np.full(5, 1.0))
    assert (found.inside, found.below, found.above, found.width, found.count) == (pytest.approx(0.6), 0.2, 0.2, 2.0, 5)


def test_the_long_run_variance_of_overlapping_sums_is_theirs():
    """A sum over ten values has, as a mean, the long-run variance of the values times a hundred."""
    values = np.random.default_rng(0).standard_normal(200_000)
    summed = np.convolve(values, np.ones(10), "valid")
    assert long_run_variance(summed, 60) == pytest.approx(100, rel=0.1)
    assert autocorrelation(summed, 20)[[0, 5, 10, 15]] == pytest.approx([1.0, 0.5, 0.0, 0.0], abs=0.02)


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    [(2.0, 10, 0.07339), (2.228, 10, 0.05001), (1.0, 1, 0.5), (3.0, 3, 0.05767), (1.96, 10**6, 0.05)],
)
def test_two_sided_probabilities_are_those_of_the_tables(t: float, freedom: int, p: float):
    assert two_sided(t, freedom) == pytest.approx(p, abs=1e-4)
    assert two_sided(-t, freedom) == two_sided(t, freedom)


# --- several instruments ----------------------------------------------------------------------------------------------


def rows_of(rng: np.random.Generator, *, count: int, shared: np.ndarray, r2_wanted: float) -> Rows:
    """Return an instrument whose moves follow the shared ones and whose forecast explains a known share."""
    cell = np.arange(count) * CELLS // count
    move = shared[np.arange(count) * len(shared) // count] + 0.5 * rng.standard_normal(count)
    noise = rng.standard_normal(count) * np.sqrt(1 - r2_wanted) * move.std()
    return Rows(move, r2_wanted * move + np.sqrt(r2_wanted) * noise, cell)


def test_pooled_and_mean_r2_weigh_instruments_by_variance_and_equally():
    rng = np.random.default_rng(1)
    large, small = 10 * rng.standard_normal(20_000), rng.standard_normal(20_000)
    cell = np.arange(20_000) * CELLS // 20_000
    both = [Rows(large, large / 2, cell), Rows(small, np.zeros(20_000), cell), Rows(np.zeros(9), np.ones(9), cell[:9])]
    assert mean_r2(both).value == pytest.approx(0.375)
    assert pooled_r2(both).value == pytest.approx(0.75, abs=0.01)
    assert mean_r2(both).count == 40_009


@pytest.mark.parametrize("figure", [mean_r2, pooled_r2])
def test_instruments_that_move_together_are_not_taken_for_more_evidence(figure):
    """The same instrument eight times says what it says once."""
    rng = np.random.default_rng(2)
    move, forecast = moves_and_best_forecasts(rng, 20_000, 1)
    one = Rows(move, forecast, np.arange(len(move)) * CELLS // len(move))
    assert figure([one] * 8).standard_error == pytest.approx(figure([one]).standard_error)
    assert figure([one]).standard_error == pytest.approx(r2(move, forecast, 1).standard_error, rel=0.4)


def test_intervals_of_the_mean_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(4)
    hits = 0
    for _ in range(200):
        instruments = []
        for _ in range(3):
            move, forecast = moves_and_best_forecasts(rng, 2000, 10)
            instruments.append(Rows(move, forecast, np.arange(len(move)) * CELLS // len(move)))
        found = mean_r2(instruments)
        hits += found.low <= best_r2(10) <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_intervals_hold_where_volatility_comes_in_bursts():
    """Most moves are zero, the others heavy-tailed, and all instruments burst together: as at ticks."""
    rng = np.random.default_rng(8)

    def instruments(rows: int) -> list[Rows]:
        log_scale = np.convolve(0.25 * rng.standard_normal(rows + 200), 0.97 ** np.arange(200), "valid")[:rows]
        made = []
        for _ in range(3):
            signal = np.exp(log_scale) * rng.standard_normal(rows)
            noise = np.exp(log_scale) * rng.standard_t(4, rows)
            moves = np.where(rng.random(rows) < 0.7, 0.0, 0.5 * signal + noise)
            made.append(Rows(moves, 0.15 * signal, np.arange(rows) * CELLS // rows))
        return made

    truth = mean_r2(instruments(1_000_000)).value
    assert 0.03 < truth < 0.045
    samples = [instruments(3000) for _ in range(200)]
    means = [mean_r2(sample) for sample in samples]
    ones = [r2(sample[0].move, sample[0].forecast, 1) for sample in samples]
    for found in (means, ones):
        assert 0.88 <= np.mean([each.low <= truth <= each.high for each in found]) <= 0.99


def test_a_difference_is_surer_than_the_two_figures_it_compares():
    rng = np.random.default_rng(6)
    move, best = moves_and_best_forecasts(rng, 20_000, 1)
    worse = best + 0.1 * rng.standard_normal(len(move))
    rows = Rows(move, best, np.arange(len(move)) * CELLS // len(move))
    found = r2_difference([(rows, worse)])
    expected = r2(move, best, 1).value - r2(move, worse, 1).value
    assert found.value == pytest.approx(expected)
    assert found.low > 0
    assert found.standard_error < r2(move, best, 1).standard_error / 2
    assert r2_difference([(rows, worse)]) == found


def test_intervals_of_a_difference_hold_the_truth_as_often_as_they_say():
    """Two forecasts with independent noise of the same size differ by nothing."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        move, best = moves_and_best_forecasts(rng, 2000, 10)
        first, second = (best + rng.standard_normal(len(move)) for _ in range(2))
        found = r2_difference([(Rows(move, first, np.arange(len(move)) * CELLS // len(move)), second)], draws=400)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 200 <= 0.99


def test_cells_share_a_span_evenly():
    ts = np.arange(10**9, 10**9 + 4000, dtype=np.int64)
    assert np.bincount(time_cells(ts, int(ts[0]), int(ts[-1]))).tolist() == [10] * CELLS


# --- what docs/accuracy.md says ---------------------------------------------------------------------------------------


def test_no_change_explains_the_levels_of_a_random_walk_and_nothing_of_its_moves():
    price = 100 + 0.1 * np.random.default_rng(0).standard_normal(5000).cumsum()
    level_r2 = 1 - np.square(np.diff(price)).sum() / np.square(price[1:] - price.mean()).sum()
    assert level_r2 > 0.99
    assert r2(np.diff(price), np.zeros(4999), 1).value == 0


def test_trades_that_bounce_between_bid_and_ask_give_a_quarter_for_nothing():
    """The mid never moves; forecasting half of the last change back has R2 = 25 %."""
    trades = np.random.default_rng(1).choice([99.0, 101.0], 100_000)
    change = np.diff(trades)
    assert r2(change[1:], -change[:-1] / 2, 1).value == pytest.approx(0.25, abs=0.01)


def test_where_most_moves_are_zero_the_best_mean_has_a_negative_mae_skill():
    rng = np.random.default_rng(2)
    signal = rng.standard_normal(100_000)
    move = np.where(rng.random(100_000) < 0.9, 0.0, signal + rng.standard_normal(100_000))
    best_mean = 0.1 * signal
    assert r2(move, best_mean, 1).low > 0
    assert mae_skill(move, best_mean) < 0
