"""When fitting ends and which weights it leaves, on a network that only counts its updates."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.training.fit import (
    LEARNING_RATE,
    STREAMS_MAX,
    STREAMS_MIN,
    WINDOW_ROWS_MAX,
    WINDOWS_MIN,
    EpochEnd,
    fit,
    stream_count,
)
from daemon.training.streams import CHUNK_TICKS, SessionRows

PATIENCE = 4


class CountingNetwork:
    """Its one weight is the number of updates."""

    window = None

    def __init__(self) -> None:
        self.updates = 0
        self.rates: list[float] = []

    def zero_states(self, streams: int) -> list:
        return []

    def fit(self, chunk, states, learning_rate):
        self.updates += 1
        self.rates.append(learning_rate)
        return 2.0, states

    def weights(self) -> list[int]:
        return [self.updates]

    def set_weights(self, weights: list[int]) -> None:
        (self.updates,) = weights


ROWS = [SessionRows(np.zeros((100, 1), np.float32), np.zeros((100, 1), np.float32), np.ones((100, 1), np.float32))]


def run(skills, *, epochs=100, seconds=None):
    """Fit with these validation skills, epoch by epoch; return what came of it, the network and what was heard."""
    network, heard, script, updates = CountingNetwork(), [], iter(skills), []

    def validate() -> float:
        found = next(script)
        if found is None:
            raise KeyboardInterrupt
        updates.append(network.updates)
        return found

    fitted = fit(
        network, ROWS, validate, epochs=epochs, patience=PATIENCE, seconds=seconds, seed=0, listen=heard.append
    )
    return fitted, network, heard, updates


def test_fitting_ends_after_its_patience_and_leaves_the_best_weights():
    fitted, network, heard, updates = run([0.1, 0.5, 0.4, *[0.3] * 50])
    assert (fitted.ended_by, fitted.best_epoch, fitted.epochs) == ("early stopping", 2, 2 + PATIENCE)
    assert network.updates == updates[1]
    assert [end.epoch for end in heard] == list(range(1, fitted.epochs + 1))


def test_epochs_bound_the_fitting_and_the_rate_falls_to_their_end():
    fitted, network, heard, _ = run([0.1, 0.2, 0.3], epochs=3)
    assert (fitted.ended_by, fitted.best_epoch, fitted.epochs) == ("epochs", 3, 3)
    assert [end.done for end in heard] == pytest.approx([1 / 3, 2 / 3, 1])
    assert heard[-1].seconds_left == 0
    assert network.rates[0] == LEARNING_RATE
    assert network.rates == sorted(network.rates, reverse=True)


def test_time_bounds_the_fitting():
    fitted, *_ = run([0.1] * 5, seconds=1e-9)
    assert (fitted.ended_by, fitted.epochs) == ("time", 1)


def test_an_interrupt_keeps_the_best_of_the_epochs_that_ended():
    fitted, network, _, updates = run([0.3, 0.1, None])
    assert (fitted.ended_by, fitted.best_epoch) == ("interrupt", 1)
    assert network.updates == updates[0]


def test_an_interrupt_in_the_first_epoch_goes_on():
    with pytest.raises(KeyboardInterrupt):
        run([None])


def test_an_unknown_skill_still_leaves_weights_of_the_first_epoch():
    fitted, network, heard, updates = run([float("nan")] * 10)
    assert fitted.best_epoch == 1
    assert network.updates == updates[0]
    assert isinstance(heard[0], EpochEnd)
    assert heard[0].loss == 2.0


def test_more_ticks_run_in_more_streams_within_bounds():
    counts = [stream_count(rows) for rows in (1, 10_000, CHUNK_TICKS * 60 * 20, 10**8)]
    assert counts == [STREAMS_MIN, STREAMS_MIN, 20, STREAMS_MAX]


def test_more_ticks_make_batches_of_more_windows_within_bounded_rows():
    assert [stream_count(rows, 20) for rows in (1, 60 * 100)] == [WINDOWS_MIN, 100]
    assert all(stream_count(10**8, window) * window <= WINDOW_ROWS_MAX for window in (2, 20, 1024))
