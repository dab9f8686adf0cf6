"""What operations without state do at run time: values of all rows in, values of all rows out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from daemon.core.step import F32
from daemon.model import ops
from daemon.model.activations import ACTIVATIONS
from daemon.model.grid import TiledProduct

Map = Callable[[Sequence[F32]], F32]


def make_map(op: ops.Op, tile_rows: int) -> Map:
    """Return the run-time form of an operation without state: inputs of shape (rows, width) to such an output."""
    match op:
        case ops.Dense():
            return _dense(op, tile_rows)
        case ops.Rescale():
            return lambda values: (values[0] - op.offset) * op.factor + op.shift
        case ops.LayerNorm():
            return _layer_norm(op)
        case ops.Activation():
            return _activation(op.activation)
        case ops.Leaky():
            return lambda values: np.maximum(values[0], 0) + op.slope * np.minimum(values[0], 0)
        case ops.Columns():
            return lambda values: np.ascontiguousarray(values[0][:, op.low : op.high])
        case ops.Concatenate():
            return lambda values: np.concatenate(values, axis=1)
        case ops.Add():
            return lambda values: _fold(np.add, values)
        case ops.Multiply():
            return lambda values: _fold(np.multiply, values)
    raise AssertionError(f"no kernel for {op.kind}")


def _dense(op: ops.Dense, tile_rows: int) -> Map:
    product = TiledProduct(op.kernel, tile_rows)
    activate = ACTIVATIONS[op.activation]

    def dense(values: Sequence[F32]) -> F32:
        y = product(values[0])
        np.add(y, op.bias, out=y)
        activate(y)
        return y

    return dense


def _layer_norm(op: ops.LayerNorm) -> Map:
    def layer_norm(values: Sequence[F32]) -> F32:
        centred = values[0] - values[0].mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        normal: F32 = centred / np.sqrt(variance + np.float32(op.epsilon))
        return normal * op.gamma + op.beta

    return layer_norm


def _activation(name: str) -> Map:
    activate = ACTIVATIONS[name]

    def activation(values: Sequence[F32]) -> F32:
        y = values[0].copy()
        activate(y)
        return y

    return activation


def _fold(operation: np.ufunc, values: Sequence[F32]) -> F32:
    y = values[0].copy()
    for value in values[1:]:
        operation(y, value, out=y)
    return y
