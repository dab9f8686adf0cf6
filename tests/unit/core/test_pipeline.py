"""The pipeline as a whole, in small named cases; the proofs over any log are the property tests."""

import json

import numpy as np
import pytest

from daemon.core.sessions import Gap, Rules
from daemon.core.spec import Column
from tests.ticks import headers, model, outcomes, payloads, pipeline, raw, reasons, record, records

#: A field that the model takes as it is: 1e39 is infinite in float32, and the state with it.
SPEC = model([Column("field:flow"), Column("return", "running")])
#: Whole batches, pairs and single ticks.
CUTS = pytest.mark.parametrize("cut", [100, 2, 1])


def flow(value: float, seconds: float, instrument: str = "A", **facts) -> dict:
    return raw(seconds, instrument, fields={"flow": value}, **facts)


def tell(cut: int, ticks: list[dict], **options) -> list[tuple | str]:
    """Tell (instrument, step, reset) or the reason for each tick, however they are cut."""
    made, log = pipeline(SPEC, **options), records(ticks)
    batches = [made.advance(log[start : start + cut]) for start in range(0, len(log), cut)]
    told = []
    for (_, offset), message in sorted(outcomes(batches).items()):
        payload = None if message.headers else json.loads(message.value)
        told.append(
            (payload["instrument"], payload["step"], payload["reset"]) if payload else headers(message)["reason"]
        )
        assert offset == len(told) - 1
    return told


@CUTS
def test_a_break_resets_the_instrument_and_spares_its_neighbour(cut):
    assert tell(cut, [flow(1, 0), flow(1, 0, "B"), flow(1e39, 1), flow(1, 1, "B"), flow(1, 2), flow(1, 3)]) == [
        ("A", 0, "first"),
        ("B", 0, "first"),
        "non_finite",
        ("B", 1, None),
        ("A", 0, "non_finite"),
        ("A", 1, None),
    ]


@CUTS
def test_breaks_in_a_row_are_one_dead_letter_each(cut):
    assert tell(cut, [flow(1e39, 0), flow(1e39, 1), flow(1, 2), flow(-1e39, 3), flow(1, 4)]) == [
        "non_finite",
        "non_finite",
        ("A", 0, "non_finite"),
        "non_finite",
        ("A", 0, "non_finite"),
    ]


@CUTS
def test_a_carried_state_breaks_at_the_tick_that_overflows_it(cut):
    assert tell(cut, [flow(1e38, n) for n in range(3)] + [flow(1, 3)]).count("non_finite") >= 1


@CUTS
def test_a_session_that_opens_behind_a_break_is_the_cause_told(cut):
    told = tell(cut, [flow(1, 0), flow(1e39, 1), flow(1, 100), flow(1, 101)], rules=Rules((), Gap(20)))
    assert told == [("A", 0, "first"), "non_finite", ("A", 0, "session"), ("A", 1, None)]


@CUTS
def test_a_session_whose_first_tick_breaks_is_not_opened_twice(cut):
    told = tell(cut, [flow(1, 0), flow(1e39, 100), flow(1, 101)], rules=Rules((), Gap(20)))
    assert told == [("A", 0, "first"), "non_finite", ("A", 0, "non_finite")]


@CUTS
def test_an_eviction_behind_a_break_starts_from_nothing(cut):
    told = tell(cut, [flow(1e39, 0), flow(1, 1, "B"), flow(1, 2), flow(1, 3)], instruments_per_partition_max=1)
    assert told == ["non_finite", ("B", 0, "first"), ("A", 0, "first"), ("A", 1, None)]


@CUTS
def test_a_refused_tick_behind_a_break_uses_up_nothing(cut):
    told = tell(cut, [flow(1, 0), flow(1e39, 1), flow(1, 0.5), raw(2), flow(1, 2)])
    assert told == [("A", 0, "first"), "non_finite", "late", "missing_field", ("A", 0, "non_finite")]


@pytest.mark.parametrize("cut", [3, 2, 1])
def test_where_a_state_began_does_not_depend_on_the_cut(cut):
    """Breaks in a row once left the offset of the first one there, or of the last, as the batches fell."""
    made, log = pipeline(SPEC), records([flow(1, 0), flow(1e39, 1), flow(1e39, 2)])
    for start in range(0, 3, cut):
        made.advance(log[start : start + cut])
    assert made._partitions[0].get("A").reset_offset == 2


def test_a_forecast_says_where_it_comes_from_and_leaves_on_the_partition_of_its_tick():
    made = pipeline(partitions=(3,), warmup_ticks=1)
    first, second = made.advance(records([raw(0), raw(1, price=101.0)], start=40, partition=3)).forecasts
    assert (second.partition, second.key, second.headers) == (3, b"A", ())
    payload = json.loads(second.value)
    assert payload | {"mean": 0} == {
        "id": "ticks-3-41",
        "instrument": "A",
        "ts": raw(1)["ts"],
        "session": None,
        "step": 1,
        "reset": None,
        "warm": True,
        "price": 101.0,
        "horizons": [1, 5],
        "mean": 0,
        "lower": None,
        "upper": None,
        "variance": None,
        "model": "m",
        "schema_version": 1,
    }
    assert json.loads(first.value)["warm"] is False


def test_a_batch_tells_the_shell_what_it_needs_for_its_metrics():
    ticks = [flow(1, 0), flow(1e39, 1), flow(1, 2, "B"), flow(1, 1, "B"), flow(1, 3)]
    batch = pipeline(SPEC).advance([record(tick, n, timestamp=10**13 + n) for n, tick in enumerate(ticks)])
    assert batch.instruments == ["A", "B", "A"]
    assert batch.timestamps == [10**13, 10**13 + 2, 10**13 + 4]
    assert batch.outputs.shape == (3, 2)
    assert np.isfinite(batch.outputs).all()
    assert batch.reasons == {"non_finite": 1, "late": 1}
    assert batch.resets == {"first": 2, "non_finite": 1}


def test_an_empty_batch_and_one_of_bad_records_only_are_batches_too():
    made = pipeline()
    empty = made.advance([])
    assert (empty.forecasts, empty.dead_letters) == ([], [])
    assert reasons(made.advance(records([b"", None, b"{"]))) == ["empty", "empty", "not_json"]
    assert made.instrument_count == 0


def test_a_refused_first_tick_leaves_no_trace_of_its_instrument():
    made = pipeline(SPEC)
    assert reasons(made.advance([record(raw())])) == ["missing_field"]
    assert made.instrument_count == 0
    assert payloads(made.advance([record(flow(1, 0), 1)]))[0]["reset"] == "first"
