"""The Keras model in training: stacked LSTMs with explicit states. The one module of training that imports TensorFlow.

The model that is trained takes and returns its states, so that they can be carried and reset per stream. The one that
is kept in the end is a plain stack with the same weights, which conversion turns into the daemon's step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

# TensorFlow's notices would break the progress bar. The one about oneDNN is printed before the level counts, and its
# kernels add up in an order of their own.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
import tensorflow as tf

from daemon.core.step import F32
from daemon.training.streams import CHUNK_TICKS, Chunk

#: Beyond so many standard deviations an outcome pulls linearly: at tick scale the tails are fat, and squares would
#: let a handful of jumps decide. At 2 the skill on real ticks was a quarter lower one tick ahead.
HUBER_DELTA = 4.0
#: Bounds the step after a jump in prices.
GRADIENT_NORM_MAX = 1.0


class Network:
    """Stacked LSTMs and a dense head, with carried states.

    Parameters
    ----------
    features, outputs : columns of the input and the output
    units, layers : of the LSTMs
    seed : of the initial weights; the same seed and data give the same weights
    """

    def __init__(self, features: int, outputs: int, units: int, layers: int, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
        self._shape = (features, outputs, units, layers)
        self._model = _with_states(features, outputs, units, layers)
        self._optimizer = keras.optimizers.Adam()
        self._optimizer.build(self._model.trainable_variables)
        sizes = [tf.TensorSpec((None, units), tf.float32)] * (2 * layers)
        x, y = (tf.TensorSpec((None, CHUNK_TICKS, width), tf.float32) for width in (features, outputs))
        keep = tf.TensorSpec((None, 1), tf.float32)
        self._fit_step = tf.function(self._fit, input_signature=[x, y, y, keep, sizes])
        self._run_step = tf.function(self._run, input_signature=[x, keep, sizes])

    def zero_states(self, streams: int) -> list[Any]:
        """Return the states of streams that have seen nothing."""
        _, _, units, layers = self._shape
        return [tf.zeros((streams, units))] * (2 * layers)

    def fit(self, chunk: Chunk, states: Sequence[Any], learning_rate: float) -> tuple[Any, list[Any]]:
        """Make one update; return the loss (a tensor: reading it would wait) and the states after the chunk."""
        self._optimizer.learning_rate = learning_rate
        loss, *after = self._fit_step(chunk.x, chunk.y, chunk.weight, chunk.keep, list(states))
        return loss, after

    def run(self, chunk: Chunk, states: Sequence[Any]) -> tuple[F32, list[Any]]:
        """Return the outputs, shape (streams, CHUNK_TICKS, outputs), and the states after the chunk."""
        y, *after = self._run_step(chunk.x, chunk.keep, list(states))
        return y.numpy(), after

    def weights(self) -> list[F32]:
        """Return a copy of the weights."""
        return [np.array(weight) for weight in self._model.get_weights()]

    def set_weights(self, weights: Sequence[F32]) -> None:
        """Take weights back."""
        self._model.set_weights(list(weights))

    def plain_model(self) -> Any:
        """Return the stack as an ordinary `keras.Model`, one output per tick."""
        features, outputs, units, layers = self._shape
        stack = [keras.layers.LSTM(units, return_sequences=True) for _ in range(layers)]
        model = keras.Sequential([keras.Input((None, features)), *stack, keras.layers.Dense(outputs)])
        model.set_weights(self._model.get_weights())
        return model

    def _fit(self, x: Any, y: Any, weight: Any, keep: Any, states: list[Any]) -> list[Any]:
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            predicted, *after = self._model([x, *(state * keep for state in states)], training=True)
            loss = tf.reduce_sum(weight * _huber(y - predicted)) / tf.maximum(tf.reduce_sum(weight), 1.0)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), GRADIENT_NORM_MAX)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return [loss, *after]

    def _run(self, x: Any, keep: Any, states: list[Any]) -> list[Any]:
        return list(self._model([x, *(state * keep for state in states)], training=False))


def _with_states(features: int, outputs: int, units: int, layers: int) -> Any:
    inputs = [keras.Input((None, features))]
    y, after = inputs[0], []
    for _ in range(layers):
        state = [keras.Input((units,)), keras.Input((units,))]
        y, *next_state = keras.layers.LSTM(units, return_sequences=True, return_state=True)(y, initial_state=state)
        inputs += state
        after += next_state
    return keras.Model(inputs, [keras.layers.Dense(outputs)(y), *after])


def _huber(error: Any) -> Any:
    size = tf.abs(error)
    inner = tf.minimum(size, HUBER_DELTA)
    return inner * (size - inner / 2)
