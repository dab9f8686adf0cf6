"""The rivals: a ridge against its normal equations and known weights, and the model without its memory."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.judging.ridge import fit_ridge, without_memory
from tests.steps import RandomStep


def test_a_ridge_finds_the_weights_that_made_the_targets():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 3)) * [1, 1e-4, 1e3] + [5, 0, -1e3]
    y = np.stack([2 + x @ [1.0, 1e4, 0], -x @ [0, 0, 1e-3]], axis=1) + 0.1 * rng.standard_normal((20_000, 2))
    found = fit_ridge(x, y)
    assert found.predict(x[:100]) == pytest.approx(y[:100], abs=0.5)
    assert found.weights[:, 0] == pytest.approx([1, 1, 0], abs=0.01)


def test_a_ridge_minimises_squared_errors_plus_the_penalty():
    """At the minimum the gradient is zero: of the errors, plus twice the penalty times the weights."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((50, 4)), rng.standard_normal((50, 1))
    found = fit_ridge(x, y, penalty=7.0)
    z, error = (x - found.mean) / found.std, y - found.predict(x)
    assert z.T @ error == pytest.approx(7.0 * found.weights)
    assert error.sum() == pytest.approx(0, abs=1e-9)


def test_rows_without_a_target_do_not_count_for_that_output_alone():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((300, 2))
    y = np.stack([x[:, 0], x[:, 1]], axis=1)
    spoiled = np.where(np.arange(300)[:, None] < [[100, 0]], np.nan, y)
    found, whole = fit_ridge(x, spoiled), fit_ridge(x, y)
    assert found.weights[:, 1] == pytest.approx(whole.weights[:, 1])
    assert found.weights[0, 0] == pytest.approx(0.95, abs=0.05)


def test_nothing_to_fit_forecasts_no_change():
    x = np.ones((10, 2), np.float32)
    assert fit_ridge(x, np.full((10, 1), np.nan)).predict(x).tolist() == [[0.0]] * 10
    assert fit_ridge(x[:0], np.empty((0, 1))).predict(x).tolist() == [[0.0]] * 10
    assert np.isfinite(fit_ridge(x, np.ones((10, 1))).predict(x)).all()  # constant columns


def test_without_memory_a_tick_is_answered_as_if_it_were_the_first():
    step = RandomStep(3, 2)
    x = np.random.default_rng(3).standard_normal((5000, 3)).astype(np.float32)
    found = without_memory(step, x)
    for row in (0, 4095, 4096, 4999):
        assert found[row].tobytes() == step.step(x[row : row + 1], step.initial_state[None, :])[0][0].tobytes()
