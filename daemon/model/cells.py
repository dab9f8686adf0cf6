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
    """Buffers for waves of up to so many tiles, and the views of them that a wave of a given number of tiles uses."""

    def __init__(self, state_widths: Sequence[int], gates: int, tiles_max: int, tile_rows: int) -> None:
        self.tiles_max = tiles_max
        units = state_widths[0]
        self._before = [np.empty((tiles_max, tile_rows, width), np.float32) for width in state_widths]
        self._product = np.empty(tiles_max * gates * tile_rows * units, np.float32)
        self._shape = (gates, -1, tile_rows, units)
        self._views: dict[int, WaveViews] = {}

    def views(self, tiles: int) -> WaveViews:
        """Return the views for a wave of so many tiles; making them takes longer than a thin wave's product."""
        views = self._views.get(tiles)
        if views is None:
            used = tiles * len(self._product) // self.tiles_max
            z = self._product[:used].reshape(self._shape)
            views = self._views[tiles] = WaveViews([before[:tiles] for before in self._before], z)
        return views


class WaveViews:
    """What one wave works on."""

    def __init__(self, states: Sequence[F32], z: F32) -> None:
        #: The states the wave starts from, shapes (tiles, tile_rows, width) and (tiles * tile_rows, width).
        self.states = states
        self.rows = [state.reshape(-1, state.shape[-1]) for state in states]
        #: The hidden state as the product takes it, and as the product leaves its result.
        self.left = states[0][:, np.newaxis]
        self.result = z.swapaxes(0, 1)
        #: The product, shape (gates, tiles, tile_rows, units), gate by gate in memory; and all gates but the last.
        self.z = z
        self.gates = z[:-1]


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
        self._workspace = Workspace(state_widths, len(recurrent), 1, tile_rows)

    def scan(self, x: F32, starts: Sequence[F32], grid: Grid) -> Sequence[F32]:
        """Run every wave in turn and return the state tensors, rows numbered as in `Grid`.

        They stand in buffers that the next scan overwrites.
        """
        self._reserve(grid)
        for state, start in zip(self._states, starts, strict=True):
            state[1 : grid.chains + 1] = start
        product = self._project(x)
        np.add(product, self._bias, out=product)
        projected = product.swapaxes(0, 1)
        after = [state[grid.after].reshape(-1, self._tile_rows, state.shape[1]) for state in self._states]
        for low, high, source in grid.waves:
            work = self._workspace.views(high - low)
            for state, rows in zip(self._states, work.rows, strict=True):
                # Without a mode other than "raise", take would go by way of a copy of its own.
                state.take(source, 0, rows, "clip")
            self._recur.into(work.left, work.result)
            self._advance(work, projected[:, low:high], [state[low:high] for state in after])
        return self._states

    def _reserve(self, grid: Grid) -> None:
        needed = grid.first_slot + grid.slots
        if needed > len(self._states[0]):
            self._states = [np.zeros((needed, width), np.float32) for width in self.state_widths]
        widest = max((high - low for low, high, _ in grid.waves), default=0)
        if widest > self._workspace.tiles_max:
            self._workspace = Workspace(self.state_widths, self._recur.gates, widest, self._tile_rows)

    def _advance(self, work: WaveViews, projected: F32, after: Sequence[F32]) -> None:
        """Compute the next states of one wave into `after`, arrays of shape (tiles, tile_rows, width).

        `work.states` holds the states before, `work.z` the product of the first of them, free to be overwritten, and
        `projected` the input's part, of the same shape.
        """
        raise NotImplementedError


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

    def _advance(self, work: WaveViews, projected: F32, after: Sequence[F32]) -> None:
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
        self._recurrent_bias = op.recurrent_bias[:, np.newaxis, np.newaxis]
        self._activate = ACTIVATIONS[op.activation]
        self._gate = ACTIVATIONS[op.recurrent_activation]

    def _advance(self, work: WaveViews, projected: F32, after: Sequence[F32]) -> None:
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

    def _advance(self, work: WaveViews, projected: F32, after: Sequence[F32]) -> None:
        np.add(work.z, projected[:2], out=work.z)
        self._gate(work.z)
        update, reset = work.z
        np.multiply(reset, work.states[0], out=reset)
        candidate = self._propose(reset.reshape(-1, reset.shape[-1]))[:, 0]
        np.add(candidate, projected[2], out=candidate)
        self._activate(candidate)
        _blend(update, work.states[0], candidate, after[0])


class SimpleRnnCell(Cell):
    """h' = act(x + h U)."""

    def __init__(self, op: ops.SimpleRnn, tile_rows: int) -> None:
        super().__init__(op.kernel, op.recurrent, op.bias, op.state_widths, tile_rows)
        self._activate = ACTIVATIONS[op.activation]

    def _advance(self, work: WaveViews, projected: F32, after: Sequence[F32]) -> None:
        np.add(work.z[0], projected[0], out=after[0])
        self._activate(after[0])


def _blend(keep: F32, old: F32, new: F32, out: F32) -> None:
    """Compute ``keep * old + (1 - keep) * new``; `keep` is overwritten."""
    np.multiply(keep, old, out=out)
    np.subtract(np.float32(1), keep, out=keep)
    np.multiply(keep, new, out=keep)
    np.add(out, keep, out=out)
