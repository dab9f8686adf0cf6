"""Activation functions by their Keras names, in place on float32 arrays.

Each result depends on its own value (softmax: on its own row) only, whatever the place in the array: numpy's
elementwise loops did when measured, and `daemon.model.selftest` measures it again on the machine at hand.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from daemon.core.step import F32

#: An array without axes: a float32 scalar is converted at every use, which takes as long as a small operation.
HALF = np.array(0.5, np.float32)


def linear(x: F32) -> None:
    """Leave `x` as it is."""


def tanh(x: F32) -> None:
    np.tanh(x, out=x)


def sigmoid(x: F32) -> None:
    """Compute 1 / (1 + exp(-x)) by way of tanh, which neither overflows nor needs a branch."""
    np.multiply(x, HALF, out=x)
    np.tanh(x, out=x)
    np.multiply(x, HALF, out=x)
    np.add(x, HALF, out=x)


def relu(x: F32) -> None:
    np.maximum(x, np.float32(0), out=x)


def hard_sigmoid(x: F32) -> None:
    """Compute relu6(x + 3) / 6, as Keras 3 does."""
    np.add(x, np.float32(3), out=x)
    np.clip(x, np.float32(0), np.float32(6), out=x)
    np.divide(x, np.float32(6), out=x)


def hard_sigmoid_keras2(x: F32) -> None:
    """Compute max(0, min(1, 0.2 x + 0.5)), as Keras 2 did under the name hard_sigmoid."""
    np.multiply(x, np.float32(0.2), out=x)
    np.add(x, HALF, out=x)
    np.clip(x, np.float32(0), np.float32(1), out=x)


def elu(x: F32) -> None:
    np.copyto(x, np.expm1(x), where=x < 0)


def selu(x: F32) -> None:
    """Klambauer et al. (2017); the constants are the paper's."""
    np.copyto(x, np.float32(1.6732632423543772) * np.expm1(x), where=x < 0)
    np.multiply(x, np.float32(1.0507009873554805), out=x)


def softplus(x: F32) -> None:
    """Compute log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|)), which does not overflow."""
    tail = np.log1p(np.exp(-np.abs(x)))
    np.add(np.maximum(x, np.float32(0)), tail, out=x)


def softsign(x: F32) -> None:
    np.divide(x, np.float32(1) + np.abs(x), out=x)


def exponential(x: F32) -> None:
    np.exp(x, out=x)


def silu(x: F32) -> None:
    gate = x.copy()
    sigmoid(gate)
    np.multiply(x, gate, out=x)


def gelu(x: F32) -> None:
    """Compute x Phi(x), Phi of the standard normal by Abramowitz and Stegun (1964), 7.1.26, within 1e-7."""
    z = np.abs(x) * np.float32(0.7071067811865476)
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * z)
    tail = np.zeros_like(x)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + np.float32(factor)) * t
    tail = HALF * tail * np.exp(-z * z)
    np.multiply(x, np.where(x < 0, tail, np.float32(1) - tail), out=x)


def softmax(x: F32) -> None:
    """Normalise exp(x) over the last axis."""
    np.subtract(x, x.max(axis=-1, keepdims=True), out=x)
    np.exp(x, out=x)
    np.divide(x, x.sum(axis=-1, keepdims=True), out=x)


ACTIVATIONS: dict[str, Callable[[F32], None]] = {
    activation.__name__: activation
    for activation in (
        linear, tanh, sigmoid, relu, hard_sigmoid, hard_sigmoid_keras2, elu, selu, softplus, softsign, exponential,
        silu, gelu, softmax,
    )
}  # fmt: skip
