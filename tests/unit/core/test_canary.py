"""The canary by itself; what it catches in a running pipeline is in the property tests."""

import json

import numpy as np
import pytest

from daemon.core.canary import Canary, Probe
from daemon.core.features import FeatureTable
from tests.steps import RandomStep
from tests.ticks import model, pipeline, raw, records

TICKS = [json.dumps(raw(n, price=100 + n)).encode() for n in range(5)]
STEP = RandomStep(3, 2)
FEATURES = FeatureTable(model().columns, model().volatility_prior)


def probe(change=None) -> Probe:
    """Feed the canary one run, step by step as nobody shares it, with one output changed."""
    canary = Canary(TICKS, model(), STEP, slot=0)
    state = STEP.initial_state[None, :]
    for number in range(len(TICKS)):
        y, state = STEP.step(FEATURES.inputs([canary.next_row().features]), state)
        if change is not None and number == 3:
            y[0, 1] = change(y[0, 1])
        found = canary.observe(y[0])
        assert (found is None) == (number < len(TICKS) - 1)
    return found


def test_the_same_answers_give_zero():
    assert probe() == Probe(0.0, 0.0)


def test_one_bit_is_enough():
    found = probe(lambda value: np.nextafter(value, np.float32(np.inf)))
    assert 0 < found.max_difference < 1e-4
    assert 0 < found.variance < 1e-9


def test_the_variance_is_the_mean_squared_difference():
    found = probe(lambda value: value + 2)
    assert found.max_difference == pytest.approx(2)
    assert found.variance == pytest.approx(4 / 10)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_no_number_differs_infinitely(value):
    assert probe(lambda _: value).max_difference == np.inf


def test_a_run_has_one_tick_a_batch_and_starts_anew_after_its_last():
    made = pipeline(canary_ticks=TICKS)
    found = [made.advance(records([raw(n, f"I{n % 3}")], start=n)).probe for n in range(15)]
    assert {n: each for n, each in enumerate(found) if each is not None} == dict.fromkeys((4, 9, 14), Probe(0.0, 0.0))


def test_it_waits_for_batches_in_which_something_is_accepted():
    made = pipeline(canary_ticks=TICKS[:1])
    assert made.advance([]).probe is None
    assert made.advance(records([b"bad"])).probe is None
    assert made.advance(records([raw()], start=1)).probe == Probe(0.0, 0.0)


def test_it_meets_every_place_of_a_tile():
    canary = Canary(TICKS[:3], model(), STEP, slot=0)
    places = set()
    for _ in range(64):
        canary.next_row()
        places.add(canary.place(rows=15))
        canary.observe(np.zeros(2, np.float32))
    assert places == set(range(16))


def test_it_appears_in_no_outcome():
    batch = pipeline(canary_ticks=TICKS).advance(records([raw(0), raw(1, "B"), b"bad"]))
    assert batch.instruments == ["A", "B"]
    assert batch.outputs.shape == (2, 2)
    assert len(batch.timestamps) == len(batch.forecasts) == 2
    assert len(batch.dead_letters) == 1
