"""Window mode: each tick's answer is the model's over the last rows of its instrument, whatever the batch holds."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.core.step import Waves, scan_waves
from daemon.model import window_step
from daemon.model.numpy_step import NumpyStep
from daemon.model.selftest import check_scan, slots_agree
from daemon.model.window_step import WindowStep
from tests.bundles import tiny_program
from tests.steps import BreakingStep, RandomStep

FEATURES, STEPS = 3, 5


def rows(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, FEATURES)).astype(np.float32)


def by_hand(inner, x, steps=STEPS):
    """Answer each tick by a plain loop over the rows of its window."""
    answers = []
    for tick in range(len(x)):
        state = inner.initial_state[np.newaxis]
        for row in range(max(0, tick - steps + 1), tick + 1):
            y, state = inner.step(x[row : row + 1], state)
        answers.append(y[0])
    return np.array(answers)


def tick_by_tick(step, x):
    state, answers = step.initial_state[np.newaxis], []
    for row in range(len(x)):
        y, state = step.step(x[row : row + 1], state)
        answers.append(y[0])
    return np.array(answers), state


def chains(lengths):
    """Return waves of chains that all start at once and end one after the other, and each chain's rows."""
    assert lengths == sorted(lengths, reverse=True)
    alive = [[chain for chain in range(len(lengths)) if lengths[chain] > wave] for wave in range(max(lengths))]
    bounds = np.concatenate([[0], np.cumsum([len(each) for each in alive])])
    place = {(chain, wave): bounds[wave] + at for wave, each in enumerate(alive) for at, chain in enumerate(each)}
    final = [place[chain, length - 1] for chain, length in enumerate(lengths)]
    mine = [[place[chain, wave] for wave in range(length)] for chain, length in enumerate(lengths)]
    return Waves(tuple(bounds.tolist()), np.array(final)), mine


@pytest.fixture(params=["numpy", "random"])
def inner(request):
    if request.param == "random":
        return RandomStep(FEATURES, 2)  # its initial state is not zero
    return NumpyStep(tiny_program(FEATURES, 2, layers=2))


def test_every_tick_is_answered_by_its_window_and_the_first_ones_by_what_there_is(inner):
    x = rows(17)
    found, _ = tick_by_tick(WindowStep(inner, STEPS), x)
    assert found.tobytes() == by_hand(inner, x).tobytes()


def test_whole_chains_of_any_length_give_the_bits_of_single_steps(inner):
    step = WindowStep(inner, STEPS)
    lengths = [12, 7, 7, 3, 2, 1]
    waves, mine = chains(lengths)
    x = rows(sum(lengths))
    start, warm = np.repeat(step.initial_state[np.newaxis], len(lengths), axis=0), rows(4, seed=5)
    start[1] = tick_by_tick(step, warm)[1]  # one chain goes on, with one row of its window still missing
    y, final, finite = step.scan(x, start, waves)
    assert finite.all()
    for chain, own in enumerate(mine):
        before = [] if chain != 1 else list(warm)
        expected = by_hand(inner, np.array([*before, *x[own]]))[len(before) :]
        assert y[own].tobytes() == expected.tobytes()
        assert final[chain].tobytes() == tick_by_tick(step, np.array([*before, *x[own]]))[1][0].tobytes()


def test_slices_that_bound_memory_change_no_bit(inner, monkeypatch):
    step = WindowStep(inner, STEPS)
    waves, _ = chains([30, 9, 4, 1])
    x, start = rows(44), np.repeat(step.initial_state[np.newaxis], 4, axis=0)
    whole = step.scan(x, start, waves)
    monkeypatch.setattr(window_step, "INNER_ROWS_MAX", 3 * STEPS)
    for found, expected in zip(step.scan(x, start, waves), whole, strict=True):
        assert found.tobytes() == expected.tobytes()


def test_the_state_is_the_last_rows_and_how_many_are_missing(inner):
    x = rows(7)
    step = WindowStep(inner, STEPS)
    assert step.state_size == 1 + (STEPS - 1) * FEATURES
    _, state = tick_by_tick(step, x[:2])
    assert state[0, 0] == 2
    assert state[0, 1:].reshape(-1, FEATURES)[-2:].tolist() == x[:2].tolist()
    _, state = tick_by_tick(step, x)
    assert state[0, 0] == 0
    assert state[0, 1:].reshape(-1, FEATURES).tolist() == x[-4:].tolist()


def test_a_row_that_is_not_finite_breaks_every_window_that_holds_it(inner):
    step = WindowStep(inner, STEPS)
    waves, (own,) = chains([12])
    x = rows(12)
    x[3] = np.inf
    start = step.initial_state[np.newaxis]
    with np.errstate(all="ignore"):
        _, _, finite = step.scan(x, start, waves)
        y, _, plain = scan_waves(step, x, start, waves)
    broken = [tick for tick in range(12) if 3 <= tick < 3 + STEPS]
    assert [tick for tick in range(12) if not finite[own[tick]]] == broken
    assert [tick for tick in range(12) if not plain[own[tick]]] == broken
    assert np.isnan(y[own][broken]).any(axis=1).all()


def test_a_break_in_the_middle_of_a_window_shows_in_single_steps_as_in_scans():
    step = WindowStep(BreakingStep(FEATURES, 2), STEPS)
    waves, (own,) = chains([30])
    x, start = rows(30), step.initial_state[np.newaxis]
    y, _, finite = step.scan(x, start, waves)
    broken = [(x[own[max(0, tick - STEPS + 1) : tick + 1], 0] > 1).any() for tick in range(30)]
    assert finite[own].tolist() == [not each for each in broken]
    assert any(broken)
    assert not all(broken)
    plain = scan_waves(step, x, start, waves)
    assert plain[2].tolist() == finite.tolist()
    assert plain[0].tobytes() == y.tobytes()


def test_a_window_passes_the_self_test_of_steps():
    step = WindowStep(NumpyStep(tiny_program(FEATURES, 2, units=32, layers=2)), STEPS)
    check_scan(step)
    assert slots_agree(step)


def test_arguments_are_not_written_to(inner):
    step = WindowStep(inner, STEPS)
    x, start = rows(4), np.repeat(step.initial_state[np.newaxis], 4, axis=0)
    before = x.copy(), start.copy()
    step.step(x, start)
    assert (x.tobytes(), start.tobytes()) == (before[0].tobytes(), before[1].tobytes())
