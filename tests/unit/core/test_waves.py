"""Chains and waves: who steps when, from which state, and which state is kept."""

from collections import defaultdict

import numpy as np
import pytest

from daemon.core.step import scan_waves
from daemon.core.waves import Planner
from tests.steps import RandomStep
from tests.ticks import newcomer

STEP = RandomStep(3, 2, seed=5)


def planned(rows: str) -> tuple[Planner, dict]:
    """Plan rows given as instruments; a capital letter resets its instrument. Slots are 0, 1 ... for a, b ..."""
    planner, instruments = Planner(batch=7), {}
    for letter in rows:
        instrument = instruments.setdefault(letter.lower(), newcomer())
        instrument.slot = ord(letter.lower()) - ord("a")
        planner.add(instrument, reset=letter.isupper())
    return planner, instruments


def test_the_kth_tick_of_a_chain_goes_into_wave_k():
    planner, _ = planned("aababc")
    order, waves = planner.plan()
    assert waves.bounds == (0, 3, 5, 6)
    assert order.tolist() == [0, 2, 5, 1, 4, 3]  # log order within a wave


def test_a_reset_begins_a_chain_of_its_own_in_the_first_wave():
    planner, instruments = planned("aaAa")
    order, waves = planner.plan()
    assert waves.bounds == (0, 2, 4)
    assert order.tolist() == [0, 2, 1, 3]
    assert planner.start_slots.tolist() == [0, -1]
    slots, chains = planner.ends()
    assert (slots.tolist(), chains.tolist()) == ([0], [1])  # the later chain's state is kept
    assert planner.is_last_chain(instruments["a"], 1)
    assert not planner.is_last_chain(instruments["a"], 0)


def test_marks_of_an_earlier_batch_do_not_count():
    _, instruments = planned("ab")
    second = Planner(batch=8)
    second.add(instruments["b"], reset=False)
    assert second.start_slots.tolist() == [1]
    assert second.chain_of_row == [0]


@pytest.mark.parametrize("rows", ["a", "aaaa", "abcdef", "aabbAAbbaB", "AbAbAbcCcaB", "aAAAa" * 5 + "bcb"])
def test_running_the_waves_equals_running_the_rows_one_after_another(rows):
    rng = np.random.default_rng(len(rows))
    x = rng.standard_normal((len(rows), 3)).astype(np.float32)
    start = rng.standard_normal((26, STEP.state_size)).astype(np.float32)

    expected, states = [], defaultdict(lambda: STEP.initial_state)
    states |= {chr(ord("a") + slot): state for slot, state in enumerate(start)}
    for letter, row in zip(rows, x, strict=True):
        before = STEP.initial_state if letter.isupper() else states[letter]
        y, after = STEP.step(row[None, :], before[None, :])
        expected.append(y[0])
        states[letter.lower()] = after[0]

    planner, _ = planned(rows)
    order, waves = planner.plan()
    slots = planner.start_slots
    begin = np.where(slots[:, None] < 0, STEP.initial_state, start[slots])
    y, final, finite = scan_waves(STEP, x[order], begin, waves)
    assert y.tobytes() == np.array(expected)[order].tobytes()
    assert finite.all()
    for slot, chain in zip(*planner.ends(), strict=True):
        assert final[chain].tobytes() == states[chr(ord("a") + slot)].tobytes()


class Mute(RandomStep):
    """Says 0 whatever its state, except where its input is infinite."""

    def step(self, x, state):
        _, after = super().step(np.where(np.isinf(x), 0, x), state)
        return np.where(np.isinf(x[:, :2]), x[:, :2], 0), after


def test_a_row_is_finite_only_if_its_output_and_its_state_are():
    planner, _ = planned("abc")
    order, waves = planner.plan()
    x = np.zeros((3, 3), np.float32)
    x[1] = np.inf
    start = np.zeros((3, STEP.state_size), np.float32)
    start[2, -1] = np.nan
    y, _, finite = scan_waves(Mute(3, 2), x[order], start, waves)
    assert np.isfinite(y).all(axis=1).tolist() == [True, False, True]
    assert finite.tolist() == [True, False, False]
