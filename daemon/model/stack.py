"""Recurrent layers on one another, run wave by wave.

Layer l can take wave w as soon as the layer below has. So at turn t every layer l is at wave t - l, and one call of
numpy serves all layers: half of the calls of two layers, where waves are thin and calls are what they cost.

The board holds what a turn multiplies, in rows of ``h of the top layer | 1 | ... | h of the bottom layer | 1 | x``. The
window of a layer, its own state, 1 and its input, is one run of columns: where the layer below writes its h is where
the layer above reads its input. `daemon.model.front` says which rows a turn reads and writes.
"""

from __future__ import annotations

from itertools import takewhile
from math import isfinite, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32, Waves
from daemon.model.cells import Cell, Parts
from daemon.model.front import TOGETHER, Front, Run
from daemon.model.grid import tiles_of

#: Most layers of a stack: start states stand on the board once for every layer.
LAYERS_MAX = 8
#: Fewer rows than a tile's that are tried, and in how many tiles. One alone is another function of BLAS.
THIN = (4, 2)
TRIED = 8


class Work(NamedTuple):
    """What one turn of so many tiles and layers writes its product to."""

    #: Per layer, as the product leaves it: shape (tiles, blocks, rows of a tile at work, units).
    products: list[F32]
    parts: Parts


class Stack:
    """Layers of one kind; buffers are reused from scan to scan, and results are never views of them."""

    def __init__(self, cell: Cell, tensors: int, tile_rows: int) -> None:
        self._cell = cell
        self._tensors = tensors
        self._tile_rows = tile_rows
        self._layers = len(cell.weights)
        self._blocks, _, self._units = cell.weights[0].shape
        #: Floats of one row's state: for each layer h, then what else it carries.
        self.state_size = self._layers * tensors * self._units
        #: Fewer rows than a tile's that a thin wave may take, the most first: those that give the bits of whole tiles.
        self._thin = list(takewhile(self._agrees, (rows for rows in THIN if rows < tile_rows)))
        self._works: dict[tuple[int, int], Work] = {}
        self._product = np.empty(TOGETHER * self._blocks * tile_rows * self._units, np.float32)
        self._reserve(0)

    def _reserve(self, rows: int) -> None:
        layers, units = self._layers, self._units
        stride, inputs = units + 1, self._cell.weights[0].shape[1] - units - 1
        board = np.zeros((rows, layers * stride + inputs), np.float32)
        own = board[:, : layers * stride].reshape(rows, layers, stride)[:, ::-1]
        own[:, :, units] = 1
        #: The hidden states on the board, shape (rows, layers, units); the inputs, shape (rows, inputs).
        self._hidden = own[:, :, :units]
        self._inputs = board[:, layers * stride :]
        #: Per layer its window of the board, shape (rows, units + 1 + inputs).
        self._windows = []
        for layer, weights in enumerate(self._cell.weights):
            low = (layers - 1 - layer) * stride
            self._windows.append(board[:, low : low + weights.shape[1]])
        #: The kept part of the states, in the rows of the board, shape (rows, layers, units).
        self._kept = np.zeros((rows, layers, units), np.float32)

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[list[F32], F32, NDArray[np.bool_]]:
        """Run every wave; `x` and `start` are not modified.

        Parameters
        ----------
        x : float32 array, shape (rows, inputs), rows in wave order, at least one
        start : float32 array, shape (chains, state_size)

        Returns
        -------
        hidden : per layer, float32 array, shape (rows, units)
        final : float32 array, shape (ends, state_size): the states after the rows that `waves.final` names
        finite : bool array, shape (rows,): whether the state after each row is
        """
        front = Front(waves, self._layers, self._tile_rows, self._thin)
        if front.rows > len(self._kept):
            self._reserve(front.rows)
        start = start.reshape(len(start), self._layers, self._tensors, self._units)
        self._place(x, start, front)
        for run in front.runs():
            self._run(run)
        final = np.empty((len(waves.final), *start.shape[1:]), np.float32)
        hidden, finite = [], np.ones(len(x), np.bool_)
        for layer in range(self._layers):
            after = front.after(layer)
            for tensor, states in ((-1, self._kept), (0, self._hidden)):
                own = states[after, layer]
                final[:, layer, tensor] = own[waves.final]
                if not isfinite(own.sum()):  # quick, but finite values can overflow in it
                    finite &= np.isfinite(own).all(axis=1)
            hidden.append(own)
        return hidden, final.reshape(len(final), -1), finite

    def _place(self, x: F32, start: F32, front: Front) -> None:
        # Slots without a row keep what an earlier scan left there: no row asks for it.
        self._inputs[front.before(0)] = x
        for layer in range(self._layers):
            low = front.start(layer)
            chains = slice(low, low + len(start))
            self._hidden[chains, layer], self._kept[chains, layer] = start[:, layer, 0], start[:, layer, -1]

    def _run(self, run: Run) -> None:
        work = self._work(run.rows, run.last - run.first)
        weights, advance = self._cell.weights[run.first : run.last], self._cell.advance
        windows = [self._times(board, run, run.source) for board in self._windows[run.first : run.last]]
        windows = [w.reshape(run.times, -1, 1, min(run.rows, self._tile_rows), w.shape[-1]) for w in windows]
        kept, hidden = self._kept[:, run.first : run.last], self._hidden[:, run.first : run.last]
        # Walking along arrays is the quickest way to all these views, and map the quickest loop.
        for before, after, ahead, lefts in zip(
            self._times(kept, run, run.source),
            self._times(kept, run, run.target),
            self._times(hidden, run, run.target),
            zip(*windows, strict=True),
            strict=True,
        ):
            list(map(np.matmul, lefts, weights, work.products))
            ahead[...] = advance(work.parts, before, after)

    def _times(self, values: F32, run: Run, tile: int) -> F32:
        """Return the view of what a run works on from a tile on, one entry for each time.

        `values` has the rows of the board.
        """
        rows = tiles_of(run.rows, self._tile_rows) * self._tile_rows
        part = values[tile * self._tile_rows :][: run.times * rows]
        return part.reshape(run.times, rows, *values.shape[1:])[:, : run.rows]

    def _work(self, rows: int, layers: int) -> Work:
        work = self._works.get((rows, layers))
        if work is None:
            shape = (self._blocks, rows, layers, self._units)
            z = self._product[: prod(shape)].reshape(shape)
            tiled = z.reshape(self._blocks, -1, min(rows, self._tile_rows), layers, self._units)
            products = [tiled[:, :, :, layer].swapaxes(0, 1) for layer in range(layers)]
            work = self._works[rows, layers] = Work(products, self._cell.parts(z))
        return work

    def _agrees(self, rows: int) -> bool:
        """Tell whether products of so many rows give the bits of whole tiles; the self-test proves it anew."""
        draw = np.random.default_rng(0)
        for weight in self._cell.weights:
            tiles = draw.standard_normal((TRIED, self._tile_rows, weight.shape[1])).astype(np.float32)
            whole, parts = tiles[:, np.newaxis] @ weight, tiles.reshape(-1, 1, rows, weight.shape[1]) @ weight
            if whole.swapaxes(1, 2).tobytes() != parts.swapaxes(1, 2).tobytes():
                return False
        return True
