"""The stateless model: the same answers as the original after a reset, with any batch; weights copied by structure."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from daemon.errors import BundleError

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]


@pytest.fixture(scope="module")
def write_stateless():
    from daemon.model.stateless import write_stateless

    return write_stateless


def windows(count, steps=10, features=3):
    return np.random.default_rng(5).standard_normal((count, steps, features)).astype(np.float32)


def nested(models, layers, batch=4, steps=10):
    import keras

    inner = keras.Sequential(
        [layers.LSTM(5, return_sequences=True, stateful=True), layers.GRU(5, return_sequences=True, stateful=True)]
    )
    stack = keras.Input(batch_shape=(batch, steps, 3)), inner, layers.LSTM(5, stateful=True), layers.Dense(2)
    return models.randomised(keras.Sequential(stack))


def stateful(models, layers, kind):
    import keras

    x = keras.Input(batch_shape=(4, 10, 3), name="b")
    match kind:
        case "nested":
            return nested(models, layers)
        case "functional":
            h = layers.LSTM(4, return_sequences=True, stateful=True)(x)
            h = layers.Concatenate()([h, layers.SimpleRNN(4, return_sequences=True, stateful=True)(x)])
            model = keras.Model(x, [layers.Dense(2)(h), layers.Dense(1)(h)])
        case "cells":
            cells = [layers.LSTMCell(4), layers.GRUCell(3)]
            model = keras.Sequential([x, layers.RNN(cells, stateful=True), layers.Dense(2)])
        case "both ways":
            model = keras.Sequential([x, layers.Bidirectional(layers.LSTM(4, stateful=True)), layers.Dense(2)])
        case "wrapped":
            both = layers.TimeDistributed(layers.Dense(4)), layers.BatchNormalization()
            model = keras.Sequential([x, layers.LSTM(4, return_sequences=True, stateful=True), *both])
        case "time welded in":
            stack = layers.LSTM(4, return_sequences=True, stateful=True), layers.Flatten(), layers.Dense(2)
            model = keras.Sequential([x, *stack])
        case "two inputs":
            other = keras.Input(batch_shape=(4, 10, 2), name="a")
            h = layers.LSTM(4, stateful=True)(layers.Concatenate()([x, other]))
            model = keras.Model({"b": x, "a": other}, layers.Dense(2)(h))
        case "custom":
            model = keras.Sequential([x, layers.RNN(models.LeakyCell(4), stateful=True), layers.Dense(2)])
    return models.randomised(model)


KINDS = ("nested", "functional", "cells", "both ways", "wrapped", "time welded in", "two inputs", "custom")


@pytest.mark.parametrize("kind", KINDS)
def test_any_batch_gets_the_answers_of_the_reset_original(tmp_path, models, layers, write_stateless, kind):
    from daemon.model.keras_model import load_keras
    from daemon.model.keras_states import stateful_layers

    original = stateful(models, layers, kind)
    assert write_stateless(original, tmp_path / "out.keras") <= 1e-5
    fresh = load_keras(tmp_path / "out.keras")
    assert stateful_layers(original)
    assert not stateful_layers(fresh)
    for tensor in fresh.inputs:
        assert tensor.shape[0] is None
        assert tensor.shape[1] == (10 if kind == "time welded in" else None)
    assert [weight.name for weight in fresh.weights] == [weight.name for weight in original.weights]
    assert all(map(np.array_equal, fresh.get_weights(), original.get_weights()))


def test_one_row_is_predicted_after_training_with_four(tmp_path, models, layers, write_stateless):
    import keras

    model = nested(models, layers)
    model.compile("adam", "mse")
    model.fit(windows(8), np.ones((8, 2)), batch_size=4, verbose=0, shuffle=False)
    x = windows(4)
    with pytest.raises(ValueError, match="shape"):
        model.predict(x[:1], verbose=0)
    write_stateless(model, tmp_path / "out.keras")
    fresh = keras.saving.load_model(tmp_path / "out.keras")
    from daemon.model.keras_states import reset_states

    reset_states(model)
    expected = model.predict(x, batch_size=4, verbose=0)
    found = np.concatenate([fresh.predict(row[np.newaxis], verbose=0) for row in x])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    one_step = fresh.predict(x[:1, :1], verbose=0)
    assert one_step.shape == (1, 2)


def test_original_keeps_its_weights_and_states(tmp_path, models, layers, write_stateless):
    from daemon.model.keras_states import state_variables

    model = nested(models, layers)
    model(windows(4))
    weights, states = model.get_weights(), [np.array(state) for state in state_variables(model)]
    assert any(state.any() for state in states)
    write_stateless(model, tmp_path / "out.keras")
    assert all(map(np.array_equal, weights, model.get_weights()))
    assert all(map(np.array_equal, states, state_variables(model)))


def test_copying_by_layer_index_skips_layers(models, layers):
    """The trap: a Functional model counts its input among its layers, a Sequential does not."""
    import keras

    from daemon.model.stateless import copy_weights, stateless

    def lstms(*options):
        return [layers.LSTM(5, return_sequences=True, **each) for each in options]

    x = keras.Input(batch_shape=(4, 10, 5))
    first, second, third = lstms(*[{"stateful": True}] * 3)
    model = models.randomised(keras.Model(x, third(second(first(x)))))
    by_index = keras.Sequential([keras.Input((None, 5)), *lstms({}, {}, {})])
    for theirs, ours in zip(model.layers, by_index.layers, strict=False):
        if theirs.get_weights():
            ours.set_weights(theirs.get_weights())  # no complaint: the shapes fit
    assert np.array_equal(by_index.layers[1].get_weights()[0], first.get_weights()[0])  # one too far
    assert not np.array_equal(by_index.layers[0].get_weights()[0], first.get_weights()[0])  # as it was initialised
    assert not any(np.array_equal(layer.get_weights()[0], third.get_weights()[0]) for layer in by_index.layers)

    assert all(map(np.array_equal, stateless(model).get_weights(), model.get_weights()))
    with pytest.raises(BundleError, match="is a Functional, in the other model a Sequential"):
        copy_weights(model, by_index)


def test_weight_without_a_counterpart_is_named_with_its_layer(models, layers):
    import keras

    from daemon.model.stateless import copy_weights

    def model(**options):
        inner = keras.Sequential([layers.LSTM(4, name="lstm", **options)], name="inner")
        return keras.Sequential([keras.Input((None, 3)), inner, layers.Dense(2, name="head")], name="outer")

    with pytest.raises(BundleError, match=r"layer outer/inner/lstm/lstm_cell: weight none of one is bias of shape"):
        copy_weights(model(use_bias=False), model())
    with pytest.raises(BundleError, match=r"lstm_cell: weight bias of shape \(16,\) of one is none"):
        copy_weights(model(), model(use_bias=False))
    wider = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4, name="lstm")], name="outer")
    with pytest.raises(BundleError, match=r"layer outer holds inner, head, in the other model lstm$"):
        copy_weights(model(), wider)


def test_another_answer_is_refused_and_nothing_is_written(tmp_path, models, layers, write_stateless, monkeypatch):
    model = nested(models, layers)
    monkeypatch.setattr("daemon.model.stateless.copy_weights", lambda source, target: None)
    with pytest.raises(BundleError, match=r"differs by .* from the original reset before each window"):
        write_stateless(model, tmp_path / "out.keras")
    assert list(tmp_path.iterdir()) == []


def test_file_of_keras_2_becomes_stateless(tmp_path, write_stateless):
    keras2 = import_module("tf_keras")
    layers = keras2.layers
    inner = keras2.Sequential([layers.LSTM(6, return_sequences=True, stateful=True, batch_input_shape=(32, 10, 5))])
    model = keras2.Sequential([inner, layers.LSTM(5, stateful=True), layers.Dense(2)])
    model.save(tmp_path / "gold.h5")
    assert write_stateless(tmp_path / "gold.h5", tmp_path / "out.keras") <= 1e-5
    import keras

    x = windows(32, features=5)
    model.reset_states()
    fresh = keras.saving.load_model(tmp_path / "out.keras")
    np.testing.assert_allclose(fresh(x[:1]), np.asarray(model(x))[:1], rtol=0, atol=1e-5)


def test_layers_of_one_shape_get_their_own_weights_whatever_the_order(models, layers):
    import keras

    from daemon.model.stateless import copy_weights

    def graph(order):
        x = keras.Input((None, 5))
        branches = {name: layers.LSTM(5, name=name) for name in order}
        values = {name: layer(x) for name, layer in branches.items()}
        return keras.Model(x, layers.Concatenate()([values[name] for name in sorted(order)]))

    source, target = models.randomised(graph("ab"), 1), models.randomised(graph("ba"), 2)
    copy_weights(source, target)
    x = windows(3, features=5)
    assert np.array_equal(source(x), target(x))


def test_a_model_without_states_is_written_all_the_same(tmp_path, models, write_stateless):
    assert write_stateless(models.functional(), tmp_path / "out.keras") <= 1e-5


def test_what_cannot_be_written_is_refused_in_one_line(tmp_path, models, layers, write_stateless):
    import keras

    model = nested(models, layers)
    (tmp_path / "there.keras").write_text("mine")
    cases = [
        (model, "absent/out.keras", r"cannot write .*out\.keras: No such file or directory"),
        (model, "out.h5", r"out\.h5: the stateless model is written as \.keras"),
        (model, "there.keras", r"there\.keras exists"),
        (
            models.sequence(models.Unregistered(), layers.LSTM(3)),
            "out.keras",
            r"\(Unregistered\) is no layer",
        ),
        (models.sequence(layers.Lambda(lambda x: x), layers.LSTM(3)), "out.keras", r"layer lambda\w* \(Lambda\)"),
        (keras.Sequential([layers.LSTM(3)]), "out.keras", "has no input shape"),
    ]
    for given, name, message in cases:
        with pytest.raises(BundleError, match=message) as caught:
            write_stateless(given, tmp_path / name)
        assert "\n" not in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["there.keras"]
    assert (tmp_path / "there.keras").read_text() == "mine"
    assert write_stateless(model, tmp_path / "there.keras", replace=True) <= 1e-5


def test_reset_reaches_nested_wrapped_and_stacked_states(models, layers):
    from daemon.model.keras_states import reset_states, state_variables

    for kind in KINDS:
        model = stateful(models, layers, kind)
        x = [np.ones((4, 10, tensor.shape[-1]), np.float32) for tensor in model.inputs]
        x = {"b": x[1], "a": x[0]} if kind == "two inputs" else x[0]
        before = model(x)
        assert any(np.any(state) for state in state_variables(model)), kind
        reset_states(model)
        assert not any(np.any(state) for state in state_variables(model)), kind
        import keras

        for again, first in zip(keras.tree.flatten(model(x)), keras.tree.flatten(before), strict=True):
            assert np.array_equal(again, first), kind
