"""Behind a session boundary nothing is left of (h, c), and all of the rest is."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from daemon.core.instrument import FIELDS, Instrument
from daemon.core.sessions import Never, Rules
from schemas import ResetCause
from tests.property.logs import INSTRUMENTS, build, cuts, events, pipeline, run
from tests.ticks import raw, records

some = st.lists(events, min_size=1, max_size=25)


@given(some, some, cuts, st.sampled_from(INSTRUMENTS))
def test_forecasts_behind_a_boundary_are_those_of_a_fresh_state_with_the_same_kept_part(past, future, cut, name):
    opening = (name, 0, 1.0, "trade", "open", 1)
    own = build([(name, 0, *rest) for _, _, *rest in (*past, opening, *future)])
    batches = run(pipeline(), own, (1,))
    boundaries = [n for n, batch in enumerate(batches) if batch.resets[ResetCause.SESSION]]
    assume(boundaries)  # the opening tick itself may be refused, outside hours or late
    boundary = boundaries[-1]

    before = pipeline()
    run(before, own[:boundary], cut)
    fresh = pipeline()
    for instrument in before._partitions[0]:
        kept = Instrument(instrument.name, -1, (), None)
        for field in FIELDS:
            setattr(kept, field, getattr(instrument, field))
        kept.slot = fresh._table.take()  # holds the initial (h, c)
        fresh._partitions[0].touch(kept)
    behind = [message for batch in run(fresh, own[boundary:], cut) for message in batch.forecasts]
    assert behind == [message for batch in batches[boundary:] for message in batch.forecasts]


@pytest.mark.parametrize("length", [1, 7])
def test_without_a_boundary_the_state_is_carried_and_shows(length):
    """The counterpart, without which the proof above could hold for a model that has no state at all."""
    ticks = [raw(n / 10, "A", price=100 + n % 3, fields={"flow": n % 5, "volume": 2.0}) for n in range(12)]
    last = {"opened": raw(2, "A", session="new", fields={"flow": 1.0, "volume": 2.0})}
    last["carried"] = {key: value for key, value in last["opened"].items() if key != "session"}
    means = {}
    for name, tick in last.items():
        made = pipeline(rules=Rules((), Never()))
        *_, final = run(made, records([*ticks, tick]), (length,))
        means[name] = json.loads(final.forecasts[-1].value)["mean"]
    assert means["opened"] != means["carried"]
