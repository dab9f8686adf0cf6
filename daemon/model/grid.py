"""Products on tiles: every matrix product of a step has one fixed number of rows.

BLAS results depend on the number of rows of a product and, on some CPUs, on a row's place among them. So products run
on tiles of `tile_rows` rows, never more, and fewer only where that was seen to give the same bits. A slot without a row
may hold anything: a row's result depends on no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

from daemon.core.step import F32, Index, Waves

Rows = TypeVar("Rows", int, Index)


def one_wave(rows: int) -> Waves:
    """Return the order of a single step: each row a chain of its own."""
    return Waves((0, rows), np.arange(rows))


def tiles_of(rows: Rows, tile_rows: int) -> Rows:
    """Return the number of tiles that so many rows take."""
    return -(-rows // tile_rows)


class TiledProduct:
    """``rows @ weights``, tile by tile."""

    def __init__(self, weights: F32, tile_rows: int) -> None:
        """Take weights of shape (inputs, outputs)."""
        self._weights = np.ascontiguousarray(weights, np.float32)
        self._tile_rows = tile_rows

    def __call__(self, rows: F32) -> F32:
        """Multiply rows, shape (rows, inputs), into a new array of shape (rows, outputs)."""
        inputs, outputs = self._weights.shape
        tiles = tiles_of(len(rows), self._tile_rows)
        left = np.zeros((tiles * self._tile_rows, inputs), np.float32)
        left[: len(rows)] = rows
        result: F32 = np.matmul(left.reshape(tiles, self._tile_rows, inputs), self._weights)
        return result.reshape(-1, outputs)[: len(rows)]


def side_by_side(widths: Sequence[int]) -> list[slice]:
    """Return the slices of columns that values of these widths occupy, one after the other."""
    edges = np.concatenate(([0], np.cumsum(widths, dtype=np.intp))).tolist()
    return [slice(low, high) for low, high in pairwise(edges)]
