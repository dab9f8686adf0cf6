"""When a checkpoint is due, and what it writes."""

from __future__ import annotations

from itertools import pairwise

import pytest

from daemon.checkpoints import Checkpoints, checkpoint
from daemon.core import marker as markers
from daemon.core.marker import Marker
from daemon.core.pipeline import Pipeline
from daemon.core.snapshot import decode
from schemas import ResetCause
from tests.ticks import pipeline, raw, records

SECONDS = 5.0
TICKS = 10
MARKER = Marker("desk", "ticks-1", "revision-one", 0, 0, 0, ResetCause.FIRST)


class World:
    """Running partitions at their positions, and time that only a test moves."""

    def __init__(self, *partitions: int, **options: int) -> None:
        self.now = 1000.0
        self.pipeline: Pipeline = pipeline(partitions=partitions, **options)
        self.checkpoints = Checkpoints(self.pipeline, SECONDS, TICKS, lambda: self.now)
        self.positions = dict.fromkeys(partitions, 0)
        for partition in partitions:
            self.checkpoints.begin(partition, MARKER)

    def answer(self, partition: int, names: str) -> None:
        """Answer ticks of these instruments."""
        at = self.positions[partition]
        ticks = [raw(at + n, name) for n, name in enumerate(names)]
        self.pipeline.advance(records(ticks, at, partition))
        self.positions[partition] = at + len(names)

    def due(self) -> int | None:
        return self.checkpoints.due(self.positions)

    def save(self, partition: int) -> list[tuple[bytes | None, bytes | None]]:
        """Commit a checkpoint and return its keys and values."""
        position = self.positions[partition]
        messages = self.checkpoints.messages(partition, position)
        self.checkpoints.committed(partition, position)
        assert {message.partition for message in messages} == {partition}
        return [(message.key, message.value) for message in messages]


def keys(saved: list[tuple[bytes | None, bytes | None]]) -> tuple[set[bytes | None], set[bytes | None]]:
    """Return the keys of the snapshots and of the tombstones; the marker comes last."""
    assert saved[-1][0] == markers.KEY
    return {key for key, value in saved[:-1] if value is not None}, {key for key, value in saved if value is None}


def test_nothing_unsaved_is_never_due() -> None:
    world = World(0, 1)
    world.now += 1000
    assert world.due() is None
    assert world.checkpoints.unsaved(world.positions) == []


def test_a_checkpoint_is_due_within_its_time_and_again_after_it() -> None:
    world = World(0)
    world.answer(0, "A")
    world.now += SECONDS
    assert world.due() == 0
    world.save(0)
    world.answer(0, "A")
    world.now += SECONDS - 0.001
    assert world.due() is None
    world.now += 0.001
    assert world.due() == 0


def test_a_checkpoint_is_due_after_its_ticks_however_soon() -> None:
    world = World(0)
    world.now += SECONDS
    world.answer(0, "A")
    world.save(0)
    world.answer(0, "A" * (TICKS - 1))
    assert world.due() is None
    world.answer(0, "A")
    assert world.due() == 0


def test_the_phases_of_partitions_are_spread_over_the_interval() -> None:
    world = World(*range(8))
    for partition in world.positions:
        world.answer(partition, "A")
    came: dict[int, float] = {}
    while len(came) < 8:
        while (due := world.due()) is not None:
            assert due not in came
            came[due] = world.now - 1000
            world.save(due)
        world.now += 0.05
    times = [0.0, *sorted(came.values()), SECONDS]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) <= 2.5 * SECONDS / 9  # never far from even: no batch waits for a bunch of them
    assert times[-2] <= SECONDS + 0.05


def test_the_one_that_has_waited_longest_comes_first_and_one_at_a_time() -> None:
    world = World(0, 1, 2)
    for partition in world.positions:
        world.answer(partition, "A")
    world.now += 2 * SECONDS
    order = []
    while (due := world.due()) is not None:
        order.append(due)
        world.save(due)
        world.now += 0.25
    assert sorted(order) == [0, 1, 2]
    for partition in world.positions:
        world.answer(partition, "A")
    world.now += 2 * SECONDS
    again = []
    while (due := world.due()) is not None:
        again.append(due)
        world.save(due)
    assert again == order


def test_a_quiet_partition_is_due_once_and_then_no_more() -> None:
    world = World(0, 1)
    world.answer(0, "AB")
    world.now += SECONDS
    assert world.due() == 0
    assert world.checkpoints.unsaved(world.positions) == [0]
    world.save(0)
    world.now += 100 * SECONDS
    assert world.due() is None


def test_a_partition_that_was_dropped_is_not_due_and_begins_anew() -> None:
    world = World(0, 1)
    world.answer(0, "A")
    world.now += SECONDS
    world.checkpoints.drop(0)
    world.checkpoints.drop(0)
    del world.positions[0]
    assert world.due() is None
    world.positions[0] = 1
    world.checkpoints.begin(0, MARKER)
    world.now += SECONDS
    assert world.due() == 0


def test_a_checkpoint_holds_what_was_touched_since_the_last_one_and_then_the_marker() -> None:
    world = World(0)
    world.answer(0, "ABC")
    assert keys(world.save(0)) == ({b"A", b"B", b"C"}, set())
    world.answer(0, "BB")
    saved = world.save(0)
    assert keys(saved) == ({b"B"}, set())
    assert markers.decode(saved[-1][1] or b"") == Marker("desk", "ticks-1", "revision-one", 5, 0, 0, ResetCause.FIRST)
    snapshot = decode("B", saved[0][1] or b"")
    assert (snapshot.revision, snapshot.next_offset) == ("revision-one", 5)
    assert (snapshot.instrument.step, snapshot.instrument.last_offset) == (3, 4)


def test_ticks_that_were_refused_leave_a_marker_alone() -> None:
    world = World(0)
    world.answer(0, "A")
    world.save(0)
    world.pipeline.advance(records([b"no tick"], 1))
    world.positions[0] = 2
    world.now += SECONDS
    assert world.due() == 0
    assert keys(world.save(0)) == (set(), set())


def test_the_evicted_are_deleted_and_the_returned_are_not() -> None:
    world = World(0, instruments_per_partition_max=2)
    world.answer(0, "AB")
    world.save(0)
    world.answer(0, "C")
    assert keys(world.save(0)) == ({b"C"}, {b"A"})
    world.answer(0, "ABAC")  # B gives way and comes back, C gives way and comes back, B is gone in the end
    assert keys(world.save(0)) == ({b"A", b"C"}, {b"B"})
    assert keys(world.save(0)) == (set(), set())


def test_what_was_not_committed_is_written_again() -> None:
    world = World(0, instruments_per_partition_max=1)
    world.answer(0, "AB")
    first = world.checkpoints.messages(0, 2)
    assert world.checkpoints.messages(0, 2) == first
    world.answer(0, "C")
    assert keys(world.save(0)) == ({b"C"}, {b"A", b"B"})


def test_instruments_that_were_reset_and_stale_keys_are_written_whatever_their_age() -> None:
    world = World(0)
    world.answer(0, "AB")
    world.save(0)
    world.pipeline.reset(0, "A", ResetCause.COLD)
    world.pipeline.reset(0, "unknown", ResetCause.COLD)
    world.pipeline.mark_stale(0, [b"B", b"gone", b"\xff\xfe"])
    assert keys(world.save(0)) == ({b"A", b"B"}, {b"gone", b"\xff\xfe"})
    assert keys(world.save(0)) == (set(), set())


def test_a_foreign_key_is_deleted_though_an_instrument_has_a_name_much_like_it() -> None:
    world = World(0)
    world.pipeline.advance(records([raw(0, "A\ufffd")]))
    world.positions[0] = 1
    world.save(0)
    world.pipeline.mark_stale(0, [b"A\xff"])
    assert keys(world.save(0)) == (set(), {b"A\xff"})


@pytest.mark.parametrize("partition", [0, 1])
def test_a_checkpoint_is_of_its_partition_alone(partition: int) -> None:
    world = World(0, 1)
    world.answer(0, "A")
    world.answer(1, "AB")
    saved = checkpoint(world.pipeline, partition, MARKER)
    assert [message.key for message in saved[:-1]] == [b"B", b"A"][1 - partition :]
    assert {message.partition for message in saved} == {partition}
