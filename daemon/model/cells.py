"""What recurrent layers compute: the gates of each kind, over arrays of rows and of layers on one another.

A tick's product is ``[h | 1 | x] @ [U; b; W]``: state, bias and input in one, so nothing is left to add. Every gate is
one contiguous block, and everything is written in place: a thin wave's time is that of the calls, not of their sums.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daemon.core.step import F32
from daemon.model import ops
from daemon.model.activations import ACTIVATIONS, HALF
from daemon.model.grid import TiledProduct

#: The product of a wave, and those views of it that a kind works on; making them anew takes longer than a gate.
Parts = tuple[F32, ...]


def make_cell(layers: Sequence[ops.Op], tile_rows: int) -> Cell:
    """Return the run-time form of layers that `alike` finds alike."""
    lstms = [op for op in layers if isinstance(op, ops.Lstm)]
    grus = [op for op in layers if isinstance(op, ops.Gru)]
    simple = [op for op in layers if isinstance(op, ops.SimpleRnn)]
    if grus:
        return GruCell(grus) if grus[0].reset_after else ResetFirstGruCell(grus[0], tile_rows)
    return LstmCell(lstms) if lstms else SimpleRnnCell(simple)


def alike(one: ops.Op, other: ops.Op) -> bool:
    """Tell whether two layers can be computed by the same calls."""
    if type(one) is not type(other) or one.state_widths != other.state_widths:
        return False
    if isinstance(one, ops.Gru) and not one.reset_after:
        return False  # its second product waits for its first
    names = ("activation", "recurrent_activation", "reset_after")
    return all(getattr(one, name, None) == getattr(other, name, None) for name in names)


class Cell:
    """Layers of one kind: their weights, and the gates."""

    #: Per layer, shape (blocks, units + 1 + inputs, units): for the state, for 1, for the input.
    weights: list[F32]

    def parts(self, z: F32) -> Parts:
        """Return the views of a product, shape (blocks, rows, layers, units), that `advance` works on."""
        return tuple(z)

    def advance(self, parts: Parts, before: F32, after: F32) -> F32:
        """Compute one wave from its product, which is overwritten.

        `before` and `after` hold the kept part of the state, c of an LSTM and h of the others, shape (rows, layers,
        units); `after` is written. Returns h, contiguous and of the same shape.
        """
        raise NotImplementedError


def _joined(recurrent: F32, bias: F32, kernel: F32) -> F32:
    return np.concatenate([recurrent, bias[:, np.newaxis], kernel], axis=1)


class LstmCell(Cell):
    """c' = f c + i g, h' = o act(c')."""

    def __init__(self, layers: Sequence[ops.Lstm]) -> None:
        # sigmoid(x) = tanh(x / 2) / 2 + 1/2, and halving a float is exact: with the halves in the weights one tanh
        # serves all four gates.
        op = layers[0]
        self._fused = op.activation == "tanh" and op.recurrent_activation == "sigmoid"
        halves = np.array([0.5, 0.5, 0.5, 1.0] if self._fused else [1.0] * 4, np.float32)[:, np.newaxis, np.newaxis]
        self.weights = [_joined(op.recurrent, op.bias, op.kernel) * halves for op in layers]
        self._activate = ACTIVATIONS[op.activation]
        self._gate = ACTIVATIONS[op.recurrent_activation]

    def parts(self, z: F32) -> Parts:
        return (z, z[:3], *z)

    def advance(self, parts: Parts, before: F32, after: F32) -> F32:
        z, gates, admit, forget, emit, candidate = parts
        if self._fused:
            np.tanh(z, z)
            np.multiply(gates, HALF, gates)
            np.add(gates, HALF, gates)
        else:
            self._gate(gates)
            self._activate(candidate)
        np.multiply(forget, before, after)
        np.multiply(admit, candidate, candidate)
        np.add(after, candidate, after)
        if self._fused:
            np.tanh(after, candidate)
        else:
            candidate[...] = after
            self._activate(candidate)
        np.multiply(candidate, emit, candidate)
        return candidate


class GruCell(Cell):
    """h' = z h + (1 - z) act(x + r (h U + b)), the reset gate after the product."""

    def __init__(self, layers: Sequence[ops.Gru]) -> None:
        self.weights = [self._blocks(op) for op in layers]
        self._activate = ACTIVATIONS[layers[0].activation]
        self._gate = ACTIVATIONS[layers[0].recurrent_activation]

    @staticmethod
    def _blocks(op: ops.Gru) -> F32:
        """Return four blocks: the gates z and r, and the candidate's state and input apart, as r is between them."""
        none_of_input, none_of_state = np.zeros_like(op.kernel[2:]), np.zeros_like(op.recurrent[2:])
        gates = _joined(op.recurrent[:2], op.bias[:2] + op.recurrent_bias[:2], op.kernel[:2])
        from_state = _joined(op.recurrent[2:], op.recurrent_bias[2:], none_of_input)
        return np.concatenate([gates, from_state, _joined(none_of_state, op.bias[2:], op.kernel[2:])])

    def parts(self, z: F32) -> Parts:
        return (z[:2], *z)

    def advance(self, parts: Parts, before: F32, after: F32) -> F32:
        gates, update, reset, candidate, from_input = parts
        self._gate(gates)
        np.multiply(candidate, reset, candidate)
        np.add(candidate, from_input, candidate)
        self._activate(candidate)
        return _blend(update, before, candidate, after)


class ResetFirstGruCell(Cell):
    """h' = z h + (1 - z) act(x + (r h) U), the reset gate before the product (`reset_after=False`)."""

    def __init__(self, op: ops.Gru, tile_rows: int) -> None:
        recurrent = op.recurrent.copy()
        recurrent[2] = 0
        self.weights = [_joined(recurrent, op.bias + op.recurrent_bias, op.kernel)]
        self._propose = TiledProduct(op.recurrent[2], tile_rows)
        self._activate = ACTIVATIONS[op.activation]
        self._gate = ACTIVATIONS[op.recurrent_activation]

    def parts(self, z: F32) -> Parts:
        return (z[:2], *z)

    def advance(self, parts: Parts, before: F32, after: F32) -> F32:
        gates, update, reset, candidate = parts
        self._gate(gates)
        np.multiply(reset, before, reset)
        np.add(candidate, self._propose(reset[:, 0])[:, np.newaxis], candidate)
        self._activate(candidate)
        return _blend(update, before, candidate, after)


class SimpleRnnCell(Cell):
    """h' = act(x + h U)."""

    def __init__(self, layers: Sequence[ops.SimpleRnn]) -> None:
        self.weights = [_joined(op.recurrent, op.bias, op.kernel) for op in layers]
        self._activate = ACTIVATIONS[layers[0].activation]

    def advance(self, parts: Parts, before: F32, after: F32) -> F32:
        after[...] = parts[0]
        self._activate(after)
        return after


def _blend(keep: F32, old: F32, new: F32, out: F32) -> F32:
    """Compute ``keep * old + (1 - keep) * new`` into `out`; `keep` is overwritten."""
    np.multiply(keep, old, out)
    np.subtract(np.float32(1), keep, keep)
    np.multiply(keep, new, keep)
    np.add(out, keep, out)
    return out
