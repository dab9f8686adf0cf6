"""What cannot stream is refused by the layer's name, with the reason, and nothing is written."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.errors import BundleError
from daemon.model.conversion import convert

pytestmark = pytest.mark.tensorflow


def rejects(models, model, out, message):
    with pytest.raises(BundleError, match=message) as caught:
        convert(model, models.MANIFEST, out)
    assert "\n" not in str(caught.value)
    assert not out.exists()


STACKS = {
    "Bidirectional": (lambda L, m: [L.Bidirectional(L.LSTM(4, return_sequences=True))], "backwards"),
    "LSTM": (lambda L, m: [L.LSTM(4, return_sequences=True, go_backwards=True)], "go_backwards"),
    "Conv1D": (lambda L, m: [L.Conv1D(4, 3, padding="causal"), L.LSTM(4)], "convolves over time"),
    "SeparableConv1D": (lambda L, m: [L.SeparableConv1D(4, 3), L.LSTM(4)], "convolves over time"),
    "MaxPooling1D": (lambda L, m: [L.MaxPooling1D(2), L.LSTM(4)], "pools over time"),
    "GlobalAveragePooling1D": (lambda L, m: [L.LSTM(4, return_sequences=True), L.GlobalAveragePooling1D()], "pools"),
    "RepeatVector": (lambda L, m: [L.LSTM(4), L.RepeatVector(5), L.LSTM(4)], "across time"),
    "Reshape": (lambda L, m: [L.LSTM(4), L.Reshape((2, 2)), L.LSTM(4)], "across time"),
    "Masking": (lambda L, m: [L.Masking(), L.LSTM(4)], "skips ticks"),
    "Lambda": (lambda L, m: [L.Lambda(lambda x: x), L.LSTM(4)], "runs code"),
    "Unregistered": (lambda L, m: [m.Unregistered(), L.LSTM(4)], "register_keras_serializable"),
    "RunningTotal": (lambda L, m: [m.RunningTotal(), L.LSTM(4)], "otherwise than inside a sequence"),
}


@pytest.mark.parametrize("kind", STACKS)
def test_layer_is_refused_by_name_and_reason(tmp_path, models, layers, kind):
    build, reason = STACKS[kind]
    model = models.sequence(*build(layers, models), layers.Dense(2))
    rejects(models, model, tmp_path / "out", rf"layer \w+ \({kind}\) cannot stream: .*{reason}")


@pytest.mark.parametrize("axis", [(1, 2), 1])
def test_normalization_over_time_is_refused(tmp_path, models, layers, axis):
    stack = layers.LSTM(3, return_sequences=True), layers.LayerNormalization(axis=axis), layers.Dense(2)
    model = models.sequence(*stack, shape=(10, 3))
    rejects(models, model, tmp_path / "out", r"LayerNormalization\) cannot stream: axis .* beyond the features")


def test_hidden_memory_is_caught_by_the_answer_of_the_model_itself(tmp_path, models, layers):
    model = models.sequence(models.LongMemory(), layers.LSTM(4, return_sequences=True), layers.Dense(2))
    rejects(models, model, tmp_path / "out", "cannot stream: over 1,000 carried steps the converted step differs by")


def test_flatten_over_time_is_refused(tmp_path, models, layers):
    model = models.sequence(layers.LSTM(3, return_sequences=True), layers.Flatten(), layers.Dense(2), shape=(10, 3))
    rejects(models, model, tmp_path / "out", r"\(Flatten\) cannot stream: it mixes ticks")


def test_weights_that_differ_from_tick_to_tick_are_refused(tmp_path, models, layers):
    model = models.sequence(layers.LSTM(3, return_sequences=True), layers.PReLU(), layers.Dense(2), shape=(10, 3))
    rejects(models, model, tmp_path / "out", r"\(PReLU\) cannot stream: its weights differ from tick to tick")


def test_nested_layer_is_refused_by_its_own_name(tmp_path, models, layers):
    import keras

    inner = keras.Sequential([layers.Bidirectional(layers.GRU(4), name="both_ways")])
    rejects(models, models.sequence(inner, layers.Dense(2)), tmp_path / "out", "layer both_ways .*cannot stream")


def test_attention_is_refused(tmp_path, models, layers):
    import keras

    x = keras.Input((None, 3))
    h = layers.LSTM(4, return_sequences=True)(x)
    attended = {
        "MultiHeadAttention": layers.MultiHeadAttention(2, 4)(h, h, use_causal_mask=True),
        "Attention": layers.Attention()([h, h]),
    }
    for kind, value in attended.items():
        model = keras.Model(x, layers.Dense(2)(value))
        rejects(models, model, tmp_path / "out", rf"\({kind}\) cannot stream: (it attends over time|it takes tensors)")


def test_graphs_that_are_no_chain_of_ticks_are_refused(tmp_path, models, layers):
    import keras

    def head(value):
        return layers.Dense(2)(value)

    x = keras.Input((None, 3))
    shared = layers.LSTM(4, return_sequences=True)
    twice = layers.Add()([shared(x), shared(layers.Dense(3)(x))])
    h, state_h, state_c = layers.LSTM(4, return_sequences=True, return_state=True)(x)
    seeded = layers.LSTM(4)(x, initial_state=[layers.Dense(4)(layers.LSTM(2)(x))] * 2)
    cases = [
        (keras.Model(x, head(twice)), "stands at two places"),
        (keras.Model(x, head(h)), "drop return_state"),
        (keras.Model(x, head(layers.LSTM(4)(x, initial_state=[state_h, state_c]))), "drop return_state"),
        (keras.Model(x, head(seeded)), "an initial state"),
        (keras.Model(x, head(layers.Dropout(0.5)(shared(x), training=True))), "training mode"),
        (keras.Model(x, head(shared(x) * 2.0)), "stands outside a layer"),
        (keras.Model(x, layers.Add()([head(shared(x)), head(layers.LSTM(4)(x))])), "with and without a time dimension"),
    ]
    for model, message in cases:
        rejects(models, model, tmp_path / "out", message)


def test_model_that_is_code_or_has_no_shape_is_refused(tmp_path, models, layers):
    import keras

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    class OwnCall(keras.Sequential):
        def call(self, inputs, **_):
            return inputs

    cases = [
        (Subclassed(), "is subclassed code"),
        (OwnCall([keras.Input((None, 3)), layers.Dense(2)]), "is subclassed code"),
        (keras.Sequential([layers.LSTM(4), layers.Dense(2)]), "has no input shape"),
        (layers.Dense(2), "is no Keras model"),
        (models.sequence(layers.Dense(2), shape=(None, None, 3)), "expected .batch, time, features."),
    ]
    for model, message in cases:
        rejects(models, model, tmp_path / "out", message)


def test_weights_that_are_not_finite_are_refused(tmp_path, models, layers):
    model = models.sequence(layers.LSTM(4, return_sequences=True), layers.Dense(2))
    model.layers[-1].bias.assign(np.full(2, np.nan))
    rejects(models, model, tmp_path / "out", "nan|NaN")


def test_table_of_the_documents_names_layers_that_keras_has(layers):
    from daemon.dev.tables import layers_table
    from daemon.model.keras_ops import LAYERS, PASSING
    from daemon.model.keras_refusals import REFUSED, REFUSED_OVER_TIME

    named = {*LAYERS, *PASSING, *REFUSED, *REFUSED_OVER_TIME} - {"Columns"}
    assert all(hasattr(layers, name) for name in named)
    assert not LAYERS.keys() & REFUSED.keys()
    text = "\n".join(layers_table())
    assert all(f"`{name}`" in text for name in named)
