"""The Keras model in training, its loss and its updates. The one module of training that imports TensorFlow.

    x ── squash ─┬─ LSTM ── LSTM ── Dense ─┬─ y
                 └───────── Dense ─────────┘

The linear way past the layers starts as a ridge regression, so the recurrent layers learn what it leaves.

The model that is trained takes and returns its states, so that they can be carried and reset per stream. Beside it
stands its average: the same model with an exponential average of its weights, less noisy than the last update's
(Polyak and Juditsky 1992). The average is what is judged and kept, as a plain model that conversion turns into the
daemon's step.
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

from daemon.core.spec import OutputOf
from daemon.core.step import F32
from daemon.training.options import Shape
from daemon.training.streams import CHUNK_TICKS, SQUASH, Chunk

#: Beyond so many standard deviations an outcome pulls linearly: at tick scale the tails are fat, and squares would
#: let a handful of jumps decide.
HUBER_DELTA = 4.0
#: Bounds the step after a jump in prices.
GRADIENT_NORM_MAX = 1.0
#: What the average keeps of itself at each update: about the last fifty updates count.
AVERAGE_KEEPS = 0.98
#: Rows run at once where each is a session of its own.
ROWS_MAX = 8192
#: Unrolled, an update takes half the time; but to unroll so many takes seconds, and a long window's would take minutes.
UNROLLED_TICKS_MAX = CHUNK_TICKS
#: A log variance beyond this says nothing more and would overflow.
LOG_VARIANCE_MAX = 20.0


class Network:
    """Recurrent layers and a linear way past them, with carried states.

    Parameters
    ----------
    features : columns of the input
    outputs : what each output column says, the means first
    shape : cell, layers, units and dropout
    seed : of the initial weights; the same seed and data give the same weights
    window : ticks of the windows it is run on; None where the state is carried
    """

    def __init__(
        self, features: int, outputs: Sequence[OutputOf], shape: Shape, seed: int, window: int | None = None
    ) -> None:
        keras.utils.set_random_seed(seed)
        tf.config.experimental.enable_op_determinism()
        self._features, self._outputs, self._shape = features, tuple(outputs), shape
        self.window = window
        self._ticks = window or CHUNK_TICKS
        self._model, self._average = self._with_states(), self._with_states()
        self._average.set_weights(self._model.get_weights())
        self._optimizer = keras.optimizers.Adam()
        self._optimizer.build(self._model.trainable_variables)
        means = self._outputs.count("mean")
        sizes = [tf.TensorSpec((None, shape.units), tf.float32)] * (shape.layers * _states_of(shape.cell))
        x, y = (tf.TensorSpec((None, self._ticks, width), tf.float32) for width in (features, means))
        keep = tf.TensorSpec((None, 1), tf.float32)
        self._fit_step = tf.function(self._fit, input_signature=[x, y, y, keep, sizes])
        self._run_step = tf.function(self._run, input_signature=[x, keep, sizes])

    def start_from(self, kernel: F32, bias: F32) -> None:
        """Start the linear way from weights of shapes (features, outputs) and (outputs,), the layers' share from 0."""
        for model in (self._model, self._average):
            model.get_layer("linear").set_weights([kernel, bias])
            head = model.get_layer("head")
            head.set_weights([np.zeros_like(weight) for weight in head.get_weights()])

    def zero_states(self, streams: int) -> list[Any]:
        """Return the states of streams that have seen nothing."""
        shape = self._shape
        return [tf.zeros((streams, shape.units))] * (shape.layers * _states_of(shape.cell))

    def fit(self, chunk: Chunk, states: Sequence[Any], learning_rate: float) -> tuple[Any, list[Any]]:
        """Make one update; return the loss (a tensor: reading it would wait) and the states after the chunk."""
        self._optimizer.learning_rate = learning_rate
        loss, *after = self._fit_step(chunk.x, chunk.y, chunk.weight, chunk.keep, list(states))
        return loss, after

    def run(self, chunk: Chunk, states: Sequence[Any]) -> tuple[F32, list[Any]]:
        """Return the average's outputs, shape (streams, ticks, outputs), and the states after the chunk."""
        y, *after = self._run_step(chunk.x, chunk.keep, list(states))
        return y.numpy(), after

    def run_from_zero(self, x: F32) -> F32:
        """Return the average's outputs for rows that are each the first of a session, shape (rows, outputs)."""
        model = self.plain_model()
        slices = [x[begin : begin + ROWS_MAX, None] for begin in range(0, len(x), ROWS_MAX)]
        return np.concatenate([model(rows, training=False).numpy()[:, 0] for rows in slices])

    def weights(self) -> list[F32]:
        """Return a copy of the average's weights."""
        return [np.array(weight) for weight in self._average.get_weights()]

    def set_weights(self, weights: Sequence[F32]) -> None:
        """Take weights back, as the average and to go on from."""
        for model in (self._model, self._average):
            model.set_weights(list(weights))

    def plain_model(self) -> Any:
        """Return the average as an ordinary `keras.Model`, one output per tick.

        It squashes to [-1, 1] instead of [-SQUASH, SQUASH]; the factor, a power of two, moves into the kernels exactly.
        """
        inputs = keras.Input((None, self._features))
        x = keras.layers.Normalization(mean=0.0, variance=SQUASH**2, name="scale")(inputs)
        x = keras.layers.Activation("tanh", name="squash")(x)
        y = x
        for number in range(self._shape.layers):
            y = _layer(self._shape, number)(y)
        y = keras.layers.Dense(len(self._outputs), name="head")(y)
        past = keras.layers.Dense(len(self._outputs), name="linear")(x)
        model = keras.Model(inputs, keras.layers.Add(name="output")([y, past]))
        for name in ("head", "linear", *(_layer_name(number) for number in range(self._shape.layers))):
            weights = self._average.get_layer(name).get_weights()
            if name in ("linear", _layer_name(0)):
                weights[0] = weights[0] * np.float32(SQUASH)
            model.get_layer(name).set_weights(weights)
        return model

    def _with_states(self) -> Any:
        shape = self._shape
        inputs = [keras.Input((self._ticks, self._features))]
        y, after = inputs[0], []
        for number in range(shape.layers):
            state = [keras.Input((shape.units,)) for _ in range(_states_of(shape.cell))]
            if number and shape.dropout:
                y = keras.layers.Dropout(shape.dropout)(y)
            options = {"return_state": True, "unroll": self._ticks <= UNROLLED_TICKS_MAX}
            y, *next_state = _layer(shape, number, **options)(y, initial_state=state)
            inputs += state
            after += next_state
        y = keras.layers.Dense(len(self._outputs), name="head")(y)
        past = keras.layers.Dense(len(self._outputs), name="linear")(inputs[0])
        return keras.Model(inputs, [keras.layers.Add()([y, past]), *after])

    def _fit(self, x: Any, y: Any, weight: Any, keep: Any, states: list[Any]) -> list[Any]:
        variables = self._model.trainable_variables
        with tf.GradientTape() as tape:
            predicted, *after = self._model([_squash(x), *(state * keep for state in states)], training=True)
            loss = tf.reduce_sum(weight * self._losses(y, predicted)) / tf.maximum(tf.reduce_sum(weight), 1.0)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), GRADIENT_NORM_MAX)
        self._optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for average, latest in zip(self._average.trainable_variables, variables, strict=True):
            average.assign(AVERAGE_KEEPS * average + (1 - AVERAGE_KEEPS) * latest)
        return [loss, *after]

    def _run(self, x: Any, keep: Any, states: list[Any]) -> list[Any]:
        return list(self._average([_squash(x), *(state * keep for state in states)], training=False))

    def _losses(self, y: Any, predicted: Any) -> Any:
        """Return the loss of each tick and horizon: of the mean, plus that of what else is said about the horizon."""
        count = y.shape[-1]
        error = y - predicted[..., :count]
        loss = _huber(error)
        for begin in range(count, len(self._outputs), count):
            of, column = self._outputs[begin], predicted[..., begin : begin + count]
            loss += _gaussian(error, column) if of == "log_variance" else _pinball(y - column, float(of))
        return loss


def _layer(shape: Shape, number: int, **options: Any) -> Any:
    kind = keras.layers.LSTM if shape.cell == "lstm" else keras.layers.GRU
    return kind(shape.units, return_sequences=True, name=_layer_name(number), **options)


def _layer_name(number: int) -> str:
    return f"layer_{number + 1}"


def _states_of(cell: str) -> int:
    return 2 if cell == "lstm" else 1


def _squash(x: Any) -> Any:
    return SQUASH * tf.tanh(x / SQUASH)


def _huber(error: Any) -> Any:
    size = tf.abs(error)
    inner = tf.minimum(size, HUBER_DELTA)
    return inner * (size - inner / 2)


def _gaussian(error: Any, log_variance: Any) -> Any:
    """Return the negative log likelihood of the variance given the mean.

    The mean has a loss of its own and no gradient from here: a joint likelihood gives up on the mean where the variance
    is large (Seitzer et al. 2022, On the pitfalls of heteroscedastic uncertainty estimation).
    """
    log_variance = tf.clip_by_value(log_variance, -LOG_VARIANCE_MAX, LOG_VARIANCE_MAX)
    return (log_variance + tf.square(tf.stop_gradient(error)) * tf.exp(-log_variance)) / 2


def _pinball(miss: Any, level: float) -> Any:
    return tf.maximum(level * miss, (level - 1) * miss)
