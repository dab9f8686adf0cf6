"""Keras layers as operations of the numpy step: their weights, gate by gate, and their settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from daemon.core.step import F32
from daemon.model import ops
from daemon.model.activations import ACTIVATIONS

#: Layers that do nothing outside training, or nothing to a value without a time dimension.
PASSING = frozenset({
    "ActivityRegularization", "AlphaDropout", "Dropout", "Flatten", "GaussianDropout", "GaussianNoise", "Identity",
    "InputLayer", "SpatialDropout1D",
})  # fmt: skip

#: Where classes and functions come from that are what their names say.
_HOMES = ("keras.src.", "daemon.model.keras")

#: Keras stores the gates of an LSTM as i, f, c, o.
_LSTM_ORDER = [0, 1, 3, 2]


def is_passing(layer: Any) -> bool:
    """Tell whether the layer's output at inference is its input."""
    return _kind(layer) in PASSING


def cells_of(cell: Any) -> list[Any]:
    """Return the cells that a recurrent layer runs one after the other."""
    return list(cell.cells) if _kind(cell) == "StackedRNNCells" else [cell]


def cell_op(cell: Any) -> ops.Op | None:
    """Return the operation of a recurrent cell, or None where numpy has none."""
    make = CELLS.get(_kind(cell))
    return make(cell) if make else None


def layer_op(layer: Any, width: int) -> ops.Op | None:
    """Return the operation of a layer without state over `width` columns, or None where numpy has none."""
    make = LAYERS.get(_kind(layer))
    return make(layer, width) if make else None


def _lstm(cell: Any) -> ops.Lstm | None:
    activation, gate = _activation(cell.activation), _activation(cell.recurrent_activation)
    if activation is None or gate is None:
        return None
    kernel, recurrent = _gates(cell.kernel, 4), _gates(cell.recurrent_kernel, 4)
    bias = ops.zeros(4, cell.units) if cell.bias is None else _weight(cell.bias).reshape(4, cell.units)
    return ops.Lstm(kernel[_LSTM_ORDER], recurrent[_LSTM_ORDER], bias[_LSTM_ORDER], activation, gate)


def _gru(cell: Any) -> ops.Gru | None:
    activation, gate = _activation(cell.activation), _activation(cell.recurrent_activation)
    if activation is None or gate is None:
        return None
    bias = ops.zeros(2, 3, cell.units)
    if cell.bias is not None:
        # One bias with the reset gate before the product, two with the gate after it.
        given = _weight(cell.bias).reshape(-1, 3, cell.units)
        bias[: len(given)] = given
    kernel, recurrent = _gates(cell.kernel, 3), _gates(cell.recurrent_kernel, 3)
    return ops.Gru(kernel, recurrent, bias[0], bias[1], activation, gate, bool(cell.reset_after))


def _simple_rnn(cell: Any) -> ops.SimpleRnn | None:
    activation = _activation(cell.activation)
    if activation is None:
        return None
    bias = ops.zeros(1, cell.units) if cell.bias is None else _weight(cell.bias).reshape(1, -1)
    return ops.SimpleRnn(_gates(cell.kernel, 1), _gates(cell.recurrent_kernel, 1), bias, activation)


def _dense(layer: Any, _: int) -> ops.Dense | None:
    activation = _activation(layer.activation)
    if activation is None:
        return None
    bias = ops.zeros(layer.units) if layer.bias is None else _weight(layer.bias)
    return ops.Dense(_weight(layer.kernel), bias, activation)


def _activation_layer(layer: Any, _: int) -> ops.Activation | None:
    name = _activation(layer.activation)
    return ops.Activation(name) if name else None


def _elu(layer: Any, _: int) -> ops.Activation | None:
    return ops.Activation("elu") if layer.alpha == 1 else None


def _relu(layer: Any, width: int) -> ops.Op | None:
    if layer.max_value is not None or layer.threshold != 0:
        return None
    return _leaky_relu(layer, width) if layer.negative_slope else ops.Activation("relu")


def _leaky_relu(layer: Any, width: int) -> ops.Leaky:
    return ops.Leaky(_columns(layer.negative_slope, width))


def _prelu(layer: Any, width: int) -> ops.Leaky | None:
    """Take slopes per column, or one for all; those that differ from tick to tick cannot stream."""
    return ops.Leaky(_columns(layer.alpha, width)) if _weight(layer.alpha).size in (1, width) else None


def _rescaling(layer: Any, width: int) -> ops.Rescale:
    return ops.Rescale(ops.zeros(width), _columns(layer.scale, width), _columns(layer.offset, width))


def _normalization(layer: Any, width: int) -> ops.Rescale:
    mean = _columns(layer.mean, width)
    # Keras' own guard against constant columns.
    deviation: F32 = np.maximum(np.sqrt(_columns(layer.variance, width)), np.float32(1e-7))
    if layer.invert:
        return ops.Rescale(ops.zeros(width), deviation, mean)
    return ops.Rescale(mean, np.float32(1) / deviation, ops.zeros(width))


def _batch_normalization(layer: Any, width: int) -> ops.Rescale:
    deviation = np.sqrt(_weight(layer.moving_variance) + np.float32(layer.epsilon))
    gamma, beta = _scale_and_shift(layer, width)
    return ops.Rescale(_weight(layer.moving_mean), gamma / deviation, beta)


def _layer_normalization(layer: Any, width: int) -> ops.LayerNorm | None:
    if layer.rms_scaling:
        return None
    return ops.LayerNorm(*_scale_and_shift(layer, width), float(layer.epsilon))


def _scale_and_shift(layer: Any, width: int) -> tuple[F32, F32]:
    gamma = np.ones(width, np.float32) if layer.gamma is None else _weight(layer.gamma)
    return gamma, ops.zeros(width) if layer.beta is None else _weight(layer.beta)


def _columns(value: Any, width: int) -> F32:
    """Return statistics as one number per column; Keras keeps them in the rank of the input, or as one for all."""
    return np.broadcast_to(np.asarray(value, np.float32).reshape(-1), (width,)).copy()


def _gates(weight: Any, gates: int) -> F32:
    """Cut a matrix of shape (inputs, gates * units) into shape (gates, inputs, units)."""
    matrix = _weight(weight)
    return np.ascontiguousarray(matrix.reshape(len(matrix), gates, -1).transpose(1, 0, 2))


def _weight(variable: Any) -> F32:
    return np.array(np.asarray(variable), np.float32)


def _activation(function: Any) -> str | None:
    name = getattr(function, "__name__", "")
    ours = name in ACTIVATIONS and function.__module__.startswith(_HOMES)
    return name if ours else None


def _kind(layer: Any) -> str:
    """Return the class name of one of Keras' own classes, or ours; a stranger may bear the same name."""
    kind = type(layer)
    return kind.__name__ if kind.__module__.startswith(_HOMES) else ""


CELLS: dict[str, Callable[[Any], ops.Op | None]] = {"LSTMCell": _lstm, "GRUCell": _gru, "SimpleRNNCell": _simple_rnn}
#: Layers without state by class name; each takes the layer and the width of its input.
LAYERS: dict[str, Callable[[Any, int], ops.Op | None]] = {
    "Dense": _dense,
    "Activation": _activation_layer,
    "ReLU": _relu,
    "LeakyReLU": _leaky_relu,
    "PReLU": _prelu,
    "ELU": _elu,
    "Softmax": lambda layer, width: ops.Activation("softmax"),
    "Normalization": _normalization,
    "Rescaling": _rescaling,
    "BatchNormalization": _batch_normalization,
    "LayerNormalization": _layer_normalization,
    "Columns": lambda layer, width: ops.Columns(layer.low, layer.high),
    "Concatenate": lambda layer, width: ops.Concatenate(),
    "Add": lambda layer, width: ops.Add(),
    "Multiply": lambda layer, width: ops.Multiply(),
}
