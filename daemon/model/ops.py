"""The operations a converted model consists of: their weights, their settings and the shapes they demand.

Plain values without behaviour at run time; `daemon.model.cells` and `daemon.model.maps` run them. Weights of gates
stand gate by gate, shape (gates, inputs, units), so that every gate is one contiguous block: LSTM in the order
i, f, o, c (Keras has i, f, c, o), GRU z, r, h as in Keras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from daemon.core.step import F32
from daemon.model.activations import ACTIVATIONS

#: Widest layer we accept: sizes come from files, and a product of two absurd ones would exhaust memory.
WIDTH_MAX = 16_384


@dataclass(frozen=True, eq=False)
class Op:
    """One operation over rows: values of shape (rows, width) in, one such value out.

    Raises ValueError from `width` where weights and inputs do not fit.
    """

    kind: ClassVar[str]

    @property
    def state_widths(self) -> tuple[int, ...]:
        """Widths of the tensors carried from tick to tick; none for most."""
        return ()

    def width(self, widths: Sequence[int]) -> int:
        """Check the weights against the widths of the inputs and return the width of the output."""
        raise NotImplementedError

    def _expect(self, **shapes: tuple[int, ...]) -> None:
        for name, shape in shapes.items():
            found = getattr(self, name).shape
            if found != shape:
                raise ValueError(f"{self.kind}: {name} has shape {found}, expected {shape}")

    def _check_settings(self) -> None:
        for field in fields(self):
            name = getattr(self, field.name)
            if field.name.endswith("activation") and name not in ACTIVATIONS:
                raise ValueError(f"{self.kind}: no activation named {name!r}")


def _one(widths: Sequence[int]) -> int:
    if len(widths) != 1:
        raise ValueError(f"one input expected, found {len(widths)}")
    return widths[0]


@dataclass(frozen=True, eq=False)
class Lstm(Op):
    """Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000); state h, then c."""

    kind: ClassVar[str] = "lstm"

    #: shapes (4, inputs, units), (4, units, units), (4, units); gates i, f, o, c.
    kernel: F32
    recurrent: F32
    bias: F32
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"

    @property
    def state_widths(self) -> tuple[int, ...]:
        return (self.recurrent.shape[-1],) * 2

    def width(self, widths: Sequence[int]) -> int:
        units = int(self.recurrent.shape[-1])
        self._expect(kernel=(4, _one(widths), units), recurrent=(4, units, units), bias=(4, units))
        self._check_settings()
        return units


@dataclass(frozen=True, eq=False)
class Gru(Op):
    """Cho et al. (2014); with `reset_after` the reset gate acts on the product instead of the state."""

    kind: ClassVar[str] = "gru"

    #: shapes (3, inputs, units), (3, units, units), (3, units), (3, units); gates z, r, h.
    kernel: F32
    recurrent: F32
    bias: F32
    recurrent_bias: F32
    activation: str = "tanh"
    recurrent_activation: str = "sigmoid"
    reset_after: bool = True

    @property
    def state_widths(self) -> tuple[int, ...]:
        return (self.recurrent.shape[-1],)

    def width(self, widths: Sequence[int]) -> int:
        units = int(self.recurrent.shape[-1])
        self._expect(kernel=(3, _one(widths), units), recurrent=(3, units, units))
        self._expect(bias=(3, units), recurrent_bias=(3, units))
        self._check_settings()
        return units


@dataclass(frozen=True, eq=False)
class SimpleRnn(Op):
    """Elman (1990): the output is the next state."""

    kind: ClassVar[str] = "simple_rnn"

    #: shapes (1, inputs, units), (1, units, units), (1, units).
    kernel: F32
    recurrent: F32
    bias: F32
    activation: str = "tanh"

    @property
    def state_widths(self) -> tuple[int, ...]:
        return (self.recurrent.shape[-1],)

    def width(self, widths: Sequence[int]) -> int:
        units = int(self.recurrent.shape[-1])
        self._expect(kernel=(1, _one(widths), units), recurrent=(1, units, units), bias=(1, units))
        self._check_settings()
        return units


@dataclass(frozen=True, eq=False)
class Dense(Op):
    """Affine map and activation."""

    kind: ClassVar[str] = "dense"

    #: shapes (inputs, outputs) and (outputs,).
    kernel: F32
    bias: F32
    activation: str = "linear"

    def width(self, widths: Sequence[int]) -> int:
        outputs = int(self.bias.shape[-1])
        self._expect(kernel=(_one(widths), outputs), bias=(outputs,))
        self._check_settings()
        return outputs


@dataclass(frozen=True, eq=False)
class Rescale(Op):
    """``(x - offset) * factor + shift`` per column: Normalization, and BatchNormalization with frozen statistics.

    The subtraction stays first: folded into `shift` it would cancel digits where offsets are large.
    """

    kind: ClassVar[str] = "rescale"

    #: shape (inputs,) each.
    offset: F32
    factor: F32
    shift: F32

    def width(self, widths: Sequence[int]) -> int:
        inputs = _one(widths)
        self._expect(offset=(inputs,), factor=(inputs,), shift=(inputs,))
        return inputs


@dataclass(frozen=True, eq=False)
class LayerNorm(Op):
    """Ba et al. (2016): each row to mean 0 and variance 1 over its columns, then gamma and beta."""

    kind: ClassVar[str] = "layer_norm"

    #: shape (inputs,) each.
    gamma: F32
    beta: F32
    epsilon: float = 1e-3

    def width(self, widths: Sequence[int]) -> int:
        inputs = _one(widths)
        self._expect(gamma=(inputs,), beta=(inputs,))
        if not self.epsilon > 0:
            raise ValueError(f"layer_norm: epsilon must be above 0, found {self.epsilon}")
        return inputs


@dataclass(frozen=True, eq=False)
class Activation(Op):
    """An activation on its own."""

    kind: ClassVar[str] = "activation"

    activation: str

    def width(self, widths: Sequence[int]) -> int:
        self._check_settings()
        return _one(widths)


@dataclass(frozen=True, eq=False)
class Leaky(Op):
    """Values below zero times a slope per column: LeakyReLU, and PReLU of slopes shared by all times."""

    kind: ClassVar[str] = "leaky"

    #: shape (inputs,).
    slope: F32

    def width(self, widths: Sequence[int]) -> int:
        inputs = _one(widths)
        self._expect(slope=(inputs,))
        return inputs


@dataclass(frozen=True, eq=False)
class Columns(Op):
    """Columns `low` to `high`, the upper end excluded: one input of a model of several."""

    kind: ClassVar[str] = "columns"

    low: int = 0
    high: int = 1

    def width(self, widths: Sequence[int]) -> int:
        if not 0 <= self.low < self.high <= _one(widths):
            raise ValueError(f"columns {self.low} to {self.high} of {widths[0]}")
        return self.high - self.low


@dataclass(frozen=True, eq=False)
class Concatenate(Op):
    """Inputs side by side."""

    kind: ClassVar[str] = "concatenate"

    def width(self, widths: Sequence[int]) -> int:
        return sum(widths)


@dataclass(frozen=True, eq=False)
class Add(Op):
    """Sum of inputs, left to right."""

    kind: ClassVar[str] = "add"

    def width(self, widths: Sequence[int]) -> int:
        return _same(widths)


@dataclass(frozen=True, eq=False)
class Multiply(Op):
    """Product of inputs, left to right."""

    kind: ClassVar[str] = "multiply"

    def width(self, widths: Sequence[int]) -> int:
        return _same(widths)


def _same(widths: Sequence[int]) -> int:
    if len(set(widths)) != 1:
        raise ValueError(f"inputs of one width expected, found {list(widths)}")
    return widths[0]


OPS: dict[str, type[Op]] = {
    op.kind: op
    for op in (
        Lstm, Gru, SimpleRnn, Dense, Rescale, LayerNorm, Activation, Leaky, Columns, Concatenate, Add, Multiply,
    )
}  # fmt: skip


def weight_names(op: type[Op]) -> tuple[str, ...]:
    """Return the fields of an operation that are arrays."""
    return tuple(field.name for field in fields(op) if field.type == "F32")


def zeros(*shape: int) -> F32:
    """Return float32 zeros; for layers without a bias."""
    return np.zeros(shape, np.float32)
