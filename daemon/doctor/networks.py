"""Keras models for examination: loaded, without their states, with other units. Imports Keras."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
import tensorflow as tf

from daemon.core.step import F32
from daemon.errors import BundleError
from daemon.model.keras_model import load_keras

#: Rows of a call.
ROWS = 256
RECURRENT = ("LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell")
SCALING = ("Normalization", "Rescaling", "BatchNormalization")


def load(file: Path) -> Any:
    """Load a model with one input and one output.

    Raises
    ------
    BundleError : no model, not safe to load, or of several inputs or outputs
    """
    model = load_keras(file)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise BundleError(
            f"{file}: {len(model.inputs)} inputs and {len(model.outputs)} outputs; give a model of one each"
        )
    return model


def small_lstm(steps: int, features: int, units: int) -> Any:
    """Return the small network that stands for a model where only data are examined."""
    head = [keras.layers.LSTM(units), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((steps, features)), *head])


def stateless(model: Any, *, factor: int = 1) -> Any:
    """Rebuild a model with fresh weights, any batch size and no state kept between calls.

    What is not trained, such as the statistics of a Normalization, is taken over.

    Parameters
    ----------
    factor : multiplies the units of every recurrent layer

    Raises
    ------
    BundleError : the model cannot be rebuilt from its configuration
    """
    try:
        fresh = type(model).from_config(_edited(model.get_config(), factor))
        for variable, given in zip(fresh.non_trainable_variables, model.non_trainable_variables, strict=True):
            variable.assign(given)
        _settle(fresh)
    except Exception as error:  # Keras raises whatever its builders raise
        raise BundleError(f"model {model.name} cannot be rebuilt: {str(error).splitlines()[0]}") from error
    return fresh


def copy_of(model: Any) -> Any:
    """Return a stateless copy with the same weights."""
    copy = stateless(model)
    copy.set_weights(model.get_weights())
    _settle(copy)
    return copy


def answers(model: Any, x: F32) -> F32:
    """Return the model's answers, at the last step where it answers every step; shape (samples, outputs)."""
    parts = [np.asarray(model(x[at : at + ROWS], training=False), np.float32) for at in range(0, len(x), ROWS)]
    y = np.concatenate(parts)
    return y[:, -1] if y.ndim == 3 else y


def raw_answers(model: Any, x: F32) -> F32:
    """Return the model's answers as they come."""
    return np.asarray(model(x, training=False), np.float32)


def keras_loss(y: Any, answer: F32) -> float | None:
    """Return what Keras' own mean squared error makes of target and answer; None where it refuses."""
    try:
        return float(keras.losses.MeanSquaredError()(np.asarray(y, np.float32), answer))
    except Exception:  # Keras and TensorFlow raise whatever they raise
        return None


def gradient_norms(model: Any, x: F32) -> F32:
    """Return the norm of d output / d input for each step back, root mean square over samples; shape (steps,)."""
    inputs = tf.convert_to_tensor(x)
    total = np.zeros(x.shape[1])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        y = model(inputs, training=False)
        columns = tf.unstack(y[:, -1] if len(y.shape) == 3 else y, axis=-1)
    for column in columns[:8]:
        gradient = tape.gradient(column, inputs)
        if gradient is not None:
            total += np.mean(np.sum(np.square(gradient.numpy().astype(np.float64)), axis=2), axis=0)
    norms: F32 = np.sqrt(total)
    return norms


def as_seen(model: Any, x: F32) -> F32:
    """Return inputs as they come out of the scaling layers that the model begins with."""
    for layer in model.layers:
        if type(layer).__name__ == "InputLayer":
            continue
        if type(layer).__name__ not in SCALING:
            break
        x = np.asarray(layer(x, training=False), np.float32)
    return x


def head_activation(model: Any) -> str:
    """Return the name of the last layer's activation; empty where it has none."""
    layer = model.layers[-1]
    while hasattr(layer, "layers") and layer.layers:
        layer = layer.layers[-1]
    layer = getattr(layer, "layer", layer)  # TimeDistributed
    if type(layer).__name__ in ("Activation", "Dense"):
        return str(getattr(layer.activation, "__name__", ""))
    return {"ReLU": "relu", "Softmax": "softmax", "LSTM": "tanh", "GRU": "tanh"}.get(type(layer).__name__, "")


class Learner:
    """A model that is fitted again and again from fresh weights, compiled once."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self._optimizer = keras.optimizers.Adam(1e-3)
        self._optimizer.build(model.trainable_variables)
        self._blank = [np.array(variable) for variable in self._optimizer.variables]
        self._step = tf.function(self._update, reduce_retracing=True)
        self._errors = tf.function(self._squares, reduce_retracing=True)

    def start(self, seed: int, rate: float) -> None:
        """Draw fresh weights, forget the optimizer's memory and set its rate."""
        keras.utils.set_random_seed(seed)
        fresh = type(self.model).from_config(self.model.get_config())
        for variable, drawn in zip(self.model.trainable_variables, fresh.trainable_variables, strict=True):
            variable.assign(drawn)
        for variable, value in zip(self._optimizer.variables, self._blank, strict=True):
            variable.assign(value)
        self._optimizer.learning_rate.assign(rate)

    def update(self, x: F32, y: F32) -> None:
        """Make one update on a batch."""
        self._step(tf.constant(x), tf.constant(y))

    def errors(self, x: F32, y: F32) -> F32:
        """Return the squared error of each sample, mean over outputs."""
        found: F32 = self._errors(tf.constant(x), tf.constant(y)).numpy()
        return found

    def _squares(self, x: Any, y: Any) -> Any:
        return tf.reduce_mean(tf.square(self._answer(x, training=False) - y), axis=1)

    def _answer(self, x: Any, *, training: bool) -> Any:
        answer = self.model(x, training=training)
        return answer[:, -1] if len(answer.shape) == 3 else answer

    def _update(self, x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self._answer(x, training=True) - y))
        variables = self.model.trainable_variables
        self._optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


def _settle(model: Any) -> None:
    """Let Normalization layers take over the statistics just written: they compute with a copy of them."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            layer.finalize_state()


def _edited(value: Any, factor: int) -> Any:
    """Return a configuration without states and batch sizes, at any depth."""
    if isinstance(value, dict):
        # built shapes follow from the units
        edited = {key: _edited(each, factor) for key, each in value.items() if key != "build_config"}
        if "stateful" in edited:
            edited["stateful"] = False
        for key in ("batch_shape", "batch_input_shape"):
            if isinstance(edited.get(key), Sequence) and edited[key]:
                edited[key] = (None, *edited[key][1:])
        if edited.get("class_name") in RECURRENT and isinstance(edited.get("config"), dict):
            edited["config"]["units"] *= factor
        return edited
    if isinstance(value, (list, tuple)):
        return type(value)(_edited(each, factor) for each in value)
    return value
