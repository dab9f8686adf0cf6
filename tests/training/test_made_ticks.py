"""The made order flow's conditional mean is what it says: nothing that is seen tells more."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.made_ticks import order_flow, order_flow_mean


@pytest.mark.parametrize("horizon", [1, 10, 50])
def test_no_share_of_what_is_seen_makes_the_order_flow_s_mean_better(horizon):
    ticks, known = order_flow(200_000)
    price = np.log([tick["price"] for tick in ticks])
    move, mean = price[horizon:] - price[:-horizon], order_flow_mean(known, horizon)[:-horizon]
    last = np.concatenate([[0.0], np.diff(price)])[:-horizon]
    seen = np.column_stack([mean, known[:-horizon], known[:-horizon, 0] ** 3, last])
    seen = seen / seen.std(axis=0)
    # the mean takes its share in full, and what it leaves follows nothing else
    assert np.polyfit(mean, move, 1)[0] == pytest.approx(1.0, abs=0.03)
    assert np.abs(seen.T @ (move - mean) / len(move) / (move - mean).std()).max() < 0.02
