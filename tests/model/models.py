"""Keras models for the tests of conversion; import only where TensorFlow may be imported."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from daemon.core.spec import Column, Output
from daemon.model.manifest import Manifest

FEATURES, OUTPUTS = 3, 2
MANIFEST = Manifest(
    columns=(Column("return"),) * FEATURES, outputs=(Output(1), Output(10)), golden_steps=64, validation_variance=1.0
)


def sequence(*stack, shape=(None, FEATURES)) -> keras.Model:
    return randomised(keras.Sequential([keras.Input(shape), *stack]))


def randomised(model: keras.Model, seed: int = 0) -> keras.Model:
    """Give every weight a value: biases and statistics start at 0 or 1, where mistakes do not show."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        values = rng.normal(0, 0.4, variable.shape)
        variable.assign(np.abs(values) + 0.5 if "variance" in variable.name else values)
    return model


def functional(seed: int = 0) -> keras.Model:
    """Return a graph that branches, joins and reuses its input."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((None, FEATURES))
    lstm = layers.LSTM(4, return_sequences=True)(x)
    simple = layers.SimpleRNN(4, return_sequences=True)(x)
    joined = layers.Concatenate()([layers.Add()([lstm, simple]), layers.Multiply()([simple, lstm]), x])
    inner = keras.Sequential([keras.Input((None, 11)), layers.GRU(5, return_sequences=True), layers.Dropout(0.3)])
    return randomised(keras.Model(x, layers.Dense(OUTPUTS)(inner(joined))))


def whole_sequence(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """Ask the model for one long sequence at once, shape (ticks, outputs)."""
    return np.asarray(model(x[np.newaxis], training=False))[0]


@keras.saving.register_keras_serializable(package="tickcast_tests")
class LeakyCell(layers.Layer):
    """A custom cell: an exponential average of its input."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        h = 0.9 * states[0] + 0.1 * keras.ops.matmul(inputs, self.kernel)
        return h, [h]

    def get_config(self):
        return super().get_config() | {"units": self.units}


@keras.saving.register_keras_serializable(package="tickcast_tests")
class Cube(layers.Layer):
    """A custom layer that knows one tick."""

    def call(self, inputs):
        return inputs**3


@keras.saving.register_keras_serializable(package="tickcast_tests")
class RunningTotal(layers.Layer):
    """A custom layer that mixes ticks across time."""

    def call(self, inputs):
        return keras.ops.cumsum(inputs, axis=1)


@keras.saving.register_keras_serializable(package="tickcast_tests")
class LongMemory(layers.Layer):
    """A custom layer that adds the tick of 20 ticks ago: more than a question of a few ticks brings to light."""

    def call(self, inputs):
        padded = keras.ops.pad(inputs, [[0, 0], [20, 0], [0, 0]])
        return inputs + padded[:, : keras.ops.shape(inputs)[1]]


class Unregistered(layers.Layer):
    def call(self, inputs):
        return inputs
