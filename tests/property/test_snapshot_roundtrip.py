"""Promise 2 on the core: states that went through the state topic are the states that never left, to the bit.

The logs are those of promise 1: evictions, every session rule, refused ticks, overflows. Cuts fall anywhere, also
between a break and the tick that tells it.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.pipeline import Batch, Pipeline
from daemon.core.records import InputRecord, Message
from daemon.core.snapshot import decode
from schemas import ResetCause
from tests.property.logs import batches, build, cuts, events, logs, pipeline, remembered, run
from tests.ticks import outcomes

REVISION = "0123456789ab"
PARTITIONS = (0, 1)
rooms = st.sampled_from((1, 2, 3, 100))
#: Places in a log, as shares of its length.
shares = st.floats(0, 1, allow_nan=False)

#: Each example is several lives of several pipelines.
fewer = settings(max_examples=settings.default.max_examples // 3)

StateTopic = dict[bytes, bytes]


def place(log: Sequence[InputRecord], share: float) -> int:
    return round(share * len(log))


def offsets(log: Iterable[InputRecord]) -> dict[int, int]:
    """Return the next offset of each partition behind a log."""
    count = Counter(record.partition for record in log)
    return {partition: count[partition] for partition in PARTITIONS}


def compacted(topic: StateTopic, messages: Iterable[Message]) -> None:
    """Keep the newest value of each key; tombstones delete."""
    for message in messages:
        assert message.key is not None
        topic.pop(message.key, None)
        if message.value is not None:
            topic[message.key] = message.value


def saved(made: Pipeline, topics: dict[int, StateTopic], positions: dict[int, int]) -> None:
    """Write a checkpoint of every partition."""
    for partition, position in positions.items():
        compacted(topics[partition], made.checkpoint(partition, REVISION, position))
        made.checkpointed(partition, position)


def restored(
    topics: dict[int, StateTopic], positions: dict[int, int], shuffle: random.Random, **options: Any
) -> Pipeline:
    """Return a fresh pipeline with the states of the topics, put back in any order and in chunks of any size."""
    made = pipeline(partitions=(), **options)
    for partition, topic in topics.items():
        made.assign(partition, ResetCause.FIRST, saved_to=positions[partition])
        snapshots = [decode(key.decode(), value) for key, value in topic.items()]
        shuffle.shuffle(snapshots)
        while snapshots:
            size = shuffle.randint(1, len(snapshots))
            made.put_back(partition, snapshots[:size])
            snapshots = snapshots[size:]
        made.settle(partition)
    return made


def full(made: Pipeline, positions: dict[int, int]) -> dict[tuple[int, bytes | None], bytes | None]:
    """Return a checkpoint of everything, touched or not."""
    found = {}
    for partition, position in positions.items():
        made.mark_stale(partition, [instrument.name.encode() for instrument in made._partitions[partition]])
        for message in made.checkpoint(partition, REVISION, position):
            if message.value is not None:
                found[partition, message.key] = message.value
    return found


def evictions(answered: Iterable[Batch]) -> int:
    return sum(batch.evicted_count for batch in answered)


def fresh_topics() -> dict[int, StateTopic]:
    return {partition: {} for partition in PARTITIONS}


@given(logs, cuts, cuts, rooms, shares, shares, st.randoms(use_true_random=False))
def test_a_restored_pipeline_goes_on_as_one_that_never_stopped(log, cut, other_cut, room, one, other, shuffle):
    """It is saved at one place, dies at another, is restored, replays the ticks between them, and goes on."""
    save, die = sorted((place(log, one), place(log, other)))
    reference = pipeline(instruments_per_partition_max=room)
    run(reference, log[:die], other_cut)
    expected = run(reference, log[die:], other_cut)

    before = pipeline(instruments_per_partition_max=room)
    run(before, log[:save], cut)
    topics, positions = fresh_topics(), offsets(log[:save])
    saved(before, topics, positions)
    made = restored(topics, positions, shuffle, instruments_per_partition_max=room)
    assert remembered(made) == remembered(before)

    made.replay(log[save:die])
    found = run(made, log[die:], cut)
    assert outcomes(found) == outcomes(expected)
    assert evictions(found) == evictions(expected)
    assert remembered(made) == remembered(reference)
    assert made.state_bytes == reference.state_bytes
    assert full(made, offsets(log)) == full(reference, offsets(log))


@fewer
@given(logs, cuts, cuts, rooms, st.lists(shares, max_size=6), st.randoms(use_true_random=False))
def test_checkpoints_of_what_was_touched_add_up_to_a_full_one(log, cut, other_cut, room, places, shuffle):
    reference = pipeline(instruments_per_partition_max=room)
    run(reference, log, other_cut)

    made, topics, start = pipeline(instruments_per_partition_max=room), fresh_topics(), 0
    for end in sorted({place(log, share) for share in places} | {len(log)}):
        run(made, log[start:end], cut)
        saved(made, topics, offsets(log[:end]))
        start = end
        live = {(partition, facts["name"].encode()) for partition, facts, _ in remembered(made)}
        assert {(partition, key) for partition, topic in topics.items() for key in topic} == live
    found = restored(topics, offsets(log), shuffle, instruments_per_partition_max=room)
    assert remembered(found) == remembered(reference)
    assert full(found, offsets(log)) == full(reference, offsets(log))


@fewer
@given(logs, cuts, rooms, st.lists(shares, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_restarts_at_any_checkpoint_add_up_to_none(log, cut, room, places, shuffle):
    """What the state topic holds after many lives, each with what the one before had saved, is what one life holds."""
    reference = pipeline(instruments_per_partition_max=room)
    expected = run(reference, log, cut)

    made, topics, start, found = pipeline(instruments_per_partition_max=room), fresh_topics(), 0, []
    for end in sorted({place(log, share) for share in places} | {len(log)}):
        found += run(made, log[start:end], cut)
        saved(made, topics, offsets(log[:end]))
        made = restored(topics, offsets(log[:end]), shuffle, instruments_per_partition_max=room)
        start = end
    assert outcomes(found) == outcomes(expected)
    assert remembered(made) == remembered(reference)


@fewer
@given(logs, cuts, cuts, rooms)
def test_a_replay_moves_states_as_answers_do(log, cut, other_cut, room):
    answered, replayed = (pipeline(instruments_per_partition_max=room) for _ in range(2))
    run(answered, log, other_cut)
    for batch in batches(log, cut):
        replayed.replay(batch)
    assert remembered(replayed) == remembered(answered)
    assert replayed.state_bytes == answered.state_bytes
    assert replayed.instruments_in_two_partitions == answered.instruments_in_two_partitions


@fewer
@given(logs, cuts, rooms, shares)
def test_a_warm_up_ends_in_the_states_of_a_run_and_the_next_forecast_says_why(log, cut, room, share):
    live = place(log, share)
    options = {"instruments_per_partition_max": room, "origin": ResetCause.REVISION}
    reference, made = pipeline(**options), pipeline(**options)
    run(reference, log[:live], cut)
    made.replay(log[:live])
    assert remembered(made) == remembered(reference)

    silent = {(partition, facts["name"]) for partition, facts, _ in remembered(made)}
    for partition in PARTITIONS:
        made.warmed_up(partition, ResetCause.REVISION)
    for expected, found in zip(forecasts(reference, log[live:]), forecasts(made, log[live:]), strict=True):
        said, usual = found[1].pop("reset"), expected[1].pop("reset")
        assert found == expected
        place_of = (found[0], found[1]["instrument"])
        # A state that starts anew once more at just this tick may say that instead.
        assert said in ({"revision", usual} - {None} if place_of in silent else {usual})
        silent.discard(place_of)


def forecasts(made: Pipeline, log: Sequence[InputRecord]) -> list[tuple[int, dict[str, Any]]]:
    """Answer a log tick by tick; return partition and payload of each forecast."""
    messages = [message for batch in run(made, log, (1,)) for message in batch.forecasts]
    return [(message.partition, json.loads(message.value or b"")) for message in messages]


def test_the_logs_drawn_here_hold_what_they_should():
    """A guard on the proofs above: they would prove little if no tombstone and no reset came by."""
    seen: Counter[str] = Counter()

    @settings(max_examples=30)
    @given(st.lists(events, min_size=20, max_size=60), cuts, shares)
    def look(drawn, cut, share):
        log = build(drawn)
        made = pipeline(instruments_per_partition_max=2)
        for part in (log[: place(log, share)], log[place(log, share) :]):
            run(made, part, cut)
            for partition in PARTITIONS:
                for message in made.checkpoint(partition, REVISION, 0):
                    seen["tombstone" if message.value is None else "snapshot"] += 1
                    if message.value is not None:
                        instrument = decode("A", message.value).instrument
                        seen["pending"] += instrument.pending_reset is not None
                        seen["session"] += instrument.session is not None
                        seen["no quote"] += instrument.bid is None
                made.checkpointed(partition, offsets(part)[partition])

    look()
    assert {name for name in ("tombstone", "snapshot", "pending", "session", "no quote") if seen[name] < 20} == set()
