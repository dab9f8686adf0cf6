"""Rows on tiles: how a batch's waves are laid out so that every matrix product has one fixed shape.

BLAS results depend on the number of rows of a product and, on some CPUs, on a row's place among them. So products run
on tiles of `tile_rows` rows, never more or fewer, and every wave begins at a tile's first slot. Slots that hold no row
hold zeros: their features are zero and their state is the zero state, number 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from daemon.core.step import F32, Index, Waves


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the rows of a batch lie.

    States are numbered: 0 is the zero state, then the start states of the chains, then, from `first_slot` on and at a
    tile's border too, the state after each slot.
    """

    chains: int
    #: Number of slots, a multiple of the tile's rows.
    slots: int
    #: Number of the state after slot 0; a multiple of the tile's rows.
    first_slot: int
    #: For each wave its first and last (exclusive) tile, and the number of the state each of its slots starts from.
    waves: list[tuple[int, int, Index]]
    #: shape (rows,): the slot of each row.
    place: Index
    #: shape (ends,): numbers of the states to return.
    final: Index

    @property
    def after(self) -> slice:
        """The states after all slots."""
        return slice(self.first_slot, self.first_slot + self.slots)


def lay_out(waves: Waves, chains: int, tile_rows: int) -> Grid:
    """Lay the rows of a batch out on tiles, each wave on tiles of its own."""
    bounds = np.array(waves.bounds)
    sizes = bounds[1:] - bounds[:-1]
    edges = np.zeros(len(bounds), np.intp)
    np.cumsum(-(-sizes // tile_rows), out=edges[1:])
    slots = int(edges[-1]) * tile_rows
    place = np.arange(bounds[-1]) + np.repeat(edges[:-1] * tile_rows - bounds[:-1], sizes)
    first_slot = -(-(1 + chains) // tile_rows) * tile_rows
    # State numbers of `Waves` (chains, then rows) to ours.
    number = np.concatenate((np.arange(1, chains + 1), place + first_slot))
    source = np.zeros(slots, np.intp)
    source[place] = number[waves.source]
    spans = [(low, high, source[low * tile_rows : high * tile_rows]) for low, high in pairwise(edges.tolist())]
    return Grid(chains, slots, first_slot, spans, place, number[waves.final])


def one_wave(rows: int) -> Waves:
    """Return the order of a single step: each row a chain of its own."""
    return Waves((0, rows), np.arange(rows), np.arange(rows, 2 * rows))


class TiledProduct:
    """``rows @ weights`` for several weight matrices (the gates) at once, tile by tile."""

    def __init__(self, weights: F32, tile_rows: int) -> None:
        """Take weights of shape (gates, inputs, units)."""
        self._weights = np.ascontiguousarray(weights, np.float32)
        self.gates, self._inputs, self.units = self._weights.shape
        self._tile_rows = tile_rows
        self._result = np.empty((0, self.gates, tile_rows, self.units), np.float32)

    def __call__(self, rows: F32) -> F32:
        """Multiply contiguous rows, shape (tiles * tile_rows, inputs), into shape (tiles, gates, tile_rows, units).

        The result stands in a buffer that the next call overwrites: allocating one costs more than a thin product.
        """
        left = rows.reshape(len(rows) // self._tile_rows, 1, self._tile_rows, self._inputs)
        if len(left) > len(self._result):
            self._result = np.empty((len(left), *self._result.shape[1:]), np.float32)
        result = self._result[: len(left)]
        self.into(left, result)
        return result

    def into(self, left: F32, result: F32) -> None:
        """Multiply shape (tiles, 1, tile_rows, inputs) into an array of shape (tiles, gates, tile_rows, units)."""
        np.matmul(left, self._weights, out=result)


def side_by_side(widths: Sequence[int]) -> list[slice]:
    """Return the slices of columns that values of these widths occupy, one after the other."""
    edges = np.concatenate(([0], np.cumsum(widths, dtype=np.intp))).tolist()
    return [slice(low, high) for low, high in pairwise(edges)]
