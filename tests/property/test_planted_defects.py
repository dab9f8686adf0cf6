"""The canary among live ticks: exactly 0 while nothing leaks, and not 0 for each defect planted here."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core import runner, waves
from daemon.core.canary import Probe
from daemon.core.pipeline import Pipeline
from daemon.core.table import StateTable
from daemon.model.numpy_step import NumpyStep
from tests.bundles import tiny_program
from tests.property.logs import SPEC, cuts, logs, pipeline, run
from tests.steps import RandomStep, UntiledStep
from tests.ticks import raw, records

CANARY = [json.dumps(raw(n, price=100 + n % 3, fields={"flow": n % 5 - 2, "volume": 2.0})).encode() for n in range(8)]


def probes(made: Pipeline, batch_count: int = 40) -> list[Probe]:
    """Run live batches of changing length, each with several instruments, and return the canary's runs."""
    found = []
    for number in range(batch_count):
        ticks = [
            raw(number + n / 100, f"I{(number * 3 + n) % 11}", price=99 + n % 4, fields={"flow": n % 7, "volume": 1.0})
            for n in range(1 + number * 5 % 13)
        ]
        batch = made.advance(records(ticks, start=100 * number))
        found += [batch.probe] if batch.probe is not None else []
    assert len(found) == batch_count // len(CANARY)
    return found


def differ(made: Pipeline) -> bool:
    return any(probe.max_difference > 0 and probe.variance > 0 for probe in probes(made))


@pytest.mark.parametrize(
    "step", [RandomStep(6, 2), NumpyStep(tiny_program(6, 2, units=64, layers=2))], ids=["random", "numpy"]
)
def test_a_clean_run_gives_exactly_zero(step):
    assert all(probe == Probe(0.0, 0.0) for probe in probes(pipeline(step=step, canary_ticks=CANARY)))


@given(st.lists(logs, min_size=1, max_size=2), cuts)
def test_neither_overflows_nor_evictions_around_it_reach_the_canary(parts, cut):
    made = pipeline(canary_ticks=CANARY[:3], instruments_per_partition_max=2)
    found = [batch.probe for log in parts for batch in run(made, log, cut)]
    assert {probe for probe in found if probe is not None} <= {Probe(0.0, 0.0)}


def test_an_instrument_that_shares_the_canarys_slot_shows(monkeypatch):
    take, taken = StateTable.take, itertools.count()
    # The third instrument gets slot 0, the canary's.
    monkeypatch.setattr(StateTable, "take", lambda table: take(table) if next(taken) != 3 else 0)
    assert differ(pipeline(canary_ticks=CANARY))


def test_a_forgotten_reset_shows(monkeypatch):
    monkeypatch.setattr(runner, "plan", lambda slots, resets: waves.plan(slots, np.zeros_like(resets)))
    assert differ(pipeline(canary_ticks=CANARY))


def test_a_state_written_to_the_wrong_row_shows(monkeypatch):
    scatter = StateTable.scatter
    monkeypatch.setattr(StateTable, "scatter", lambda table, slots, states: scatter(table, slots[::-1], states))
    assert differ(pipeline(canary_ticks=CANARY))


def test_a_step_whose_bits_follow_the_number_of_rows_shows():
    assert differ(pipeline(step=UntiledStep(len(SPEC.columns), len(SPEC.outputs), units=64), canary_ticks=CANARY))


def test_a_tile_that_follows_the_number_of_rows_shows():
    class Loose(NumpyStep):
        """Takes one row in a tile of 1, more in tiles of 8."""

        def __init__(self) -> None:
            program = tiny_program(len(SPEC.columns), len(SPEC.outputs), units=64, layers=2)
            super().__init__(program, tile_rows=8)
            self._single = NumpyStep(program, tile_rows=1)

        def scan(self, x, start, waves):
            return self._single.scan(x, start, waves) if len(x) == 1 else super().scan(x, start, waves)

    assert differ(pipeline(step=Loose(), canary_ticks=CANARY))
