"""Every finding on a model and its arrays: one made case that triggers it, and one close to it that does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from daemon.doctor import answers, scales, shapes
from daemon.doctor.finding import Skipped
from daemon.doctor.learning import FACTORS, Fit, rates
from daemon.doctor.samples import Samples, cut_windows, read_arrays
from daemon.errors import TickFileError
from daemon.training.collect import Track
from tests.doctor.cases import clear, found, outcome, returns


def windows(rows: np.ndarray, steps: int) -> np.ndarray:
    cut = np.lib.stride_tricks.sliding_window_view(rows, steps, axis=0)
    return np.ascontiguousarray(cut.transpose(0, 2, 1), np.float32)


def arrays(count: int = 3000, phi: float = 0.5, steps: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return windows of an AR(1) and a column that says nothing, and the next value."""
    series = returns(count + steps, phi)
    rows = np.stack([series, np.random.default_rng(1).standard_normal(len(series))], axis=1)
    return windows(rows[:-1], steps), series[steps:, None].astype(np.float32)


X, Y = arrays()
NAMES = ("column 0", "column 1")


# --- shapes


@pytest.mark.parametrize(
    ("shape", "reads", "remedy"),
    [
        ((50, 5, 10), (None, 10, 5), "time and features are swapped: X = X.transpose(0, 2, 1), not a reshape"),
        ((50, 10), (None, 10, 1), "the feature dimension is missing: X = X[..., None] makes (samples, 10, 1)"),
        ((50, 50), (None, 10, 5), "X = X.reshape(-1, 10, 5)"),
        ((50, 5), (None, 1, 5), "the time dimension is missing: X = X[:, None, :] makes (samples, 1, 5)"),
        ((50, 5), (1, 10, 5), "sliding_window_view(X, 10, axis=0).transpose(0, 2, 1) makes (samples, 10, 5)"),
        ((50, 7, 5), (None, 10, 5), "the right shape is (samples, time 10, features 5): cut windows of 10 steps"),
        ((50, 10, 4), (None, 10, 5), "X has 4 features, the model was built for 5"),
        ((50, 2, 10, 5), (None, 10, 5), "the right shape is (samples, time 10, features 5)"),
    ],
)
def test_a_wrong_input_shape_has_the_right_one_spelled_out(shape, reads, remedy):
    samples = Samples(np.zeros(shape, np.float32), np.zeros(50), NAMES)
    finding = found(shapes.examine_input(samples, reads), "input_shape")
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("shape", "reads"), [((50, 10, 5), (None, 10, 5)), ((50, 10, 5), (1, None, 5)), ((50, 5), (None, 5))]
)
def test_shapes_that_fit(shape, reads):
    clear(shapes.examine_input(Samples(np.zeros(shape, np.float32), np.zeros(50), NAMES), reads), "input_shape")


def test_a_welded_batch_size():
    samples = Samples(np.zeros((50, 10, 5), np.float32), np.zeros(50), NAMES)
    finding = found(shapes.examine_input(samples, (32, 10, 5)), "welded_batch")
    assert finding.evidence[0].detail == "predicting one row needs 31 more; the last 18 of 50 samples fill no batch"
    for batch in (None, 1):
        clear(shapes.examine_input(samples, (batch, 10, 5)), "welded_batch")


def test_a_flat_target_against_a_column_of_answers_is_compared_n_times_n():
    y, answer = np.array([1.0, 2.0, 3.0]), np.array([[1.0], [2.0], [3.0]], np.float32)
    finding = found(shapes.examine_target(y, answer, 0.0), "target_broadcasts")
    assert (finding.severity, finding.measured) == ("warning", 3)  # Keras' own loss is right
    assert finding.evidence[0].detail == "y (n,) against (n, 1): loss 1.333 instead of 0"
    clear(shapes.examine_target(y[:, None], answer, 0.0), "target_broadcasts")


def test_one_target_against_an_answer_for_every_step():
    y, answer = np.array([[1.0], [2.0]]), np.array([[[5.0], [1.0]], [[5.0], [2.0]]], np.float32)
    finding = found(shapes.examine_target(y, answer, 6.25), "target_broadcasts")
    assert (finding.severity, finding.measured) == ("problem", 2)
    assert finding.evidence[0].detail == "y (n, 1) against (n, 2, 1): loss 6.25 instead of 0; Keras' own loss says 6.25"
    clear(shapes.examine_target(answer.astype(float), answer, 0.0), "target_broadcasts")
    three = np.repeat(answer[:1], 3, axis=0)
    clear(shapes.examine_target(three[..., 0].astype(float), three, 0.0), "target_broadcasts")


def test_more_targets_than_outputs():
    finding = found(shapes.examine_target(np.zeros((5, 2)), np.zeros((5, 1), np.float32), None), "target_shape")
    assert finding.evidence[0].detail == "y is (n, 2), the answers are (n, 1)"
    clear(shapes.examine_target(np.zeros((5, 2)), np.zeros((5, 2), np.float32), None), "target_shape")


# --- scales


def test_numbers_that_are_not_finite():
    bad = X.copy()
    bad[7, 3, 1] = np.nan
    finding = found([scales.finite(Samples(bad, Y, NAMES))], "nan_in_arrays")
    assert (finding.evidence[0].column, finding.evidence[0].rows) == ("X", "first in sample 7")
    clear([scales.finite(Samples(X, Y, NAMES))], "nan_in_arrays")


@pytest.mark.parametrize("factor", [1e-4, 1e3])
def test_inputs_that_are_not_scaled(factor):
    seen = X * np.array([1.0, factor], np.float32)
    finding = found(scales.inputs(seen, NAMES), "inputs_not_scaled")
    assert [each.column for each in finding.evidence] == ["column 1"]


@pytest.mark.parametrize("seen", [X, (X - X.min()) / (X.max() - X.min()), X * np.array([1.0, 0.0], np.float32)])
def test_standard_and_minmax_scaled_and_constant_columns_are_scaled(seen):
    clear(scales.inputs(seen.astype(np.float32), NAMES), "inputs_not_scaled")


def test_a_price_level_hardly_varies_beside_its_mean():
    price = (5 + 0.01 * X).astype(np.float32)
    finding = found(scales.inputs(price, NAMES), "inputs_off_centre")
    assert finding.measured > 100
    clear(scales.inputs(price - 5, NAMES), "inputs_off_centre")


def test_targets_that_are_not_scaled():
    found(scales.targets(Y * 1e-4, ""), "targets_not_scaled")
    clear(scales.targets(Y.astype(float), ""), "targets_not_scaled")


@pytest.mark.parametrize("head", ["sigmoid", "tanh", "relu"])
def test_a_head_that_cannot_say_the_targets(head):
    found(scales.targets(Y.astype(float), head), "target_out_of_range")
    clear(scales.targets(np.abs(np.tanh(Y)).astype(float), head), "target_out_of_range")
    clear(scales.targets(Y.astype(float), "linear"), "target_out_of_range")


def split_arrays(scaled_on: slice) -> Samples:
    rows = np.cumsum(returns(3000, 0.0))[:, None] * [1.0, -0.5]
    rows = (rows - rows[scaled_on].mean(axis=0)) / rows[scaled_on].std(axis=0)
    later = (("X_val", windows(rows[2000:], 10)),)
    return Samples(windows(rows[:2000], 10), np.zeros(1991), NAMES, later=later)


def test_a_scaler_that_has_seen_the_validation_rows():
    assert len(found([scales.scaler_of_arrays(split_arrays(slice(None)))], "scaler_past_split").evidence) == 2
    clear([scales.scaler_of_arrays(split_arrays(slice(2000)))], "scaler_past_split")


def test_a_minmax_scaler_that_has_seen_the_validation_rows():
    whole = split_arrays(slice(None))
    rows = np.concatenate([scales.unrolled(whole.x), scales.unrolled(whole.later[0][1])])
    for cut, judge in ((3000, found), (2000, clear)):
        low, high = rows[:cut].min(axis=0), rows[:cut].max(axis=0)
        later = (("X_val", ((whole.later[0][1] - low) / (high - low)).astype(np.float32)),)
        judge(
            [
                scales.scaler_of_arrays(
                    replace(whole, x=((whole.x - low) / (high - low)).astype(np.float32), later=later)
                )
            ],
            "scaler_past_split",
        )


def test_without_later_rows_nobody_can_tell_whose_statistics_were_used():
    assert isinstance(scales.scaler_of_arrays(replace(split_arrays(slice(None)), later=())), Skipped)


# --- answers


def examined(x: np.ndarray, y: np.ndarray, answer: np.ndarray | None = None) -> list:
    cut = int(len(x) * 0.7)
    last = x[:, -1].astype(float)
    answer = (last[:, :1] * 0.5).astype(np.float32)[cut:] if answer is None else answer[cut:]
    return list(answers.examine_answers(last, last, y.astype(float), answer, cut, 1, NAMES))


def test_answers_that_hardly_move_though_there_is_something_to_say():
    finding = found(examined(X, Y, np.full_like(Y, 0.3)), "collapsed_predictions")
    assert finding.severity == "problem"
    report = examined(X, Y)
    clear(report, "collapsed_predictions")
    clear(report, "random_walk")


def test_on_a_random_walk_a_constant_is_right():
    x, y = arrays(phi=0.0)
    report = examined(x, y, np.zeros_like(y))
    assert found(report, "random_walk").severity == "note"
    assert isinstance(outcome(report, "collapsed_predictions"), Skipped)


def test_one_output_that_can_be_forecast_is_enough_to_say_that_something_can():
    both = np.concatenate([np.random.default_rng(2).standard_normal((len(Y), 1)), Y], axis=1)
    clear(examined(X, both, np.repeat(X[:, -1, :1], 2, axis=1)), "random_walk")


def test_a_column_that_holds_the_target():
    leaking = X.copy()
    leaking[:, -1, 1] = Y[:, 0] + 0.3 * X[:, -1, 1]
    assert [each.column for each in found(examined(leaking, Y), "leaking_column").evidence] == ["column 1"]
    clear(examined(X, Y), "leaking_column")


def test_a_target_that_its_own_past_explains_is_no_leak():
    clear(examined(*arrays(phi=0.9)), "leaking_column")


def test_a_level_is_no_leak_but_repeats_its_last_value():
    level = np.cumsum(returns(3010, 0.0))
    x = windows(np.stack([level, level * 0], axis=1)[:-1], 10)
    report = examined(x, level[10:, None])
    assert found(report, "level_target").evidence[0].column == "column 0"
    assert isinstance(outcome(report, "leaking_column"), Skipped)
    clear(examined(X, Y), "level_target")


def test_returns_over_many_overlapping_ticks_are_no_level():
    moves = np.convolve(returns(3209, 0.0), np.ones(200), "valid")[: len(X), None]
    clear(examined(X, moves), "level_target")


def test_gradients_that_vanish_and_explode():
    steps = np.arange(20)
    vanishing = list(answers.gradients(0.3 ** (19.0 - steps)))
    finding = found(vanishing, "vanishing_gradient")
    assert finding.command == "windows of 4 steps would do"
    assert "4 of 20 steps have a say" in finding.evidence[0].detail
    clear(vanishing, "exploding_gradient")
    exploding = list(answers.gradients(1.8 ** (19.0 - steps)))
    found(exploding, "exploding_gradient")
    clear(exploding, "vanishing_gradient")
    clear(answers.gradients(0.8 ** (19.0 - steps)), "vanishing_gradient")


def test_windows_that_were_shuffled():
    order = np.random.default_rng(0).permutation(len(X))
    assert found([answers.shuffled_windows(X[order])], "shuffled_windows").measured > 0.99
    clear([answers.shuffled_windows(X)], "shuffled_windows")
    assert isinstance(answers.shuffled_windows(X[::10]), Skipped)  # windows side by side share no row


# --- learning rates, from the losses alone


def losses(*after: float) -> list:
    """Judge the losses after training at 1/30, 1/3, 1, 3 and 30 times the rate, all from 2."""
    factors = sorted([1.0, *FACTORS])
    return list(rates({at: Fit(np.zeros(1), 2.0, loss) for at, loss in zip(factors, after, strict=True)}))


def test_a_learning_rate_that_is_too_high():
    found(losses(1.2, 1, 1.5, 9, 9), "learning_rate_high")
    found(losses(1.2, 1.9, 1.9, 2, 2), "learning_rate_high")  # a third is too much as well
    found(losses(1.2, 1, np.nan, np.nan, np.nan), "learning_rate_high")
    clear(losses(1.6, 1, 1.02, 1.1, 5), "learning_rate_high")


def test_a_learning_rate_that_is_too_low():
    found(losses(1.999, 1.99, 1.95, 1.7, 1.1), "learning_rate_low")
    found(losses(2, 2, 2, 1.99, 1.6), "learning_rate_low")  # three times as much is too little as well
    clear(losses(1.8, 1.2, 1.05, 1.0, 9), "learning_rate_low")
    report = losses(2, 2, 2, 1.98, 1.9)  # noise: nothing falls, at no rate
    assert isinstance(outcome(report, "learning_rate_low"), Skipped)


# --- files and windows


def test_arrays_come_from_an_npz_without_code(tmp_path):
    np.savez(tmp_path / "arrays.npz", X=X, y=Y, X_val=X[:5])
    samples = read_arrays(tmp_path / "arrays.npz", horizon=3)
    assert (samples.shape, samples.horizon, samples.later[0][0]) == (X.shape, 3, "X_val")


class _Code:
    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x_train": X, "y": Y}, "no array X, found x_train, y"),
        ({"X": X, "y": Y[:-1]}, "need the same number of samples"),
        ({"X": X, "y": np.array(["up"] * len(X))}, "must be numbers"),
        ({"X": np.array([_Code()], object), "y": Y[:1]}, "is no .npz of plain arrays"),
    ],
)
def test_arrays_that_cannot_be_used_are_one_line(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "arrays.npz", **content)
    with pytest.raises(TickFileError, match=message) as error:
        read_arrays(tmp_path / "arrays.npz", 1)
    assert "\n" not in str(error.value)
    assert not Path("ran").exists()


def track(count: int, resets: list[int]) -> Track:
    ts = np.arange(count, dtype=np.int64) * 10**9
    started = np.isin(np.arange(count), resets)
    features = np.arange(count, dtype=float)[:, None]
    returns = np.where(started, 0.0, 1e-3)
    return Track("A", ts, np.exp(np.arange(count) * 1e-3), started, returns, features)


def test_windows_and_targets_stay_within_a_session():
    samples = cut_windows([track(30, [0, 20])], ["row"], steps=4, horizons=[2], scales=(np.zeros(1), np.ones(1)))
    first_and_last = samples.inputs(np.arange(len(samples)))[:, [0, -1], 0].astype(int).tolist()
    assert first_and_last == [[at - 3, at] for at in (*range(3, 18), *range(23, 28))]
    assert np.allclose(samples.y, 1.0)  # every move is the same: its root mean square


def test_sessions_shorter_than_a_window_are_one_line():
    with pytest.raises(TickFileError, match="no session holds 40 ticks"):
        cut_windows([track(30, [0])], ["row"], steps=40, horizons=[1])
