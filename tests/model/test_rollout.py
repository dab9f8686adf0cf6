"""Roll-outs: the forecasts of a copy that feeds on its own forecasts; the live state never knows."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.core.spec import Column, Output
from daemon.core.step import scan_waves
from daemon.model.grid import one_wave
from daemon.model.manifest import Manifest
from daemon.model.numpy_step import NumpyStep
from daemon.model.rollout import Rollout, RolloutStep, rolled_outputs
from daemon.model.selftest import check_scan, slots_agree
from daemon.model.window_step import WindowStep
from tests.bundles import tiny_program
from tests.steps import BreakingStep, RandomStep

COLUMNS = (Column("field:close", mean=3.0, std=2.0), Column("return", std=1e-3), Column("wait", mean=1.0, std=4.0))
OUTPUTS = (Output(1, "price", mean=3.0, scale=2.5), Output(1, mean=1e-4, scale=2e-3))
FUTURE = ("output:0", "output:1", 7.0)
HORIZONS = (1, 3, 6)


def inner():
    return NumpyStep(tiny_program(3, 2, layers=2))


def rows(count=9, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


def by_hand(step, x, state, ahead):
    """Return all raw outputs of one row up to so many ticks ahead, feeding each tick from the one before."""
    found = []
    for _ in range(ahead):
        y, state = step.step(x, state)
        found.append(y[0].astype(float))
        close, change = 3.0 + 2.5 * y[0, 0], 1e-4 + 2e-3 * y[0, 1]
        x = np.array([[(close - 3.0) / 2.0, change / 1e-3, (7.0 - 1.0) / 4.0]], np.float32)
    return np.array(found)


@pytest.mark.parametrize("mode", ["carried", "window"])
def test_forecasts_are_those_of_a_loop_that_feeds_the_model_by_hand(mode):
    model = inner() if mode == "carried" else WindowStep(inner(), 4)
    rolled = RolloutStep(model, COLUMNS, OUTPUTS, Rollout(FUTURE, HORIZONS), (0, 1))
    x, state = rows(), np.repeat(model.initial_state[np.newaxis], 9, axis=0)
    for _ in range(5):
        _, state = model.step(x, state)
    y, _ = rolled.step(x, state)
    for row in range(9):
        expected = by_hand(model, x[row : row + 1], state[row : row + 1], 6)
        for at, horizon in enumerate(HORIZONS):
            price, change = y[row, 2 * at : 2 * at + 2]
            assert price == pytest.approx(expected[horizon - 1, 0], abs=2e-6)
            assert change == pytest.approx(expected[:horizon, 1].sum(), abs=1e-5)


@pytest.mark.parametrize("mode", ["carried", "window"])
def test_the_live_state_is_the_same_with_and_without_a_roll_out(mode):
    model = inner() if mode == "carried" else WindowStep(inner(), 4)
    rolled = RolloutStep(model, COLUMNS, OUTPUTS, Rollout(FUTURE, HORIZONS), (0,))
    plain = once = np.repeat(model.initial_state[np.newaxis], 9, axis=0)
    for tick in range(12):
        x = rows(seed=tick)
        _, plain = model.step(x, plain)
        kept = once.tobytes()
        _, after = rolled.step(x, once)
        assert once.tobytes() == kept
        once = after
        assert once.tobytes() == plain.tobytes()
        assert model.step(rows(), once)[0].tobytes() == model.step(rows(), plain)[0].tobytes()


def test_a_roll_out_passes_the_self_test_of_steps():
    step = RolloutStep(inner(), COLUMNS, OUTPUTS, Rollout(FUTURE, HORIZONS), (0, 1))
    check_scan(step)
    assert slots_agree(step)


def test_a_roll_out_that_breaks_ahead_breaks_its_row_only():
    model = RandomStep(3, 2)  # linear in part: what is large grows
    outputs = (Output(1, "price", scale=1e4), OUTPUTS[1])
    step = RolloutStep(model, COLUMNS, outputs, Rollout(("output:0", "hold", "hold"), (1, 3)), (0,))
    x = rows(4)
    x[2, 0] = 1e36
    start = np.repeat(step.initial_state[np.newaxis], 4, axis=0)
    assert model.scan(x, start, one_wave(4))[2].all()
    _, after, finite = step.scan(x, start, one_wave(4))
    assert finite.tolist() == [True, True, False, True]
    assert np.isfinite(after).all()


def test_a_break_in_an_unpublished_output_shows_in_single_steps_as_in_scans():
    model = BreakingStep(3, 2)
    step = RolloutStep(model, COLUMNS, OUTPUTS, Rollout(FUTURE, (1,)), (0,))
    x, start = rows(20), np.repeat(model.initial_state[np.newaxis], 20, axis=0)
    y, _, finite = step.scan(x, start, one_wave(20))
    assert finite.tolist() == (x[:, 0] <= 1).tolist()
    assert finite.any()
    assert not finite.all()
    plain = scan_waves(step, x, start, one_wave(20))
    assert (plain[0].tobytes(), plain[2].tolist()) == (y.tobytes(), finite.tolist())


def test_outputs_of_a_roll_out_are_prices_and_sums():
    found = rolled_outputs(OUTPUTS, Rollout(FUTURE, HORIZONS), (0, 1))
    assert [(each.horizon, each.kind) for each in found[-2:]] == [(6, "price"), (6, "log_return")]
    assert [each.mean for each in found[-2:]] == [3.0, pytest.approx(6e-4)]
    assert [each.scale for each in found[-2:]] == [2.5, 2e-3]


def test_unpublished_outputs_of_a_model_without_roll_out_are_left_out():
    manifest = Manifest(columns=COLUMNS, outputs=(Output(5), Output(9)), unpublished=(0,))
    assert manifest.spec("m").outputs == (Output(9),)
    x = rows()
    start = np.zeros((9, inner().state_size), np.float32)
    step = RolloutStep(inner(), manifest.columns, manifest.outputs, manifest.rollout, manifest.published)
    assert step.step(x, start)[0].tobytes() == inner().step(x, start)[0][:, 1:].tobytes()


REFUSED = {
    "unknown word": ({"future": ("output:0", "keep", 1.0)}, "input return: future 'keep' is none of"),
    "unknown output": ({"future": ("output:2", "hold", "hold")}, "field:close: future names output 2, the model has 2"),
    "wrong unit": ({"future": ("hold", "output:0", "hold")}, "input return: output 0 is a price, which can be the fut"),
    "no unit": ({"future": ("hold", "hold", "output:1")}, "input wait: output 1 is a log_return"),
    "too few": ({"future": ("hold",)}, "future tells of 1 inputs, the model has 3"),
    "running": (
        {"columns": (Column("field:close", "running"), *COLUMNS[1:])},
        "input field:close: its running scale is not known ahead",
    ),
    "volatile": ({"outputs": (OUTPUTS[0], Output(1, volatile=True))}, "output 1: its unit is the running volatility"),
    "horizon": ({"outputs": (Output(2, "price"), OUTPUTS[1])}, "output 0: a roll-out goes tick by tick"),
    "variance": ({"outputs": (OUTPUTS[0], Output(1, of="log_variance"))}, "output 1: 'log_variance' of one tick"),
    "falling": ({"horizons": (5, 5)}, "horizons of a roll-out grow from 1"),
    "far": ({"horizons": (5000,)}, "at most 1000"),
    "none": ({"horizons": ()}, "needs both future and horizons"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_roll_out_that_cannot_be_is_refused_by_name(name):
    change, message = REFUSED[name]
    given = {"columns": COLUMNS, "outputs": OUTPUTS, "future": FUTURE, "horizons": HORIZONS}
    with pytest.raises(ValueError, match=message):
        Manifest(**(given | change))


@pytest.mark.parametrize(
    ("feature", "kind", "fits"),
    [
        ("price", "price", True),
        ("log:price", "price", False),
        ("return", "log_return", True),
        ("return:field:close", "log_return", True),
        ("change", "difference", True),
        ("diff:price", "difference", True),
        ("diff:wait", "difference", False),
        ("field:volume", "difference", True),
        ("log:field:volume", "price", False),
        ("ema:3:price", "price", False),
    ],
)
def test_units_of_inputs_and_outputs_must_agree(feature, kind, fits):
    given = {"columns": (Column(feature),), "outputs": (Output(1, kind),), "future": ("output:0",), "horizons": (2,)}
    if fits:
        Manifest(**given)
        return
    with pytest.raises(ValueError, match=f"input {feature}: output 0 is a {kind}"):
        Manifest(**given)
