"""The doctor with TensorFlow: real models, small fits, and the command on both."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from daemon.boundaries import resolve_rules
from daemon.cli.doctor import app
from daemon.doctor.data import examine_data
from daemon.doctor.finding import Skipped
from daemon.doctor.learning import CHECKS, Lesson, examine_learning
from daemon.doctor.model import Question, examine_model
from daemon.doctor.samples import Samples
from daemon.errors import BundleError, SettingsError
from tests.doctor.cases import clear, found, outcome, quotes, written
from tests.doctor.test_model import arrays

pytestmark = pytest.mark.tensorflow

X, Y = arrays(1500, steps=6)


@pytest.fixture(scope="module")
def keras():
    from daemon.doctor import networks  # sets what Keras reads when it is imported

    return networks.keras


@pytest.fixture(autouse=True)
def same_weights(keras):
    keras.utils.set_random_seed(0)


@pytest.fixture
def ask(tmp_path, keras):
    """Save layers as a model and examine it on arrays."""

    def ask(*layers, x=X, y=Y, budget=0.0, inputs=None, **question):
        model = keras.Sequential([keras.Input((6, 2)) if inputs is None else inputs, *layers])
        model.save(tmp_path / "model.keras")
        np.savez(tmp_path / "arrays.npz", X=x, y=y)
        options = Question(**question)
        files = [tmp_path / "arrays.npz"]
        return examine_model(tmp_path / "model.keras", files, options, resolve_rules(()), budget_seconds=budget)

    return ask


@pytest.fixture
def lively(keras):
    """Return a head that says something, though nothing has been fitted."""
    return keras.layers.Dense(1, kernel_initializer=keras.initializers.Constant(2.0))


def test_a_sound_model_has_no_finding(ask, keras, lively):
    report = ask(keras.layers.LSTM(4), lively)
    assert report.findings == []
    for code in ("input_shape", "target_broadcasts", "vanishing_gradient", "collapsed_predictions"):
        clear(report, code)


def test_swapped_axes_end_the_examination_with_one_problem(ask, keras):
    report = ask(keras.layers.LSTM(4), keras.layers.Dense(1), x=X.transpose(0, 2, 1))
    assert [finding.check.code for finding in report.findings] == ["input_shape"]
    assert outcome(report, "vanishing_gradient").reason == "input_shape comes first"


def test_an_answer_for_every_step_broadcasts_in_keras_own_loss(ask, keras):
    report = ask(keras.layers.LSTM(4, return_sequences=True), keras.layers.Dense(1))
    finding = found(report, "target_broadcasts")
    assert (finding.severity, finding.measured) == ("problem", 6)
    assert "return_sequences=False" in finding.remedy


def test_a_flat_target_only_warns_since_keras_mends_it(ask, keras):
    finding = found(ask(keras.layers.LSTM(4), keras.layers.Dense(1), y=Y[:, 0]), "target_broadcasts")
    assert finding.severity == "warning"


def test_a_stateful_model_with_a_welded_batch_is_examined_all_the_same(ask, keras, lively):
    inputs = keras.Input((6, 2), batch_size=32)
    report = ask(keras.layers.LSTM(4, stateful=True), lively, inputs=inputs)
    assert [finding.check.code for finding in report.findings] == ["welded_batch"]


def test_a_normalization_layer_scales_what_comes_unscaled(ask, keras):
    raw = X * 300 + 5000
    finding = found(ask(keras.layers.LSTM(4), keras.layers.Dense(1), x=raw), "inputs_not_scaled")
    assert len(finding.evidence) == 2
    normalization = keras.layers.Normalization()
    normalization.adapt(raw)
    report = ask(normalization, keras.layers.LSTM(4), keras.layers.Dense(1), x=raw)
    clear(report, "inputs_not_scaled")


def test_a_sigmoid_head_cannot_say_returns(ask, keras):
    found(ask(keras.layers.LSTM(4), keras.layers.Dense(1, activation="sigmoid")), "target_out_of_range")


def test_a_collapsed_head(ask, keras):
    head = keras.layers.Dense(1, kernel_initializer="zeros")
    found(ask(keras.layers.LSTM(4), head), "collapsed_predictions")


def test_gradients_of_a_forgetful_and_of_a_remembering_layer(ask, keras):
    weak = keras.initializers.Orthogonal(0.1)
    report = ask(keras.layers.SimpleRNN(4, recurrent_initializer=weak), keras.layers.Dense(1))
    assert found(report, "vanishing_gradient").measured < 1e-4
    clear(ask(keras.layers.SimpleRNN(4), keras.layers.Dense(1)), "vanishing_gradient")


def test_two_inputs_are_refused_in_one_line(tmp_path, keras):
    first, second = keras.Input((6, 2)), keras.Input((6, 2))
    keras.Model([first, second], keras.layers.Add()([first, second])).save(tmp_path / "two.keras")
    with pytest.raises(BundleError, match="2 inputs and 1 outputs"):
        examine_model(tmp_path / "two.keras", [tmp_path / "x.npz"], Question(), resolve_rules(()))


# --- fits


def learned(keras, x, y, *, units=4, rate=1e-2, seconds=40.0, double=True):
    """Fit the checks' small networks; `seconds` is more than they need."""
    from daemon.doctor.networks import Learner, small_lstm

    samples = Samples(x, y, ("a", "b"))
    networks = (lambda n=n: Learner(small_lstm(x.shape[1], x.shape[2], n)) for n in (units, 2 * units))
    base, doubled = networks
    lesson = Lesson(samples, y.astype(float))
    return list(examine_learning(lesson, base, doubled if double else None, rate, seconds, lambda done: None))


@pytest.fixture(scope="module")
def short_fits():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daemon.doctor.learning.UPDATES_MAX", 150)
        yield


@pytest.fixture(scope="module")
def sound(keras, short_fits):
    """A network that suits what there is to learn: an AR(1)."""
    return learned(keras, X, Y, units=8, rate=1e-2)


def test_a_learning_curve_that_still_rises(keras, short_fits, sound):
    """Few samples and many columns: each sample more helps. With many samples of one column none does."""
    random = np.random.default_rng(0)
    wide = random.standard_normal((900, 1, 60)).astype(np.float32)
    y = (wide[:, 0] @ random.standard_normal((60, 1)) / 8 + 0.3 * random.standard_normal((900, 1))).astype(np.float32)
    finding = found(learned(keras, wide, y, units=16, double=False), "too_little_data")
    assert "R² by share of the fitting samples" in finding.evidence[0].detail
    clear(sound, "too_little_data")


def test_a_network_too_small_for_what_there_is(keras, short_fits, sound):
    random = np.random.default_rng(1)
    x = random.standard_normal((3000, 1, 6)).astype(np.float32)
    y = np.sum(np.tanh(3 * x[:, 0]) * [1, -1, 1, -1, 1, -1], axis=1, keepdims=True).astype(np.float32) / 2
    narrow = learned(keras, x, y, units=1, rate=3e-2)
    found(narrow, "too_little_capacity")
    clear(sound, "too_little_capacity")


@pytest.mark.parametrize(("rate", "code"), [(3.0, "learning_rate_high"), (1e-4, "learning_rate_low")])
def test_learning_rates_far_off(keras, short_fits, sound, rate, code):
    found(learned(keras, X, Y, rate=rate), code)
    clear(sound, code)


def test_targets_that_never_change_teach_nothing(keras):
    assert {each.reason for each in learned(keras, X, np.zeros_like(Y))} == {"the targets never change"}


def test_a_budget_too_small_says_so(keras):
    report = learned(keras, X, Y, seconds=0.01)
    assert [each.check for each in report] == list(CHECKS)
    assert all(isinstance(each, Skipped) and "give more seconds" in each.reason for each in report)


def test_a_whole_examination_fits_the_user_s_own_network(ask, keras, short_fits, lively):
    report = ask(keras.layers.LSTM(4), lively, budget=60.0, learning_rate=1e-2)
    assert report.findings == []
    for check in CHECKS:
        clear(report, check.code)


def test_ticks_are_fitted_on_too(tmp_path, keras, short_fits):
    report = examine_data([written(tmp_path, quotes(1500))], resolve_rules(()), budget_seconds=60.0)
    assert not isinstance(outcome(report, "too_little_data"), Skipped)


def test_a_model_is_examined_on_windows_of_ticks(tmp_path, keras):
    model = keras.Sequential([keras.Input((8, 2)), keras.layers.GRU(4), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    file = written(tmp_path, quotes(1500))
    arguments = ["model", str(tmp_path / "model.keras"), "--data", str(file), "--budget", "0", "--json"]
    with pytest.raises(SettingsError, match="give --features"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    named = [*arguments, "--features", "return,imbalance"]
    with pytest.raises(SettingsError, match="the model has 1 outputs; give one horizon for each"):
        CliRunner().invoke(app, [*named, "--horizons", "1,5"], catch_exceptions=False)
    result = CliRunner().invoke(app, named, catch_exceptions=False)
    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["facts"]["X"] == [1500 - 8, 8, 2]
    assert {each["code"] for each in report["clear"]} >= {"input_shape", "crossed_quotes", "vanishing_gradient"}


def test_a_spec_names_columns_scales_and_horizons(tmp_path, keras):
    model = keras.Sequential([keras.Input((8, 2)), keras.layers.GRU(4), keras.layers.Dense(1)])
    model.save(tmp_path / "model.keras")
    file, spec = written(tmp_path, quotes(1500)), tmp_path / "spec.toml"
    arguments = ["model", str(tmp_path / "model.keras"), "--data", str(file), "--budget", "0", "--json"]

    def examined(scaler: str, horizon: int) -> dict:
        output = f'[[output]]\nhorizon = {horizon}\nkind = "log_return"\n'
        spec.write_text(f'features = ["return", "imbalance"]\n{scaler}\n{output}')
        return json.loads(CliRunner().invoke(app, [*arguments, "--spec", str(spec)], catch_exceptions=False).stdout)

    scaled = examined("[scaler]\nmean = [0.0, 0.0]\nscale = [1e-9, 1.0]", 5)
    assert scaled["facts"]["X"] == [1500 - 8 + 1 - 5, 8, 2]
    assert "inputs_not_scaled" in {each["code"] for each in scaled["findings"]}
    with pytest.raises(SettingsError, match="mean has 1 numbers, features names 2 columns"):
        examined("[scaler]\nmean = [0.0]\nscale = [1.0]", 1)


def test_predicting_for_the_examination_changes_no_weight(ask, keras, tmp_path):
    from daemon.doctor.networks import copy_of, load

    ask(keras.layers.LSTM(4), keras.layers.Dense(1))
    model = load(tmp_path / "model.keras")
    before = [np.array(weight) for weight in model.get_weights()]
    copy = copy_of(model)
    assert np.array_equal(np.array(copy(X[:5])), np.array(model(X[:5])))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
