"""Tracks: they miss what was asked for on either side, whatever the errors look like and however these change."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from daemon.core.intervals import FEWEST, MEAN_SQUARE_MIN, Tracker
from daemon.core.spec import Output

COUNT = 8000


def tracker(output: Output | None = None, coverage: float = 0.9, **kinds: bool) -> Tracker:
    return Tracker(
        output or Output(1, residual_variance=1.0), **{"scaled": False, "quantiled": False, **kinds}, coverage=coverage
    )


def misses(errors: np.ndarray, made: Tracker | None = None, delay: int = 1) -> tuple[float, float]:
    """Return the share of errors below and above the interval in force `delay` errors before."""
    made = made or tracker()
    track, issued, missed = made.start(), [], []
    for at, error in enumerate(errors.tolist()):
        issued.append(made.correction(track))
        if at < delay:
            continue
        low, high, _, _ = issued[at - delay]
        below, above = error < low, error > high
        missed.append((below, above))
        track, _ = made.learn(track, error, error == 0, True, below, above)
    return tuple(np.array(missed).mean(axis=0).tolist())  # type: ignore[return-value]


def drawn(kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    normal = rng.standard_normal(COUNT)
    if kind == "tiny":
        return normal * 1e-9
    if kind == "volatility jumps":
        return normal * np.where(np.arange(COUNT) // 1000 % 2, 10.0, 1.0)
    if kind == "heavy tails":
        return rng.standard_t(2, COUNT)
    if kind == "biased":
        return normal + 3
    if kind == "zeros":
        return np.where(rng.random(COUNT) < 0.8, 0.0, normal)
    return np.convolve(rng.standard_normal(COUNT + 6), np.ones(7) / sqrt(7), "valid")  # overlapping truths


@pytest.mark.parametrize(
    ("kind", "delay"),
    [("tiny", 1), ("volatility jumps", 1), ("heavy tails", 1), ("biased", 1), ("zeros", 2), ("overlapping", 7)],
)
def test_either_side_misses_what_was_asked_for(kind, delay):
    below, above = misses(drawn(kind), delay=delay)
    assert (below, above) == pytest.approx((0.05, 0.05), abs=0.01)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.98])
def test_any_coverage_can_be_asked_for(coverage):
    below, above = misses(drawn("heavy tails"), tracker(coverage=coverage))
    assert (below, above) == pytest.approx(((1 - coverage) / 2,) * 2, abs=0.012)


def test_a_price_that_mostly_stands_still_makes_the_interval_hold_it():
    rng = np.random.default_rng(1)
    made, held = tracker(), []
    track = made.start()
    for still in rng.random(2000) < 0.95:
        track, _ = made.learn(track, 0.0 if still else 1.0, bool(still), True, False, False)
        held.append(made.correction(track)[3])
    assert min(held[1000:]) == 1.0
    for _ in range(200):
        track, _ = made.learn(track, 1.0, False, True, False, False)
    assert made.correction(track)[3] == 0.0


def test_the_mean_square_follows_the_errors_and_one_false_price_does_not_blow_it_up():
    made = tracker()
    track = made.start()
    for _ in range(2000):
        track, _ = made.learn(track, 3.0, False, True, False, False)
    assert made.correction(track)[2] == pytest.approx(9.0, rel=0.01)
    track, _ = made.learn(track, 1e200, False, True, False, True)
    assert made.correction(track)[2] < 9 * 6


def test_a_price_at_rest_leaves_a_mean_square_above_zero_that_recovers():
    made = tracker()
    track = made.start()
    for _ in range(20_000):
        track, _ = made.learn(track, 0.0, True, True, False, False)
    assert made.correction(track)[2] == MEAN_SQUARE_MIN
    for _ in range(300):
        track, _ = made.learn(track, 1.0, False, True, True, False)
    assert made.correction(track)[2] > 0.5


def test_nothing_is_known_without_figures_until_enough_outcomes_were_seen():
    made = tracker(Output(1))
    track = made.start()
    for _ in range(int(FEWEST)):
        assert not made.knows(track)
        track, _ = made.learn(track, 2.0, False, False, False, False)
    assert made.knows(track)
    low, high, mean_square, _ = made.correction(track)
    assert mean_square == pytest.approx(4.0)
    assert (low, high) == pytest.approx((-2 * 1.6448536, 2 * 1.6448536))


def test_missing_for_long_opens_the_interval_faster_and_everything_stays_finite():
    made = tracker()
    track = made.start()
    for _ in range(5000):
        track, _ = made.learn(track, 1.0, False, True, False, True)
    with_debt = made.correction(track)[1]
    assert with_debt > made.correction(track._replace(high_debt=0.0))[1] + 5
    assert np.isfinite(track).all()


def test_quantile_columns_begin_where_the_model_says_and_a_scaled_model_begins_with_its_own_scale():
    assert tracker(quantiled=True).correction(tracker(quantiled=True).start())[:2] == (0.0, 0.0)
    scaled = tracker(Output(1), scaled=True)
    assert scaled.knows(scaled.start())
    assert scaled.correction(scaled.start())[1] == pytest.approx(1.6448536)
