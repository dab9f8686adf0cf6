"""What recurrent operations do at run time, on rows laid out by `daemon.model.grid`.

A cell projects its input for all slots at once and then goes wave by wave: gather the states, one product, the gates.
A thin wave's time is that of about a dozen numpy calls on small arrays, so states and gates lie in contiguous blocks
and every view that a wave needs is made once for its number of tiles, then kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daemon.core.step import F32
from daemon.model import ops
from daemon.model.activations import ACTIVATIONS, HALF
from daemon.model.grid import Grid, TiledProduct


def make_cell(op: ops.Op, tile_rows: int) -> Cell:
    """Return the run-time form of a recurrent operation."""
    match op:
        case ops.Lstm():
            return LstmCell(op, tile_rows)
        case ops.Gru():
            return GruCell(op, tile_rows) if op.reset_after else ResetFirstGruCell(op, tile_rows)
        case ops.SimpleRnn():
            return SimpleRnnCell(op, tile_rows)
    raise AssertionError(f"no cell for {op.kind}")


class Workspace:
    """Buffers for waves of one number of tiles, and the views of them that every such wave uses."""

    def __init__(self, product: TiledProduct, state_widths: Sequence[int], tiles: int, tile_rows: int) -> None:
        #: The states a wave starts from, shapes (tiles * tile_rows, width) and the same as (tiles, tile_rows, width).
        self.rows = [np.empty((tiles * tile_rows, width), np.float32) for width in state_widths]
        self.states = [rows.reshape(tiles, tile_rows, -1) for rows in self.rows]
        #: The hidden state as the product takes it; the product, shape (gates, tiles, tile_rows, units), gate by gate
        #: in memory whatever the number of tiles, and the same as the product fills it.
        self.left = product.tiled(self.rows[0])
        self.z = np.empty((product.gates, tiles, tile_rows, product.units), np.float32)
        self.result = self.z.swapaxes(0, 1)
        #: All gates but the last.
        self.gates = self.z[:-1]


class Cell:
    """The recurrent part of one layer: scans all waves of a batch, keeping the state after every slot."""

    def __init__(self, kernel: F32, recurrent: F32, bias: F32, state_widths: Sequence[int], tile_rows: int) -> None:
        self._tile_rows = tile_rows
        self._project = TiledProduct(kernel, tile_rows)
        self._recur = TiledProduct(recurrent, tile_rows)
        self._bias = bias[:, np.newaxis]
        self.state_widths = tuple(state_widths)
        #: One buffer per state tensor, rows numbered as in `Grid`; reused by every scan, row 0 stays zero.
        self._states = [np.zeros((0, width), np.float32) for width in state_widths]
        #: By number of tiles.
        self._workspaces: dict[int, Workspace] = {}

    def scan(self, x: F32, starts: Sequence[F32], grid: Grid) -> Sequence[F32]:
        """Run every wave in turn and return the state tensors, rows numbered as in `Grid`.

        They stand in buffers that the next scan overwrites.
        """
        needed = grid.first_slot + grid.slots
        if needed > len(self._states[0]):
            self._states = [np.zeros((needed, width), np.float32) for width in self.state_widths]
        for state, start in zip(self._states, starts, strict=True):
            state[1 : grid.chains + 1] = start
        product = self._project(x)
        np.add(product, self._bias, out=product)
        projected = product.swapaxes(0, 1)
        after = [state[grid.after].reshape(-1, self._tile_rows, state.shape[1]) for state in self._states]
        for low, high, source in grid.waves:
            work = self._workspaces.get(high - low) or self._workspace(high - low)
            for state, rows in zip(self._states, work.rows, strict=True):
                # Without a mode other than "raise", take would go by way of a copy of its own.
                state.take(source, 0, rows, "clip")
            self._recur.into(work.left, work.result)
            self._advance(work, projected[:, low:high], [state[low:high] for state in after])
        return self._states

    def _advance(self, work: Workspace, projected: F32, after: Sequence[F32]) -> None:
        """Compute the next states of one wave into `after`, arrays of shape (tiles, tile_rows, width).

        `work.states` holds the states before, `work.z` the product of the first of them, free to be overwritten;
        `projected` has the shape of z.
        """
        raise NotImplementedError

    def _workspace(self, tiles: int) -> Workspace:
        work = Workspace(self._recur, self.state_widths, tiles, self._tile_rows)
        self._workspaces[tiles] = work
        return work


class LstmCell(Cell):
    """c' = f c + i g, h' = o act(c')."""

    def __init__(self, op: ops.Lstm, tile_rows: int) -> None:
        # sigmoid(x) = tanh(x / 2) / 2 + 1/2, and halving a float is exact: with the halves in the weights one tanh
        # serves all four gates.
        self._fused = op.activation == "tanh" and op.recurrent_activation == "sigmoid"
        halves = np.array([0.5, 0.5, 0.5, 1.0] if self._fused else [1.0] * 4, np.float32)
        blocks = halves[:, np.newaxis, np.newaxis]
        bias = op.bias * halves[:, np.newaxis]
        super().__init__(op.kernel * blocks, op.recurrent * blocks, bias, op.state_widths, tile_rows)
        self._activate = ACTIVATIONS[op.activation]
        self._gate = ACTIVATIONS[op.recurrent_activation]

    def _advance(self, work: Workspace, projected: F32, after: Sequence[F32]) -> None:
        np.add(work.z, projected, out=work.z)
        admit, forget, emit, candidate = work.z
        h, c = after
        if self._fused:
            np.tanh(work.z, out=work.z)
            np.multiply(work.gates, HALF, out=work.gates)
            np.add(work.gates, HALF, out=work.gates)
        else:
            self._gate(work.gates)
            self._activate(candidate)
        np.multiply(forget, work.states[1], out=c)
        np.multiply(admit, candidate, out=candidate)
        np.add(c, candidate, out=c)
        if self._fused:
            np.tanh(c, out=h)
        else:
            h[...] = c
            self._activate(h)
        np.multiply(h, emit, out=h)


class GruCell(Cell):
    """h' = z h + (1 - z) act(x + r (h U + b)), the reset gate after the product."""

    def __init__(self, op: ops.Gru, tile_rows: int) -> None:
        super().__init__(op.kernel, op.recurrent, op.bias, op.state_widths, tile_rows)
        self._recurrent_bias = op.recurrent_bias[:, np.newaxis]
        self._activate = ACTIVATIONS[op.activation]
        self._gate = ACTIVATIONS[op.recurrent_activation]

    def _advance(self, work: Workspace, projected: F32, after: Sequence[F32]) -> None:
        np.add(work.z, self._recurrent_bias, out=work.z)
        np.add(work.gates, projected[:2], out=work.gates)
        self._gate(work.gates)
        update, reset, candidate = work.z
        np.multiply(candidate, reset, out=candidate)
        np.add(candidate, projected[2], out=candidate)
        self._activate(candidate)
        _blend(update, work.states[0], candidate, after[0])


class ResetFirstGruCell(Cell):
    """h' = z h + (1 - z) act(x + (r h) U), the reset gate before the product (`reset_after=False`)."""

    def __init__(self, op: ops.Gru, tile_rows: int) -> None:
        super().__init__(op.kernel, op.recurrent[:2], op.bias + op.recurrent_bias, op.state_widths, tile_rows)
        self._propose = TiledProduct(op.recurrent[2:], tile_rows)
        self._activate = ACTIVATIONS[op.activation]
        self._gate = ACTIVATIONS[op.recurrent_activation]

    def _advance(self, work: Workspace, projected: F32, after: Sequence[F32]) -> None:
        np.add(work.z, projected[:2], out=work.z)
        self._gate(work.z)
        update, reset = work.z
        np.multiply(reset, work.states[0], out=reset)
        candidate = self._propose(reset)[:, 0]
        np.add(candidate, projected[2], out=candidate)
        self._activate(candidate)
        _blend(update, work.states[0], candidate, after[0])


class SimpleRnnCell(Cell):
    """h' = act(x + h U)."""

    def __init__(self, op: ops.SimpleRnn, tile_rows: int) -> None:
        super().__init__(op.kernel, op.recurrent, op.bias, op.state_widths, tile_rows)
        self._activate = ACTIVATIONS[op.activation]

    def _advance(self, work: Workspace, projected: F32, after: Sequence[F32]) -> None:
        np.add(work.z[0], projected[0], out=after[0])
        self._activate(after[0])


def _blend(keep: F32, old: F32, new: F32, out: F32) -> None:
    """Compute ``keep * old + (1 - keep) * new``; `keep` is overwritten."""
    np.multiply(keep, old, out=out)
    np.subtract(np.float32(1), keep, out=keep)
    np.multiply(keep, new, out=keep)
    np.add(out, keep, out=out)
