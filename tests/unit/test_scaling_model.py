"""The model of docs/scaling.md: it adds up where it was measured, and more to do never needs less."""

from __future__ import annotations

from dataclasses import fields, replace
from math import exp, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scaling_model import Costs, Load, Needs, needs, touched

COSTS = Costs(
    tick_us=50.0,
    snapshot_us=40.0,
    restored_us=50.0,
    replayed_us=25.0,
    tick_bytes=60.0,
    forecast_bytes=250.0,
    snapshot_bytes=2500.0,
    process_mb=120.0,
    instrument_bytes=4200.0,
    hot_ticks=8000.0,
)
#: What grows with the work; the rest is spread over more processes, and may shrink.
TOTALS = (
    "processes",
    "partitions",
    "tick_cores",
    "snapshot_cores",
    "memory_mb",
    "snapshots",
    "state_mb",
    "broker_in_mb",
    "broker_out_mb",
    "transactions",
    "topic_mb",
)
LOADS = st.builds(Load, ticks=st.floats(1, 1e7), instruments=st.floats(1, 1e8), checkpoint_seconds=st.floats(0.1, 600))


def test_what_was_measured_comes_out_again() -> None:
    """One second of 10,000 ticks of as many instruments, each saved once: the sum of the measured costs."""
    found = needs(Load(10_000, inf_instruments := 1e12, checkpoint_seconds=1.0, busy=1.0, replication=1), COSTS)
    assert found.tick_cores == pytest.approx(10_000 * 50e-6)
    assert found.snapshot_cores == pytest.approx(10_000 * 40e-6)
    assert found.state_mb == pytest.approx(25.0)
    assert found.broker_in_mb == pytest.approx(10_000 * (60 + 250 + 2500) / 1e6)
    assert found.broker_out_mb == pytest.approx(10_000 * (60 + 250) / 1e6)
    assert found.transactions == 5
    assert found.topic_mb == pytest.approx(inf_instruments * 2500 / 1e6)


def test_one_process_holds_what_fits_into_it_and_restores_all_of_it() -> None:
    found = needs(Load(1000, 1_000_000), COSTS)
    assert found.processes == 1
    assert found.memory_mb == pytest.approx(120 + 4200)
    assert found.restore_seconds == pytest.approx(1_000_000 * 50e-6 + 2500 * 25e-6)
    assert found.rebalance_seconds == pytest.approx(found.restore_seconds / 2)


def test_memory_alone_can_ask_for_more_processes() -> None:
    assert needs(Load(1, 4_000_000), COSTS).processes == 3
    assert needs(Load(1, 4_000_000, process_mb_max=20_000), COSTS).processes == 1


def test_copies_and_readers_cost_the_brokers_and_nobody_else() -> None:
    alone, thrice = (needs(Load(1e4, 1e4, replication=copies), COSTS) for copies in (1, 3))
    assert thrice.broker_in_mb == pytest.approx(3 * alone.broker_in_mb)
    assert thrice.broker_out_mb == pytest.approx(alone.broker_out_mb + 2 * alone.broker_in_mb)
    assert replace(thrice, broker_in_mb=alone.broker_in_mb, broker_out_mb=alone.broker_out_mb) == alone
    read = needs(Load(1e4, 1e4, replication=1, readers=3), COSTS)
    assert read.broker_out_mb == pytest.approx(alone.broker_out_mb + 2 * 1e4 * 250 / 1e6)


def test_few_instruments_are_all_touched_and_of_many_one_a_tick() -> None:
    assert touched(1e6, 100) == 100
    assert touched(1000, 1e12) == pytest.approx(1000)
    assert touched(1000, 1000) == pytest.approx(1000 * (1 - exp(-1)))


@given(LOADS, st.floats(1, 10), st.sampled_from(["ticks", "instruments"]))
def test_more_to_do_never_needs_less(load: Load, times: float, what: str) -> None:
    more = needs(replace(load, **{what: times * getattr(load, what)}), COSTS)
    less = needs(load, COSTS)
    for name in TOTALS:
        assert getattr(more, name) >= getattr(less, name) * (1 - 1e-9), name


@given(LOADS, st.floats(1, 10))
def test_rarer_checkpoints_never_write_more(load: Load, times: float) -> None:
    rarer = needs(replace(load, checkpoint_seconds=times * load.checkpoint_seconds), COSTS)
    assert rarer.snapshots <= needs(load, COSTS).snapshots * (1 + 1e-9)


@given(LOADS)
def test_every_need_is_a_number_and_the_processes_bear_the_load(load: Load) -> None:
    found = needs(load, COSTS)
    assert all(0 <= getattr(found, field.name) < inf for field in fields(Needs))
    assert found.tick_cores + found.snapshot_cores <= load.busy * found.processes * (1 + 1e-9)
    stop = found.snapshots * load.checkpoint_seconds / found.partitions * COSTS.snapshot_us / 1e6
    assert found.partitions >= found.processes
    assert stop <= load.stop_seconds * (1 + 1e-9)
    assert found.memory_mb <= load.process_mb_max * found.processes * (1 + 1e-9)
