"""Products on tiles."""

from __future__ import annotations

import numpy as np

from daemon.model.grid import TiledProduct, side_by_side


def test_tiled_product_is_the_product_of_each_row():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((5, 7)).astype(np.float32)
    for count in (0, 1, 8, 9):
        rows = rng.standard_normal((count, 5)).astype(np.float32)
        result = TiledProduct(weights, 4)(rows)
        np.testing.assert_allclose(result, rows.astype(float) @ weights.astype(float), atol=1e-5)


def test_side_by_side():
    assert side_by_side([2, 3]) == [slice(0, 2), slice(2, 5)]
    assert side_by_side([]) == []
