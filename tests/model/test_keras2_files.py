"""Model files of Keras 2: they load as what they were, to the bit of every weight, or are refused in one line."""

from __future__ import annotations

import contextlib
import json
import sys
from importlib import import_module

import h5py
import numpy as np
import pytest

from daemon.errors import BundleError
from daemon.model.conversion import convert
from daemon.model.numpy_step import NumpyStep
from daemon.model.selftest import self_test
from tests.model.test_numpy_step import in_waves

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]

FEATURES, INPUTS = 5, 100


@pytest.fixture(scope="module")
def keras2():
    """Keras 2 as it lives on in tf-keras; it and Keras 3 share a process, and keep their registries apart."""
    return import_module("tf_keras")


@pytest.fixture(scope="module")
def load():
    from daemon.model.keras_model import load_keras

    return load_keras


def randomised(model, seed=0):
    """Give every weight a value: biases and statistics start at 0 or 1, where mistakes do not show."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = rng.normal(0, 0.4, variable.shape)
        variable.assign((np.abs(values) + 0.5 if "variance" in variable.name else values).astype(variable.dtype.name))
    for layer in model.submodules:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def weights_of(model):
    """Return the weights of all layers by their path of names."""
    found = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found |= {f"{layer.name}/{path}": arrays for path, arrays in weights_of(layer).items()}
        elif layer.weights:
            found[layer.name] = layer.get_weights()
    return found


def answers(model, x, batch):
    """Ask for all inputs, one batch after the other: a stateful model carries its state along."""
    return np.concatenate([np.asarray(model(part, training=False)) for part in np.split(x, len(x) // batch)])


def rewrite(file, change):
    """Change the description in a file as another version, or somebody else, might have written it."""
    with h5py.File(file, "r+") as archive:
        spec = json.loads(archive.attrs["model_config"])
        archive.attrs["model_config"] = json.dumps(change(spec) or spec)


def refused(load, file):
    """Return the line of the refusal."""
    with pytest.raises(BundleError) as caught:
        load(file)
    line = str(caught.value)
    assert "\n" not in line
    assert str(file) in line
    assert len(line) < 500
    return line


def stack(K, *layers, shape=(None, FEATURES), batch=None):
    return K.Sequential([K.Input(shape, batch_size=batch), *layers])


def in_sequential(K, batch=None, stateful=False):
    L = K.layers
    inner = K.Sequential([
        L.LSTM(6, return_sequences=True, stateful=stateful, batch_input_shape=(batch, 10, FEATURES)),
        K.Sequential([L.GRU(4, return_sequences=True, stateful=stateful)]),
    ])  # fmt: skip
    return K.Sequential([inner, L.LSTM(5, stateful=stateful), L.Dense(2)])


def in_functional(K):
    L = K.layers
    x = K.Input((None, FEATURES))
    inner = K.Sequential([L.LSTM(4, return_sequences=True, input_shape=(None, FEATURES)), L.BatchNormalization()])
    again = K.Input((None, 4))
    functional = K.Model(again, L.Concatenate()([L.Dense(4, "tanh")(again), again]))
    shared = L.Dense(8)
    joined = L.Add()([shared(functional(inner(x))), shared(functional(inner(x)))])
    return K.Model(x, functional(L.Dense(4)(joined)))


def twins(K):
    """Return a graph of many layers of one shape: swapped weights would load without a word."""
    L = K.layers
    x = K.Input((None, FEATURES))
    inputs = K.Input((None, FEATURES))
    late = L.Dense(5, name="a")(L.Dense(5, name="b")(inputs))
    early = L.Dense(5, name="c")(inputs)
    inner = K.Model(inputs, L.Subtract()([early, late]))
    branches = [L.LSTM(5, return_sequences=True, name=name)(inner(x)) for name in ("z", "y", "w")]
    deep = L.Dense(5, name="d")(L.Dense(5, name="e")(branches[2]))
    return K.Model(x, L.Concatenate()([deep, *branches[:2]]))


def frozen(K):
    L = K.layers
    inner = stack(K, L.Dense(5), L.BatchNormalization(), L.Dense(5), L.LayerNormalization(), L.Dense(5))
    inner.layers[0].trainable = False
    inner.layers[1].trainable = False
    nested = stack(K, L.Dense(5), L.Dense(5))
    nested.trainable = False
    return stack(K, inner, nested, L.LSTM(3))


def normalising(K):
    layers = K.layers
    inner = stack(K, layers.Normalization(), layers.BatchNormalization(), layers.LayerNormalization(axis=[-1]))
    return stack(K, inner, layers.TimeDistributed(layers.Dense(4, "swish")), layers.LSTM(3))


MODELS = {
    "lstm": lambda K, L: stack(K, L.LSTM(8, return_sequences=True), L.Dense(2)),
    "last step": lambda K, L: stack(K, L.LSTM(8), L.Dense(2, "gelu")),
    "gru": lambda K, L: stack(K, L.GRU(8, return_sequences=True), L.Dense(2)),
    "gru reset first": lambda K, L: stack(K, L.GRU(8, reset_after=False), L.Dense(2)),
    "simple rnn": lambda K, L: stack(K, L.SimpleRNN(8, return_sequences=True, unroll=False), L.Dense(2)),
    "hard sigmoid": lambda K, L: stack(K, L.LSTM(8, recurrent_activation="hard_sigmoid"), L.Dense(2, "hard_sigmoid")),
    "cells": lambda K, L: stack(K, L.RNN([L.LSTMCell(3), L.GRUCell(4), L.SimpleRNNCell(2)]), L.Dense(2)),
    "no biases": lambda K, L: stack(K, L.LSTM(8, use_bias=False, implementation=1), L.Dense(2, use_bias=False)),
    "dropouts": lambda K, L: stack(K, L.GaussianNoise(0.3), L.LSTM(8, dropout=0.2), L.Dropout(0.5)),
    "leaky": lambda K, L: stack(K, L.Dense(4), L.LeakyReLU(0.2), L.PReLU(shared_axes=[1]), L.ReLU(), L.Softmax()),
    "regularised": lambda K, L: stack(
        K, L.LSTM(4, kernel_regularizer="l2", bias_constraint="non_neg", kernel_initializer="he_normal"), L.Dense(2)
    ),
    "unrolled": lambda K, L: stack(K, L.LSTM(4, unroll=True), L.Dense(2), shape=(10, FEATURES)),
    "stateful batch 4": lambda K, L: K.Sequential([
        L.LSTM(8, return_sequences=True, stateful=True, batch_input_shape=(4, 10, FEATURES)), L.GRU(5, stateful=True),
        L.Dense(2),
    ]),
    "stateful batch 20, any time": lambda K, L: stack(K, L.SimpleRNN(8, stateful=True), L.Dense(2), batch=20),
    "batch 50": lambda K, L: stack(K, L.GRU(8), L.Dense(2), shape=(10, FEATURES), batch=50),
    "nested": lambda K, L: in_sequential(K),
    "nested stateful batch 20": lambda K, L: in_sequential(K, 20, stateful=True),
    "nested in functional": lambda K, L: in_functional(K),
    "twins": lambda K, L: twins(K),
    "frozen": lambda K, L: frozen(K),
    "normalising": lambda K, L: normalising(K),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_file_loads_as_the_model_it_was(tmp_path, keras2, load, name):
    K = keras2
    model = randomised(MODELS[name](K, K.layers))
    model.save(tmp_path / "model.h5")
    before = (tmp_path / "model.h5").read_bytes()
    loaded = load(tmp_path / "model.h5")
    assert (tmp_path / "model.h5").read_bytes() == before

    ours, theirs = weights_of(loaded), weights_of(model)
    assert ours.keys() == theirs.keys()
    for layer, arrays in theirs.items():
        for found, expected in zip(ours[layer], arrays, strict=True):
            assert found.shape == expected.shape
            assert np.array_equal(found, expected), layer

    batch = model.input_shape[0] or INPUTS
    assert tuple(loaded.inputs[0].shape) == tuple(model.input_shape)
    x = np.random.default_rng(1).standard_normal((INPUTS, 10, FEATURES)).astype(np.float32)
    found, expected = answers(loaded, x, batch), answers(model, x, batch)
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()


def test_names_of_activations_mean_what_they_meant(tmp_path, keras2, load):
    from keras import activations

    x = np.linspace(-6, 6, INPUTS).astype(np.float32).reshape(-1, 1, 1) * np.ones((1, 2, FEATURES), np.float32)
    names = [name for name in dir(keras2.activations) if hasattr(activations, name) and name not in dir(object)]
    names = [name for name in names if name not in ("get", "serialize", "deserialize") and not name.startswith("_")]
    assert {"hard_sigmoid", "sigmoid", "gelu", "swish", "elu", "selu", "softmax"} <= set(names)
    for name in names:
        model = stack(keras2, keras2.layers.Activation(name))
        model.save(tmp_path / "model.h5")
        found, expected = np.asarray(load(tmp_path / "model.h5")(x)), np.asarray(model(x))
        assert np.allclose(found, expected, rtol=0, atol=1e-6), name


def test_compiled_and_trained_model_loads_without_its_optimizer(tmp_path, keras2, load):
    model = stack(keras2, keras2.layers.LSTM(4), keras2.layers.Dense(2))
    model.compile("adam", "mse")
    model.fit(np.ones((8, 10, FEATURES)), np.ones((8, 2)), verbose=0)
    model.save(tmp_path / "model.h5")
    assert len(load(tmp_path / "model.h5").weights) == 5


def test_forms_of_older_versions(tmp_path, keras2, load):
    """Before 2.2.3 a Sequential was a list, before 2.3 it had no InputLayer, before 2.1.3 a GRU had no reset_after."""
    L = keras2.layers
    inner = keras2.Sequential([L.GRU(6, return_sequences=True, reset_after=False, input_shape=(10, FEATURES))])
    model = randomised(keras2.Sequential([inner, L.LSTM(4), L.Dense(2)]))

    def older(spec):
        if spec["class_name"] == "Sequential":
            spec["config"] = [older(layer) for layer in spec["config"]["layers"] if layer["class_name"] != "InputLayer"]
            spec["name"] = "nested"
        spec["config"] = spec["config"] if isinstance(spec["config"], list) else dict(spec["config"])
        if spec["class_name"] == "GRU":
            del spec["config"]["reset_after"], spec["config"]["time_major"]
        return {key: value for key, value in spec.items() if key not in ("module", "registered_name", "build_config")}

    model.save(tmp_path / "model.h5")
    rewrite(tmp_path / "model.h5", older)
    with h5py.File(tmp_path / "model.h5", "r+") as archive:
        archive["model_weights"].move(inner.name, "nested")
        archive["model_weights"].attrs["layer_names"] = [
            b"nested",
            *(layer.name.encode() for layer in model.layers[1:]),
        ]
        archive.attrs["keras_version"] = b"2.1.2"
    x = np.random.default_rng(1).standard_normal((INPUTS, 10, FEATURES)).astype(np.float32)
    assert np.allclose(np.asarray(load(tmp_path / "model.h5")(x)), np.asarray(model(x)), rtol=1e-5, atol=1e-5)


def test_functional_model_under_its_old_class_name(tmp_path, keras2, load):
    model = randomised(in_functional(keras2))
    model.save(tmp_path / "model.h5")
    rewrite(tmp_path / "model.h5", lambda spec: spec | {"class_name": "Model"})
    x = np.random.default_rng(1).standard_normal((INPUTS, 10, FEATURES)).astype(np.float32)
    assert np.allclose(np.asarray(load(tmp_path / "model.h5")(x)), np.asarray(model(x)), rtol=1e-5, atol=1e-5)


def test_registered_layer_of_ones_own_needs_its_code_imported(tmp_path, keras2, load):
    import keras

    @keras2.saving.register_keras_serializable(package="tickcast_tests")
    class Scale(keras2.layers.Layer):
        def __init__(self, initializer="ones", **kwargs):
            super().__init__(**kwargs)
            self.initializer = keras2.initializers.get(initializer)

        def build(self, shape):
            self.scale = self.add_weight("scale", shape[-1:], initializer=self.initializer)

        def call(self, x):
            return x * self.scale

        def get_config(self):
            return super().get_config() | {"initializer": keras2.initializers.serialize(self.initializer)}

    model = randomised(stack(keras2, Scale(), keras2.layers.LSTM(3)))
    model.save(tmp_path / "model.h5")
    line = refused(load, tmp_path / "model.h5")
    assert "layer scale (tickcast_tests>Scale)" in line
    assert "import its code first" in line

    class Ours(keras.layers.Layer):
        def __init__(self, initializer="ones", **kwargs):
            super().__init__(**kwargs)
            self.initializer = keras.initializers.get(initializer)

        def build(self, shape):
            self.scale = self.add_weight(shape[-1:], self.initializer, name="scale")

        def call(self, x):
            return x * self.scale

    with keras.saving.custom_object_scope({"tickcast_tests>Scale": Ours}):
        loaded = load(tmp_path / "model.h5")
    x = np.random.default_rng(1).standard_normal((INPUTS, 10, FEATURES)).astype(np.float32)
    assert np.allclose(np.asarray(loaded(x)), np.asarray(model(x)), rtol=1e-5, atol=1e-5)


# ---- conversion


@pytest.mark.parametrize("window", [None, 1, 10])
def test_nested_stateful_file_becomes_a_bundle(tmp_path, keras2, models, window):
    L = keras2.layers
    inner = keras2.Sequential([
        L.LSTM(8, return_sequences=True, stateful=True, batch_input_shape=(4, window, 3)),
        L.LSTM(5, return_sequences=True, stateful=True),
    ])  # fmt: skip
    model = randomised(keras2.Sequential([inner, L.Dense(2)]))
    model.save(tmp_path / "model.h5")
    step = self_test(convert(tmp_path / "model.h5", models.MANIFEST, tmp_path / "bundle"))
    assert isinstance(step, NumpyStep)
    x = np.random.default_rng(2).standard_normal((INPUTS, 3)).astype(np.float32)
    y, _, finite = step.scan(x, step.initial_state[np.newaxis], in_waves([len(x)]))
    assert finite.all()
    expected = [
        np.asarray(model(np.repeat(part[np.newaxis], 4, axis=0)))[0] for part in np.split(x, INPUTS // (window or 20))
    ]
    expected = np.concatenate(expected)
    assert (np.abs(y - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()


def test_hard_sigmoid_of_keras_2_lives_on_in_the_bundle(tmp_path, keras2, models):
    L = keras2.layers
    model = randomised(stack(
        keras2, L.LSTM(8, return_sequences=True, recurrent_activation="hard_sigmoid"), L.Dense(2), shape=(None, 3)
    ))  # fmt: skip
    model.save(tmp_path / "model.h5")
    step = self_test(convert(tmp_path / "model.h5", models.MANIFEST, tmp_path / "bundle"))
    assert isinstance(step, NumpyStep)
    x = np.random.default_rng(2).standard_normal((INPUTS, 3)).astype(np.float32)
    y, _, _ = step.scan(x, step.initial_state[np.newaxis], in_waves([len(x)]))
    expected = np.asarray(model(x[np.newaxis]))[0]
    assert (np.abs(y - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()


COMMON = {
    "relu": lambda L: L.Dense(4, "relu"),
    "relu layer": lambda L: L.ReLU(negative_slope=0.2),
    "selu": lambda L: L.Dense(4, "selu"),
    "elu": lambda L: L.ELU(),
    "softplus": lambda L: L.Activation("softplus"),
    "swish": lambda L: L.Dense(4, "swish"),
    "gelu": lambda L: L.Dense(4, "gelu"),
    "hard sigmoid": lambda L: L.Activation("hard_sigmoid"),
    "leaky relu": lambda L: L.LeakyReLU(0.2),
    "prelu": lambda L: L.PReLU(shared_axes=[1]),
    "batch normalization": lambda L: L.BatchNormalization(),
    "layer normalization": lambda L: L.LayerNormalization(),
    "dropout": lambda L: L.Dropout(0.3),
    "time distributed": lambda L: L.TimeDistributed(L.Dense(4, "tanh")),
    "rescaling": lambda L: L.Rescaling(0.5, offset=1.0),
}


@pytest.mark.parametrize("name", COMMON)
def test_common_layers_of_old_files_need_no_tensorflow_to_serve(tmp_path, keras2, models, name):
    L = keras2.layers
    stacked = L.LSTM(4, return_sequences=True), COMMON[name](L), L.Dense(2)
    model = randomised(stack(keras2, *stacked, shape=(None, 3)))
    model.save(tmp_path / "model.h5")
    step = self_test(convert(tmp_path / "model.h5", models.MANIFEST, tmp_path / "bundle"))
    assert isinstance(step, NumpyStep)
    assert_streams(step, model)


@pytest.mark.parametrize("name", ["elu of another alpha", "relu cut off", "mish", "unit normalization"])
def test_other_layers_of_old_files_run_on_tensorflow(tmp_path, keras2, models, name):
    L = keras2.layers
    layer = {
        "elu of another alpha": lambda: L.ELU(0.3),
        "relu cut off": lambda: L.ReLU(max_value=0.5),
        "mish": lambda: L.Dense(4, "mish"),
        "unit normalization": lambda: L.UnitNormalization(),
    }[name]()
    model = randomised(stack(keras2, L.LSTM(4, return_sequences=True), layer, L.Dense(2), shape=(None, 3)))
    model.save(tmp_path / "model.h5")
    step = self_test(convert(tmp_path / "model.h5", models.MANIFEST, tmp_path / "bundle"))
    assert not isinstance(step, NumpyStep)
    assert_streams(step, model)


def assert_streams(step, model):
    x = np.random.default_rng(2).standard_normal((INPUTS, 3)).astype(np.float32)
    y, _, finite = step.scan(x, step.initial_state[np.newaxis], in_waves([len(x)]))
    assert finite.all()
    expected = np.asarray(model(x[np.newaxis]))[0]
    assert (np.abs(y - expected) <= 1e-5 * np.maximum(1, np.abs(expected))).all()


def test_several_inputs_and_outputs_of_an_old_file(tmp_path, keras2):
    from daemon.model.keras_model import load_keras, take_apart
    from daemon.model.tensorflow_step import TensorflowStep

    L = keras2.layers
    x, other = keras2.Input((None, 3)), keras2.Input((None, 2))
    h = L.GRU(4, return_sequences=True)(L.Concatenate()([x, other]))
    model = randomised(keras2.Model([x, other], [L.Dense(2)(h), L.Dense(1)(h)]))
    model.save(tmp_path / "model.h5")
    step = TensorflowStep(take_apart(load_keras(tmp_path / "model.h5")))
    ticks = np.random.default_rng(2).standard_normal((20, 5)).astype(np.float32)
    y, _, _ = step.scan(ticks, step.initial_state[np.newaxis], in_waves([20]))
    expected = np.concatenate(
        [np.asarray(part)[0] for part in model([ticks[np.newaxis, :, :3], ticks[np.newaxis, :, 3:]])], 1
    )
    assert np.allclose(y, expected, rtol=1e-5, atol=1e-5)


def cannot_stream(K, kind):
    L = K.layers
    match kind:
        case "Masking":
            return stack(K, L.Masking(name="odd"), L.LSTM(4), shape=(None, 3))
        case "Bidirectional":
            return stack(K, L.Bidirectional(L.LSTM(4), name="odd"), shape=(None, 3))
        case "Embedding":
            return stack(K, L.Embedding(100, 8, name="odd"), L.LSTM(4), shape=(3,))
        case "RepeatVector":
            return stack(K, L.LSTM(4), L.RepeatVector(5, name="odd"), L.LSTM(4), shape=(None, 3))
        case "Conv1D":
            return stack(K, L.Conv1D(4, 3, name="odd"), L.LSTM(4), shape=(10, 3))
        case "Flatten":
            return stack(K, L.LSTM(4, return_sequences=True), L.Flatten(name="odd"), L.Dense(2), shape=(10, 3))


@pytest.mark.parametrize("kind", ["Masking", "Bidirectional", "Embedding", "RepeatVector", "Conv1D", "Flatten"])
def test_layer_that_cannot_stream_is_named_by_conversion(tmp_path, keras2, models, kind):
    cannot_stream(keras2, kind).save(tmp_path / "model.h5")
    with pytest.raises(BundleError, match=rf"layer odd \({kind}\) cannot stream: ") as caught:
        convert(tmp_path / "model.h5", models.MANIFEST, tmp_path / "bundle")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "bundle").exists()


def test_convolution_with_a_state_is_refused_by_the_shape_of_its_input(tmp_path, keras2, models):
    stack(keras2, keras2.layers.ConvLSTM2D(4, 2), shape=(None, 8, 8, 3)).save(tmp_path / "model.h5")
    with pytest.raises(BundleError, match=r"takes inputs of shape \(None, None, 8, 8, 3\), expected \(batch, time"):
        convert(tmp_path / "model.h5", models.MANIFEST, tmp_path / "bundle")


# ---- refusals


@pytest.mark.parametrize("nested", [False, True])
def test_time_major_is_refused_by_the_name_of_the_layer(tmp_path, keras2, load, nested):
    L = keras2.layers
    layers = [L.LSTM(4, time_major=True, return_sequences=True, name="sideways"), L.Dense(2)]
    model = stack(keras2, stack(keras2, *layers)) if nested else stack(keras2, *layers)
    model.save(tmp_path / "model.h5")
    line = refused(load, tmp_path / "model.h5")
    assert "layer sideways (LSTM) has time_major=true" in line
    assert "build it again with time_major=False" in line


@pytest.mark.parametrize("where", ["layer", "nested", "activation", "wrapped"])
def test_lambda_is_refused_by_name_and_never_runs(tmp_path, keras2, load, where):
    L = keras2.layers
    mark = tmp_path / "ran"

    def code(x, path=str(mark)):
        import pathlib

        pathlib.Path(path).touch()
        return x

    culprit = {
        "layer": lambda: L.Lambda(code, name="culprit"),
        "nested": lambda: stack(keras2, L.Lambda(code, name="culprit"), L.Dense(2), shape=(None, 4)),
        "activation": lambda: L.Dense(4, activation=lambda x, path=str(mark): code(x), name="culprit"),
        "wrapped": lambda: L.TimeDistributed(L.Lambda(code, name="culprit")),
    }[where]()
    model = stack(keras2, L.LSTM(4, return_sequences=True), culprit, L.Dense(2))
    model.save(tmp_path / "model.h5")
    mark.unlink()
    assert "layer culprit (" in refused(load, tmp_path / "model.h5")
    assert not mark.exists()


FORGED = {
    "module": {"class_name": "Gadget", "module": "tickcast_gadget"},
    "registered name": {"class_name": "Gadget", "module": "tickcast_gadget", "registered_name": "tickcast>Gadget"},
    "keras hub": {"class_name": "Gadget", "module": "keras_hub.models"},
    "saved model": {"class_name": "TFSMLayer", "config": {"name": "x", "filepath": "."}},
    "function": {"class_name": "function", "module": "builtins", "config": {"name": "eval"}},
    "file reader": {"class_name": "StringLookup", "config": {"name": "x", "vocabulary": "/etc/hostname"}},
    "type": {"class_name": ["LSTM"]},
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_nothing_in_the_description_imports_or_reads(tmp_path, keras2, load, monkeypatch, name):
    (tmp_path / "tickcast_gadget.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "model.h5"
    for place in ("layer", "activation", "kernel_initializer"):
        stack(keras2, keras2.layers.Dense(2), keras2.layers.Dense(2)).save(file)

        def forge(spec, place=place):
            layer = spec["config"]["layers"][2]
            forged = {"config": {"name": "x"}} | FORGED[name]
            if place == "layer":
                spec["config"]["layers"][2] = forged
            else:
                layer["config"][place] = forged

        rewrite(file, forge)
        if place == "kernel_initializer" and name != "saved model":
            load(file)  # what only training reads is left out
        else:
            refused(load, file)
        assert "tickcast_gadget" not in sys.modules


def test_absurd_sizes_are_refused_before_memory_is_taken(tmp_path, keras2, load, monkeypatch):
    file = tmp_path / "model.h5"

    def saved(change):
        stack(keras2, keras2.layers.LSTM(4), keras2.layers.Dense(2)).save(file)
        rewrite(file, change)
        return refused(load, file)

    def units(spec):
        spec["config"]["layers"][1]["config"]["units"] = 10**9

    def shape(spec):
        spec["config"]["layers"][0]["config"]["batch_input_shape"] = [10**9, 10, FEATURES]

    def padded(spec):
        spec["padding"] = "x" * (5 * 1024**2)

    assert "(LSTM) claims more than 1073741824 bytes of weights" in saved(units)
    assert "input shape [1000000000, 10, 5]" in saved(shape)
    assert "model_config is larger than" in saved(padded)
    monkeypatch.setattr("daemon.model.keras_description.WEIGHTS_BYTES_MAX", 500)
    assert "(LSTM) claims more than 500 bytes" in saved(lambda spec: None)
    stack(keras2, *(keras2.layers.LSTM(4, return_sequences=True) for _ in range(6))).save(file)
    monkeypatch.setattr("daemon.model.keras_description.WEIGHTS_BYTES_MAX", 2500)
    assert "model sequential" in refused(load, file)
    monkeypatch.setattr("daemon.model.keras_files.FILE_BYTES_MAX", 1_000)
    assert "holds more than 1000 bytes" in saved(lambda spec: None)


def test_damaged_files_are_refused_with_the_remedy(tmp_path, keras2, load):
    model = stack(keras2, keras2.layers.LSTM(4), keras2.layers.Dense(2))
    good = tmp_path / "good.h5"
    model.save(good)
    content = good.read_bytes()
    cases = {
        "text.h5": (b"this is no model", "no HDF5 file"),
        "empty.h5": (b"", "no HDF5 file"),
        "short.h5": (content[: len(content) // 2], "cut short or damaged"),
    }
    for name, (found, message) in cases.items():
        (tmp_path / name).write_bytes(found)
        assert message in refused(load, tmp_path / name)

    model.save_weights(tmp_path / "only.h5")
    assert "weights without a model; save the whole model again" in refused(load, tmp_path / "only.h5")

    def without(change):
        (tmp_path / "changed.h5").write_bytes(content)
        with h5py.File(tmp_path / "changed.h5", "r+") as archive:
            change(archive)
        return refused(load, tmp_path / "changed.h5")

    lstm = model.layers[0].name
    assert "has no model_weights" in without(lambda archive: archive.pop("model_weights"))
    assert f"has no {lstm}" in without(lambda archive: archive["model_weights"].pop(lstm))
    assert "model_config is damaged" in without(lambda archive: archive.attrs.modify("model_config", "{"))
    assert "describes no model" in without(lambda archive: archive.attrs.modify("model_config", "[1]"))
    assert "is damaged" in without(lambda archive: archive.attrs.modify("model_config", "[" * 100_000))
    assert "no version" in without(lambda archive: archive.attrs.modify("keras_version", "x"))


def test_broken_bytes_never_surface_as_another_error(tmp_path, keras2, load):
    stack(keras2, keras2.layers.LSTM(4), keras2.layers.Dense(2)).save(tmp_path / "good.h5")
    content = np.frombuffer((tmp_path / "good.h5").read_bytes(), np.uint8)
    rng = np.random.default_rng(3)
    for _ in range(10):
        broken = content.copy()
        low = rng.integers(len(broken) - 64)
        broken[low : low + 64] = rng.integers(0, 256, 64)
        (tmp_path / "broken.h5").write_bytes(broken.tobytes())
        with contextlib.suppress(BundleError):  # a hit among weights or padding goes unseen
            load(tmp_path / "broken.h5")


def test_weights_that_do_not_fit_or_lie_elsewhere_are_refused(tmp_path, keras2, load):
    file = tmp_path / "model.h5"
    outside = tmp_path / "outside.h5"

    def changed(change):
        # As many features as units: kernel and recurrent kernel have one shape, and only names tell them apart.
        stack(keras2, keras2.layers.LSTM(FEATURES, name="lstm"), keras2.layers.Dense(2)).save(file)
        with h5py.File(file, "r+") as archive:
            change(archive["model_weights/lstm"])
        return refused(load, file)

    def swap(group):
        names = list(group.attrs["weight_names"])
        group.attrs["weight_names"] = [names[1], names[0], names[2]]

    def link(group):
        name = group.attrs["weight_names"][0]
        with h5py.File(outside, "w") as other:
            other["secret"] = group[name][()]
        del group[name]
        group[name] = h5py.ExternalLink(str(outside), "secret")

    def reshape(group):
        name = group.attrs["weight_names"][0]
        del group[name]
        group[name] = np.zeros((3, 20), np.float32)

    def drop(group):
        group.attrs["weight_names"] = group.attrs["weight_names"][:2]

    assert "weight kernel of shape (5, 20) does not fit lstm/lstm_cell/recurrent_kernel:0" in changed(swap)
    assert "lstm/lstm_cell/kernel:0 in it is only a link" in changed(link)
    assert "does not fit" in changed(reshape)
    assert "has 3 weights, the file 2" in changed(drop)


def test_graphs_that_need_more_than_layers_are_refused_by_name(tmp_path, keras2, load):
    L = keras2.layers
    x = keras2.Input((None, FEATURES))
    start = L.LSTM(4)(x)
    graphs = {
        "operation outside a layer": L.LSTM(4)(x + 1.0),
        "layer fed (LSTM)": L.LSTM(4, name="fed")(x, initial_state=[start, start]),
    }
    for message, y in graphs.items():
        keras2.Model(x, y).save(tmp_path / "model.h5")
        line = refused(load, tmp_path / "model.h5")
        assert message in line


def test_keras_format_of_keras_2_is_refused_with_the_way_out(tmp_path, keras2, load):
    stack(keras2, keras2.layers.LSTM(4)).save(tmp_path / "model.keras")
    line = refused(load, tmp_path / "model.keras")
    assert "Keras 2.21.0 wrote it; save it as .h5 there" in line
