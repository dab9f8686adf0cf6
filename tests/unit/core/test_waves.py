"""Chains and waves: who steps when, from which state, and which state is kept."""

from collections import defaultdict

import numpy as np
import pytest

from daemon.core.step import scan_waves
from daemon.core.waves import Plan, plan
from tests.steps import RandomStep

STEP = RandomStep(3, 2, seed=5)


def planned(rows: str) -> Plan:
    """Plan rows given as instruments; a capital letter resets its instrument. Slots are 0, 1 ... for a, b ..."""
    return plan(np.array([ord(row.lower()) - ord("a") for row in rows]), np.array([row.isupper() for row in rows]))


def test_the_kth_tick_of_a_chain_goes_into_wave_k_and_the_longest_chain_first():
    made = planned("babbac")
    assert made.waves.bounds == (0, 3, 5, 6)
    assert made.order.tolist() == [0, 1, 5, 2, 4, 3]
    assert made.chain.tolist() == [0, 1, 0, 0, 1, 2]
    assert made.waves.final.tolist() == [5, 4, 2]


def test_a_reset_begins_a_chain_of_its_own_in_the_first_wave():
    made = planned("aaAaa")
    assert made.waves.bounds == (0, 2, 4, 5)
    assert made.order.tolist() == [2, 0, 3, 1, 4]
    assert made.start_slots.tolist() == [-1, 0]
    assert made.end_slots.tolist() == [0, -1]  # the later chain's state is kept


def test_a_wave_goes_on_from_the_same_places_of_the_one_before():
    assert planned("abcaba").waves.source(3).tolist() == [0, 1, 2, 3, 4, 6]


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

    made = planned(rows)
    slots = made.start_slots
    begin = np.where(slots[:, None] < 0, STEP.initial_state, start[slots])
    y, final, finite = scan_waves(STEP, x[made.order], begin, made.waves)
    assert y.tobytes() == np.array(expected)[made.order].tobytes()
    assert finite.all()
    kept = [slot for slot in made.end_slots.tolist() if slot >= 0]
    assert sorted(kept) == sorted({ord(row.lower()) - ord("a") for row in rows})
    for slot, state in zip(made.end_slots, final, strict=True):
        assert slot < 0 or state.tobytes() == states[chr(ord("a") + slot)].tobytes()


class Mute(RandomStep):
    """Says 0 whatever its state, except where its input is infinite."""

    def step(self, x, state):
        _, after = super().step(np.where(np.isinf(x), 0, x), state)
        return np.where(np.isinf(x[:, :2]), x[:, :2], 0), after


def test_a_row_is_finite_only_if_its_output_and_its_state_are():
    made = planned("abc")
    x = np.zeros((3, 3), np.float32)
    x[1] = np.inf
    start = np.zeros((3, STEP.state_size), np.float32)
    start[2, -1] = np.nan
    y, _, finite = scan_waves(Mute(3, 2), x[made.order], start, made.waves)
    assert np.isfinite(y).all(axis=1).tolist() == [True, False, True]
    assert finite.tolist() == [True, False, False]
