"""The network that is trained: the same answers as an ordinary Keras model of its weights."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.tensorflow


def test_carried_states_give_what_the_plain_stack_gives_in_one_go(monkeypatch):
    from daemon.training import fit
    from daemon.training.network import Network
    from daemon.training.options import Shape

    monkeypatch.setattr(fit, "STREAMS_MAX", 2)  # so that sequences follow each other in a stream
    network = Network(3, ["mean", "mean"], Shape("lstm", 2, 5, 0.0), seed=3)
    random = np.random.default_rng(0)
    network.start_from(*(random.standard_normal(shape).astype(np.float32) for shape in ((3, 2), (2,))))
    sequences = [random.standard_normal((length, 3)).astype(np.float32) for length in (1, 64, 200, 70)]
    plain = network.plain_model()
    for x, found in zip(sequences, fit.run_through(network, sequences, 2), strict=True):
        assert np.allclose(found, np.array(plain(x[None]))[0], atol=1e-6)


@pytest.mark.parametrize("window", [3, 80])  # unrolled, and too long for that
def test_windows_give_what_the_plain_stack_gives_on_each_of_them(monkeypatch, window):
    from daemon.training import fit
    from daemon.training.network import Network
    from daemon.training.options import Shape

    monkeypatch.setattr(fit, "WINDOW_ROWS_MAX", 17 * window)  # so that the last batch is not full
    network = Network(3, ["mean", "mean"], Shape("gru", 2, 5, 0.0), seed=3, window=window)
    random = np.random.default_rng(0)
    network.set_weights([random.standard_normal(each.shape).astype(np.float32) / 2 for each in network.weights()])
    sequences = [random.standard_normal((length, 3)).astype(np.float32) for length in (1, 90, 7)]
    plain = network.plain_model()
    for x, found in zip(sequences, fit.run_through(network, sequences, 2), strict=True):
        for last in (0, 1, 2, 3, len(x) // 2, len(x) - 1):
            if last < len(x):
                seen = x[max(last + 1 - window, 0) : last + 1]
                assert np.allclose(found[last], np.array(plain(seen[None]))[0, -1], atol=1e-6)
