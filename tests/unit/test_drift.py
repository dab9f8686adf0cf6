"""Inputs against training: what the model sees under frozen scales, and where running scales have gone."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.core.spec import Column
from daemon.drift import FEWEST, INSTRUMENTS_MAX, WINDOW, ColumnDrift, InputDrift
from tests.ticks import model, payloads, pipeline, raw, records

FROZEN = (Column("return", "running", mean=0.0, std=1e-4), Column("imbalance", mean=0.0, std=0.5), Column("wait"))


def test_frozen_scales_are_judged_by_what_the_model_saw_last() -> None:
    drift = InputDrift(model(columns=FROZEN))
    rng = np.random.default_rng(0)
    old = rng.normal(9.0, 9.0, (WINDOW, 3)).astype(np.float32)
    new = rng.normal((0.0, 2.0, -1.0), (1.0, 0.5, 3.0), (WINDOW, 3)).astype(np.float32)
    drift.observe(old)
    for cut in np.array_split(new, 7):
        drift.observe(cut)
    found = drift.columns([])
    assert [(each.column, each.feature) for each in found] == [(1, "imbalance"), (2, "wait")]
    assert [each.shift for each in found] == pytest.approx(new[:, 1:].mean(axis=0), abs=1e-5)
    assert [each.scale for each in found] == pytest.approx(new[:, 1:].std(axis=0), abs=1e-5)


def test_a_batch_larger_than_the_window_counts_with_its_end() -> None:
    drift = InputDrift(model(columns=(Column("wait"),)))
    rows = np.arange(3 * WINDOW, dtype=np.float32)[:, None]
    drift.observe(rows)
    assert drift.columns([])[0].shift == pytest.approx(rows[-WINDOW:].mean())


def test_few_inputs_say_nothing() -> None:
    drift = InputDrift(model(columns=FROZEN))
    drift.observe(np.ones((FEWEST - 1, 3), np.float32))
    assert drift.columns([]) == []


def test_running_scales_are_compared_with_those_they_started_from() -> None:
    """A market that moves ten times as much as the one in training, through the pipeline."""
    columns = (Column("return", "running", std=1e-5), Column("spread", "running", mean=0.5, std=0.25))
    spec = model(columns=columns)
    made, drift = pipeline(spec), InputDrift(spec)
    assert drift.columns(made.instruments(1000)) == []
    rng = np.random.default_rng(0)
    mids = 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, 3000)))
    quotes = [raw(at, bid=mid, ask=1.0001 * mid) for at, mid in enumerate(mids.tolist())]
    batch = made.advance(records(quotes))
    assert len(payloads(batch)) == len(quotes)
    drift.observe(batch.inputs)
    returns, spread = drift.columns(made.instruments(1000))
    assert (returns.feature, spread.feature) == ("return", "spread")
    # The scales have a memory of 5,000 ticks, so they are on their way to 10 and -2.
    assert 6 < returns.scale < 10
    assert abs(returns.shift) < 1
    assert -2 < spread.shift < -0.5


def test_the_median_instrument_counts_however_many_there_are() -> None:
    spec = model(columns=(Column("return", "running", std=1.0),))
    made = pipeline(spec)
    names = [f"I{n}" for n in range(3 * INSTRUMENTS_MAX)]
    made.advance(records([raw(n, name) for n, name in enumerate(names)]))
    instruments = made.instruments(1000)
    assert len(instruments) == len(names)
    for number, instrument in enumerate(instruments):
        instrument.cells = [0.0, 0.0 if number % 3 else 5.0, 4.0]
    assert InputDrift(spec).columns(instruments) in (
        [ColumnDrift(0, "return", 0.0, 2.0)],
        [ColumnDrift(0, "return", 5.0, 2.0)],
    )


def test_inputs_of_a_batch_are_those_of_its_forecasts_in_order() -> None:
    made = pipeline(model(columns=(Column("price"),)))
    batch = made.advance(records([raw(0, price=101.0), b"no tick", raw(1, price=99.0), raw(2, price=-1.0)]))
    assert batch.inputs[:, 0].tolist() == [101.0, 99.0]
