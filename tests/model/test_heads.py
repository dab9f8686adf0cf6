"""Heads and shapes: every one converts to the answers of the model itself, or is refused by the name of its layer."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.core.spec import Column, Output
from daemon.errors import BundleError
from daemon.model.conversion import convert
from daemon.model.manifest import Manifest
from daemon.model.numpy_step import NumpyStep
from daemon.model.selftest import TOLERANCE, self_test
from tests.model.test_numpy_step import in_waves

pytestmark = pytest.mark.tensorflow

TICKS = 40


def ticks(columns):
    return np.random.default_rng(9).standard_normal((TICKS, columns)).astype(np.float32)


def converted(tmp_path, models, model, columns, outputs):
    manifest = Manifest(
        columns=(Column("return"),) * columns,
        outputs=tuple(Output(horizon) for horizon in range(1, outputs + 1)),
        golden_steps=64,
        validation_variance=1.0,
    )
    return self_test(convert(model, manifest, tmp_path / "bundle"))


def carried(step, x):
    y, _, finite = step.scan(x, step.initial_state[np.newaxis], in_waves([len(x)]))
    assert finite.all()
    return y


def assert_close(found, expected):
    assert found.shape == expected.shape
    assert (np.abs(found - expected) <= TOLERANCE * np.maximum(1, np.abs(expected))).all()


HEADS = {
    "sigmoid": lambda L: [L.LSTM(6), L.Dense(1, "sigmoid")],
    "softmax": lambda L: [L.LSTM(6), L.Dense(3, "softmax")],
    "softmax on its own": lambda L: [L.GRU(6), L.Dense(3), L.Activation("softmax")],
    "softmax layer": lambda L: [L.GRU(6), L.Dense(3), L.Softmax()],
    "sequences at the end": lambda L: [L.LSTM(6, return_sequences=True)],
    "sequences, dense": lambda L: [L.LSTM(6, return_sequences=True), L.Dense(4)],
    "sequences, time distributed": lambda L: [L.LSTM(6, return_sequences=True), L.TimeDistributed(L.Dense(4, "relu"))],
    "last step": lambda L: [L.LSTM(6)],
    "last step, dense twice": lambda L: [L.LSTM(6, return_sequences=True), L.LSTM(5), L.Dense(8, "elu"), L.Dense(2)],
    "time distributed before": lambda L: [L.TimeDistributed(L.Dense(4, "tanh")), L.SimpleRNN(6), L.Dense(2)],
}


@pytest.mark.parametrize("name", HEADS)
def test_head_gives_the_answer_of_the_last_step_after_every_tick(tmp_path, models, layers, name):
    model = models.sequence(*HEADS[name](layers))
    step = converted(tmp_path, models, model, 3, model.output_shape[-1])
    assert isinstance(step, NumpyStep)
    x = ticks(3)
    y = carried(step, x)
    for count in (1, 10, TICKS):
        answer = np.asarray(model(x[np.newaxis, :count], training=False))[0]
        assert_close(y[count - 1], answer if answer.ndim == 1 else answer[-1])


def two_inputs(models, layers, kind):
    """Return a model of inputs of 3 and 2 columns, with one or two outputs."""
    import keras

    x, other = keras.Input((None, 3), name="z"), keras.Input((None, 2), name="a")
    h = layers.Concatenate()([layers.LSTM(4, return_sequences=True)(x), layers.Dense(3)(other)])
    match kind:
        case "list":
            model = keras.Model([x, other], layers.Dense(2)(h))
        case "dict":
            model = keras.Model({"z": x, "a": other}, layers.Dense(2)(h))
        case "two outputs":
            model = keras.Model([x, other], [layers.Dense(2)(h), layers.Dense(1, "sigmoid")(h)])
        case "last step":
            last = layers.GRU(4)(h)
            model = keras.Model([x, other], {"y": layers.Dense(2)(last), "b": layers.Dense(1)(last)})
        case "nested":
            inner = keras.Model([x, other], [layers.Dense(2)(h), layers.Dense(1)(h)])
            p, q = keras.Input((None, 3)), keras.Input((None, 2))
            model = keras.Model([p, q], layers.Concatenate()(inner([p, q])))
        case "welded":
            x, other = keras.Input(batch_shape=(4, 10, 3)), keras.Input(batch_shape=(4, 10, 2))
            h = layers.LSTM(5, stateful=True)(layers.Concatenate()([x, other]))
            model = keras.Model([x, other], layers.Dense(2)(h))
        case "custom":
            h = layers.RNN(models.LeakyCell(4), return_sequences=True)(h)
            model = keras.Model([x, other], layers.Dense(2)(h))
    return models.randomised(model)


@pytest.mark.parametrize("kind", ["list", "dict", "two outputs", "last step", "nested", "welded", "custom"])
@pytest.mark.parametrize("ending", ["memory", "keras"])
def test_several_inputs_are_columns_side_by_side(tmp_path, models, layers, kind, ending):
    import keras

    from daemon.model.keras_join import input_columns, pack_inputs

    model = two_inputs(models, layers, kind)
    given = model
    if ending == "keras":
        given = tmp_path / "model.keras"
        model.save(given)
    names = [name for name, _ in input_columns(model)]
    widths = [width for _, width in input_columns(model)]
    assert sorted(widths) == [2, 3]
    if kind == "dict":
        assert list(zip(names, widths, strict=True)) == [("a", 2), ("z", 3)]
    outputs = sum(tensor.shape[-1] for tensor in model.outputs)
    step = converted(tmp_path, models, given, 5, outputs)
    assert isinstance(step, NumpyStep) == (kind != "custom")
    rows, count = (4, 10) if kind == "welded" else (1, TICKS)
    x = ticks(5)[:count]
    parts = [np.repeat(part[np.newaxis], rows, axis=0) for part in np.split(x, [widths[0]], axis=1)]
    answers = keras.tree.flatten(model(pack_inputs(model, parts), training=False))
    expected = np.concatenate([np.asarray(answer)[0] for answer in answers], axis=-1)
    y = carried(step, x)
    assert_close(y if expected.ndim == 2 else y[-1], expected)


def test_inputs_and_outputs_over_different_times_are_refused_by_name(tmp_path, models, layers):
    import keras

    x, still, longer = (
        keras.Input((10, 3), name="x"),
        keras.Input((2,), name="still"),
        keras.Input((20, 3), name="long"),
    )
    h = layers.LSTM(4, return_sequences=True)(x)
    last = layers.LSTM(4)(x)
    cases = [
        (keras.Model([x, still], layers.Concatenate()([last, still])), "inputs over different times: still has shape"),
        (keras.Model([x, longer], layers.Add()([last, layers.LSTM(4)(longer)])), "different times: long has shape"),
        (keras.Model(x, [layers.Dense(1)(h), layers.Dense(1, name="end")(last)]), "outputs over different times: end"),
    ]
    for model, message in cases:
        with pytest.raises(BundleError, match=message) as caught:
            convert(model, models.MANIFEST, tmp_path / "bundle")
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_precision_below_float32_is_refused_by_the_name_of_the_layer(tmp_path, models, layers, policy):
    model = models.sequence(layers.LSTM(4, name="half", dtype=policy), layers.Dense(2, dtype=policy))
    if policy == "float64":
        x = ticks(3)
        y = carried(converted(tmp_path, models, model, 3, 2), x)
        assert_close(y[-1], np.asarray(model(x[np.newaxis]))[0])
        return
    with pytest.raises(BundleError, match=r"layer half \(LSTM\) cannot stream: it computes in b?float16"):
        convert(model, models.MANIFEST, tmp_path / "bundle")


def test_custom_cells_run_when_registered_and_are_named_when_not(tmp_path, models, layers):
    import keras

    class Stranger(models.LeakyCell):
        pass

    for cells in ([models.LeakyCell(4)], [layers.LSTMCell(3), models.LeakyCell(4)]):
        model = models.sequence(layers.RNN(cells, return_sequences=True), layers.Dense(2))
        folder = tmp_path / str(len(cells))
        folder.mkdir()
        step = converted(folder, models, model, 3, 2)
        assert not isinstance(step, NumpyStep)
        x = ticks(3)
        assert_close(carried(step, x), np.asarray(model(x[np.newaxis], training=False))[0])

    model = models.sequence(layers.RNN(Stranger(4), name="odd"), layers.Dense(2))
    with pytest.raises(BundleError, match=r"layer odd \(RNN\) cannot stream: its cell Stranger is custom code"):
        convert(model, models.MANIFEST, tmp_path / "bundle")
    model.save(tmp_path / "model.keras")
    with pytest.raises(BundleError, match=r"\(Stranger\) is no layer of Keras 3; if it is your own, import its code"):
        convert(tmp_path / "model.keras", models.MANIFEST, tmp_path / "bundle")
    with keras.saving.custom_object_scope({"Stranger": Stranger}):
        converted(tmp_path, models, tmp_path / "model.keras", 3, 2)
