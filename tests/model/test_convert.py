"""Conversion: the step carried from tick to tick is the Keras model run over the whole sequence."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from daemon.core.step import scan_waves
from daemon.errors import BundleError
from daemon.model.bundle import Bundle
from daemon.model.conversion import convert
from daemon.model.numpy_step import NumpyStep
from daemon.model.selftest import TOLERANCE, check_golden, self_test
from tests.model.test_numpy_step import in_waves

pytestmark = pytest.mark.tensorflow


def ticks(count=100, seed=9):
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


def carried(step, x, cuts=(1, 30, 31, 70)):
    """Run one sequence cut into batches, the state carried from each to the next."""
    state, outputs = step.initial_state[np.newaxis], []
    for part in np.split(x, cuts):
        y, state, finite = step.scan(part, state, in_waves([len(part)]))
        assert finite.all()
        outputs.append(y)
    return np.concatenate(outputs)


def assert_close(found, expected):
    difference = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    assert difference.max() <= TOLERANCE


STACKS = {
    "lstm": lambda L: [L.LSTM(8, return_sequences=True)],
    "stacked lstm": lambda L: [L.LSTM(8, return_sequences=True), L.LSTM(6, return_sequences=True)],
    "lstm without bias": lambda L: [L.LSTM(8, return_sequences=True, use_bias=False)],
    "lstm with dropouts": lambda L: [L.LSTM(8, return_sequences=True, dropout=0.4, recurrent_dropout=0.3)],
    "lstm of relu and hard sigmoid": lambda L: [
        L.LSTM(8, return_sequences=True, activation="relu", recurrent_activation="hard_sigmoid")
    ],
    "gru": lambda L: [L.GRU(8, return_sequences=True)],
    "gru reset first": lambda L: [L.GRU(8, return_sequences=True, reset_after=False)],
    "gru without bias": lambda L: [L.GRU(8, return_sequences=True, use_bias=False)],
    "gru reset first without bias": lambda L: [L.GRU(8, return_sequences=True, reset_after=False, use_bias=False)],
    "simple rnn": lambda L: [L.SimpleRNN(8, return_sequences=True)],
    "rnn of a cell": lambda L: [L.RNN(L.LSTMCell(8), return_sequences=True)],
    "rnn of stacked cells": lambda L: [
        L.RNN([L.LSTMCell(5), L.GRUCell(4), L.SimpleRNNCell(6)], return_sequences=True)
    ],
    "normalization": lambda L: [
        L.Normalization(mean=[100.0, -5.0, 0.0], variance=[4.0, 0.01, 1.0]),
        L.LSTM(4, return_sequences=True),
    ],
    "inverted normalization": lambda L: [
        L.LSTM(4, return_sequences=True), L.Dense(3), L.Normalization(mean=2.0, variance=4.0, invert=True)
    ],
    "layer normalization": lambda L: [L.LSTM(8, return_sequences=True), L.LayerNormalization()],
    "layer normalization without scale": lambda L: [
        L.LSTM(8, return_sequences=True), L.LayerNormalization(scale=False, center=False, epsilon=1e-5)
    ],
    "batch normalization": lambda L: [L.LSTM(8, return_sequences=True), L.BatchNormalization()],
    "batch normalization without scale": lambda L: [
        L.LSTM(8, return_sequences=True), L.BatchNormalization(scale=False, center=False)
    ],
    "passing layers": lambda L: [
        L.GaussianNoise(0.3), L.LSTM(8, return_sequences=True), L.Dropout(0.5), L.SpatialDropout1D(0.2)
    ],
    "leaky relu": lambda L: [L.LSTM(8, return_sequences=True), L.LeakyReLU(0.2)],
    "prelu": lambda L: [L.LSTM(8, return_sequences=True), L.PReLU(shared_axes=[1])],
    "prelu of one slope": lambda L: [L.LSTM(8, return_sequences=True), L.PReLU(shared_axes=[1, 2])],
    "activation layers": lambda L: [
        L.LSTM(8, return_sequences=True), L.ReLU(negative_slope=0.3), L.ELU(), L.Softmax(), L.Dense(4), L.ReLU()
    ],
    "rescaling": lambda L: [L.Rescaling(0.1, offset=-0.5), L.LSTM(8, return_sequences=True)],
    "time distributed": lambda L: [L.LSTM(8, return_sequences=True), L.TimeDistributed(L.Dense(4, "tanh"))],
}  # fmt: skip
ACTIVATIONS = (
    "linear", "tanh", "sigmoid", "relu", "hard_sigmoid", "elu", "selu", "softplus", "softsign", "exponential", "silu",
    "gelu", "softmax",
)  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
def test_state_carried_across_cuts_equals_one_long_sequence(tmp_path, models, layers, name):
    model = models.sequence(*STACKS[name](layers), layers.Dense(2))
    bundle = convert(model, models.MANIFEST, tmp_path / "bundle")
    step = self_test(bundle)
    assert isinstance(step, NumpyStep)
    x = ticks() * (2, 0.1, 1) + (100, -5, 0) if name == "normalization" else ticks()
    x = x.astype(np.float32)
    assert_close(carried(step, x), models.whole_sequence(model, x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_layers_and_on_their_own_agree_with_keras(tmp_path, models, layers, name):
    model = models.sequence(
        layers.SimpleRNN(4, return_sequences=True), layers.Dense(4, name), layers.Activation(name), layers.Dense(2)
    )
    step = self_test(convert(model, models.MANIFEST, tmp_path / "bundle"))
    assert isinstance(step, NumpyStep)
    assert_close(carried(step, ticks()), models.whole_sequence(model, ticks()))


def test_functional_graph_with_branches_and_a_nested_model(tmp_path, models):
    model = models.functional()
    step = self_test(convert(model, models.MANIFEST, tmp_path / "bundle"))
    assert isinstance(step, NumpyStep)
    assert_close(carried(step, ticks()), models.whole_sequence(model, ticks()))


def test_last_step_model_gives_its_answer_after_every_tick(tmp_path, models, layers):
    model = models.sequence(layers.LSTM(8, return_sequences=True), layers.GRU(5), layers.Flatten(), layers.Dense(2))
    step = self_test(convert(model, models.MANIFEST, tmp_path / "bundle"))
    y = carried(step, ticks(40), cuts=())
    for count in (1, 2, 17, 40):
        assert_close(y[count - 1], np.asarray(model(ticks(40)[np.newaxis, :count]))[0])


def test_nested_stateful_model_with_batch_and_window_welded_in(tmp_path, models, layers):
    import keras

    nested = keras.Sequential([layers.LSTM(8, return_sequences=True, stateful=True), layers.LSTM(5, stateful=True)])
    model = models.randomised(keras.Sequential([keras.Input(batch_shape=(4, 10, 3)), nested, layers.Dense(2)]))
    model(np.ones((4, 10, 3), np.float32))  # a state from earlier use must not leak into the bundle, nor get lost
    before = [np.asarray(state) for layer in nested.layers for state in layer.states]
    step = self_test(convert(model, models.MANIFEST, tmp_path / "bundle"))
    after = [np.asarray(state) for layer in nested.layers for state in layer.states]
    assert all(map(np.array_equal, before, after))
    assert any(state.any() for state in before)
    for layer in nested.layers:
        layer.reset_state()
    y = carried(step, ticks(40), cuts=(7,))
    for low in (0, 10, 20, 30):
        window = np.repeat(ticks(40)[np.newaxis, low : low + 10], 4, axis=0)
        assert_close(y[low + 9], np.asarray(model(window))[2])


def test_weights_are_not_touched(tmp_path, models):
    model = models.functional()
    before = model.get_weights()
    self_test(convert(model, models.MANIFEST, tmp_path / "bundle"))
    assert all(map(np.array_equal, before, model.get_weights()))


def test_files_and_the_model_in_memory_give_one_id(tmp_path, models, layers):
    model = models.sequence(layers.LSTM(4, return_sequences=True), layers.ELU(0.5), layers.Dense(2))
    model.compile("adam", "mse")
    kept = {"keras": tmp_path / "model.keras", "h5": tmp_path / "model.h5"}
    for file in kept.values():
        model.save(file)
    ids = {convert(model, models.MANIFEST, tmp_path / "memory").id}
    ids |= {convert(file, models.MANIFEST, tmp_path / name).id for name, file in kept.items()}
    assert len(ids) == 1


def test_swapped_gates_in_the_conversion_are_caught_before_anything_is_written(tmp_path, models, layers, monkeypatch):
    model = models.sequence(layers.LSTM(8, return_sequences=True), layers.Dense(2))
    monkeypatch.setattr("daemon.model.keras_ops._LSTM_ORDER", [0, 1, 2, 3])
    with pytest.raises(BundleError, match="converted step differs from Keras"):
        convert(model, models.MANIFEST, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


TENSORFLOW_ONLY = {
    "elu of another alpha": lambda L, m: L.ELU(0.3),
    "relu cut off": lambda L, m: L.ReLU(max_value=0.5),
    "mish": lambda L, m: L.Dense(4, "mish"),
    "custom cell": lambda L, m: L.RNN(m.LeakyCell(4), return_sequences=True),
    "custom layer": lambda L, m: m.Cube(),
    "average": lambda L, m: L.TimeDistributed(L.UnitNormalization()),
}


@pytest.mark.parametrize("name", TENSORFLOW_ONLY)
def test_layers_that_numpy_lacks_run_on_tensorflow(tmp_path, models, layers, name):
    model = models.sequence(
        layers.LSTM(4, return_sequences=True), TENSORFLOW_ONLY[name](layers, models), layers.Dense(2)
    )
    bundle = convert(model, models.MANIFEST, tmp_path / "bundle")
    step = self_test(bundle)
    assert not isinstance(step, NumpyStep)
    assert_close(carried(step, ticks(60), cuts=(1, 20)), models.whole_sequence(model, ticks(60)))
    with pytest.raises(BundleError, match="numpy cannot run layer"):
        bundle.step("numpy")


def test_both_engines_share_states_and_agree(tmp_path, models):
    bundle = convert(models.functional(), models.MANIFEST, tmp_path / "bundle")
    ours, theirs = self_test(bundle, "numpy"), self_test(bundle, "tensorflow")
    assert ours.state_size == theirs.state_size
    x, waves = ticks(30), in_waves([9, 8, 5, 4, 4])
    start = np.tanh(np.random.default_rng(0).standard_normal((5, ours.state_size))).astype(np.float32)
    for found, expected in zip(ours.scan(x, start, waves), scan_waves(theirs, x, start, waves), strict=True):
        assert_close(found.astype(float), expected.astype(float))


def test_keras_file_of_another_model_is_caught(tmp_path, models, layers):
    stacks = [
        models.sequence(layers.LSTM(4, return_sequences=True), layers.ELU(alpha), layers.Dense(2))
        for alpha in (0.1, 0.2)
    ]
    first, second = (convert(model, models.MANIFEST, tmp_path / str(n)) for n, model in enumerate(stacks))
    assert first.id != second.id
    (second.path / "model.keras").replace(first.path / "model.keras")
    with pytest.raises(BundleError, match="is not the model of the bundle's id"):
        Bundle.load(first.path).step()


def test_missing_keras_file_is_named(tmp_path, models):
    bundle = convert(models.functional(), models.MANIFEST, tmp_path / "bundle")
    (bundle.path / "model.keras").unlink()
    check_golden(Bundle.load(bundle.path).step(), bundle.golden_inputs, bundle.golden_outputs)
    with pytest.raises(BundleError, match=r"no model file at .*model\.keras"):
        bundle.step("tensorflow")


def test_columns_and_outputs_that_do_not_fit_are_refused(tmp_path, models, layers):
    for features, outputs, message in ((4, 2, "reads 4 columns, the manifest names 3"), (3, 5, "has 5 outputs")):
        model = models.sequence(layers.LSTM(4, return_sequences=True), layers.Dense(outputs), shape=(None, features))
        with pytest.raises(BundleError, match=message):
            convert(model, models.MANIFEST, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_model_is_refused(tmp_path, models):
    good = tmp_path / "good.keras"
    models.functional().save(good)
    cases = {
        "text.keras": b"this is no model",
        "text.h5": b"this is no model",
        "empty.keras": b"",
        "cut.keras": good.read_bytes()[:-1000],
        "model.pkl": b"\x80\x04.",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BundleError, match=name) as caught:
            convert(tmp_path / name, models.MANIFEST, tmp_path / "bundle")
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(tmp_path / "zip.keras", "w") as archive:
        archive.writestr("hello.txt", "no model either")
    for name in ("zip.keras", "absent.keras", "absent.h5"):
        with pytest.raises(BundleError, match=name):
            convert(tmp_path / name, models.MANIFEST, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_file_with_a_lambda_is_refused_without_running_it(tmp_path, models, layers, ending):
    model = models.sequence(layers.LSTM(4, return_sequences=True), layers.Lambda(lambda x: x * 2), layers.Dense(2))
    model.save(tmp_path / f"model.{ending}")
    with pytest.raises(BundleError, match=r"cannot load .*model\..*(lambda|Lambda)"):
        convert(tmp_path / f"model.{ending}", models.MANIFEST, tmp_path / "bundle")
