"""Promise 1 on the core: a payload depends on its instrument's accepted ticks alone, to the byte.

The logs hold everything at once: evictions, running scales, every session rule, refused ticks, and overflows with
more ticks of the same instrument behind them, in the same batch and the next, with sessions and evictions in between.
"""

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from daemon.core.records import InputRecord
from daemon.model.numpy_step import NumpyStep
from tests.bundles import tiny_program
from tests.property.logs import SPEC, build, cuts, events, logs, pipeline, remembered, run
from tests.property.oracle import answers
from tests.ticks import headers, outcomes, raw

rooms = st.sampled_from((1, 2, 3, 100))
CANARY = [json.dumps(raw(n, price=100 + n % 3, fields={"flow": n % 5, "volume": 2.0})).encode() for n in range(8)]
ONE_BY_ONE = (1,)
LSTM = NumpyStep(tiny_program(len(SPEC.columns), len(SPEC.outputs), units=32, layers=2))


def places(log: list[InputRecord]) -> set[tuple[int, int]]:
    return {(record.partition, record.offset) for record in log}


@given(logs, cuts, rooms, st.booleans())
def test_no_cut_changes_a_byte_of_any_outcome_or_of_what_is_kept(log, cut, room, canary):
    reference = pipeline(instruments_per_partition_max=room, scores=True)
    one_by_one = run(reference, log, ONE_BY_ONE)
    other = pipeline(instruments_per_partition_max=room, scores=True, canary_ticks=CANARY if canary else ())
    batches = run(other, log, cut)
    expected, found = outcomes(one_by_one), outcomes(batches)
    assert set(expected) == places(log)  # exactly one outcome for every record
    assert found == expected
    assert [m for batch in batches for m in batch.scores] == [m for batch in one_by_one for m in batch.scores]
    assert remembered(other) == remembered(reference)


@given(logs, cuts, cuts, rooms)
def test_other_partitions_in_the_batch_change_nothing(log, cut, cut_alone, room):
    together = outcomes(run(pipeline(instruments_per_partition_max=room), log, cut))
    for partition in (0, 1):
        own = [record for record in log if record.partition == partition]
        alone = outcomes(run(pipeline(instruments_per_partition_max=room), own, cut_alone))
        assert alone == {place: message for place, message in together.items() if place[0] == partition}


@given(logs, cuts, cuts)
def test_other_instruments_in_the_batch_change_nothing(log, cut, cut_alone):
    together = outcomes(run(pipeline(), log, cut))
    for instrument in {record.key for record in log}:
        own = [record for record in log if record.key == instrument]
        alone = outcomes(run(pipeline(), own, cut_alone))
        assert alone == {place: together[place] for place in places(own)}


@given(logs, cuts, rooms)
def test_the_pipeline_says_what_a_plain_loop_says(log, cut, room):
    made = outcomes(run(pipeline(instruments_per_partition_max=room), log, cut))
    found = []
    for record in log:
        message = made[record.partition, record.offset]
        if message.headers:
            found.append(headers(message)["reason"])
        else:
            payload = json.loads(message.value)
            names = ("step", "reset", "mean", "lower", "upper", "variance")
            found.append(tuple(payload[name] for name in names))
    assert found == answers(log, room)


@given(logs, cuts, rooms, st.booleans())
def test_the_step_that_serves_keeps_the_promise_too(log, cut, room, canary):
    options = {"step": LSTM, "instruments_per_partition_max": room}
    reference, other = pipeline(**options), pipeline(**options, canary_ticks=CANARY if canary else ())
    assert outcomes(run(other, log, cut)) == outcomes(run(reference, log, ONE_BY_ONE))
    assert remembered(other) == remembered(reference)


@given(logs, cuts, cuts, rooms)
def test_without_the_refused_ticks_all_others_stay_as_they_are(log, cut, other_cut, room):
    whole = pipeline(instruments_per_partition_max=room)
    expected = outcomes(run(whole, log, cut))
    refused = {
        place
        for place, message in expected.items()
        if message.headers and headers(message)["reason"] != "non_finite"  # that one is accepted, and breaks the model
    }
    rest = [record for record in log if (record.partition, record.offset) not in refused]
    cleaned = pipeline(instruments_per_partition_max=room)
    found = outcomes(run(cleaned, rest, other_cut))
    assert found == {place: message for place, message in expected.items() if place not in refused}
    assert remembered(cleaned) == remembered(whole)


def test_the_logs_drawn_here_hold_what_they_should():
    """A guard on the proofs above: they would prove little if nothing happened in them."""
    seen: Counter[str] = Counter()

    @given(st.lists(events, min_size=20, max_size=60), cuts)
    def look(drawn, cut):
        for batch in run(pipeline(instruments_per_partition_max=3), build(drawn), cut):
            seen.update(str(reason) for reason in batch.reasons.elements())
            seen.update(f"reset {cause}" for cause in batch.resets.elements())
            seen["evicted"] += batch.evicted_count
            seen["forecast"] += len(batch.forecasts)
            seen["scored"] += len(batch.scored)

    look()
    expected = {"late", "duplicate", "not_json", "missing_field", "invalid_value", "crossed_quote", "future_time"}
    expected |= {"non_finite", "outside_session", "evicted", "reset first", "reset session", "reset non_finite"}
    assert {name for name in expected if seen[name] < 20} == set(), seen
    assert seen["forecast"] > 1000
    assert seen["scored"] > 1000
