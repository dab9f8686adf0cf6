"""The layout of rows on tiles."""

from __future__ import annotations

import numpy as np

from daemon.core.step import Waves
from daemon.model.grid import TiledProduct, lay_out, side_by_side


def test_every_wave_begins_a_tile_and_free_slots_start_from_the_zero_state():
    # Two chains, waves of 2, 2 and 1 rows; the second chain ends one wave earlier.
    waves = Waves((0, 2, 4, 5), np.array([0, 1, 2, 3, 4]), np.array([6, 5]))
    grid = lay_out(waves, 2, 4)
    assert grid.slots == 12
    assert grid.first_slot == 4
    assert grid.place.tolist() == [0, 1, 4, 5, 8]
    assert [(low, high, source.tolist()) for low, high, source in grid.waves] == [
        (0, 1, [1, 2, 0, 0]),
        (1, 2, [4, 5, 0, 0]),
        (2, 3, [8, 0, 0, 0]),
    ]
    assert grid.final.tolist() == [12, 9]


def test_a_wide_wave_takes_several_tiles():
    rows = 7
    grid = lay_out(Waves((0, rows), np.arange(rows), np.arange(rows, 2 * rows)), rows, 2)
    assert [(low, high) for low, high, _ in grid.waves] == [(0, 4)]
    assert grid.slots == 8
    assert grid.final.tolist() == [grid.first_slot + row for row in range(rows)]


def test_tiled_product_is_the_product_of_each_gate():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((3, 5, 7)).astype(np.float32)
    rows = rng.standard_normal((8, 5)).astype(np.float32)
    result = TiledProduct(weights, 4)(rows)
    assert result.shape == (2, 3, 4, 7)
    expected = np.einsum("rf,gfu->rgu", rows.astype(float), weights.astype(float))
    np.testing.assert_allclose(result.swapaxes(1, 2).reshape(8, 3, 7), expected, atol=1e-5)


def test_side_by_side():
    assert side_by_side([2, 3]) == [slice(0, 2), slice(2, 5)]
    assert side_by_side([]) == []
