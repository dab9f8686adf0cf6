"""What the log in memory does beyond the transport's contract: hooks, faults, and the group's rounds."""

from __future__ import annotations

import pytest

from daemon.core.records import Message
from daemon.errors import TransactionFailed
from daemon.transport.memory import MemorySink, MemorySource
from daemon.transport.memory_group import Refused
from daemon.transport.memory_log import MemoryLog, Point
from daemon.transport.port import Outgoing

TWO = Outgoing({"forecasts": [Message(0, b"A", b"one")], "dead_letters": [Message(1, b"B", b"two")]})
POINTS: tuple[Point, ...] = ("begin", "send", "send", "offsets", "commit", "committed")


class Died(Exception):
    """The process is gone: nothing after this runs."""


def joined(log: MemoryLog, instance: str = "0") -> tuple[MemorySource, MemorySink]:
    source = MemorySource(log, group_id="g", instance_id=instance)
    sink = MemorySink(log, group_id="g", instance_id=instance)
    source.poll(0, 1)
    sink.open()
    return source, sink


def raise_at(log: MemoryLog, place: int, error: Exception) -> None:
    """Raise at the n-th point reached from now on, once."""
    reached: list[Point] = []

    def on_point(point: Point) -> None:
        reached.append(point)
        if len(reached) == place + 1:
            raise error

    log.on_point = on_point


def test_the_points_of_a_commit_are_reached_in_order() -> None:
    log = MemoryLog()
    source, sink = joined(log)
    reached: list[Point] = []
    log.on_point = reached.append
    sink.commit(TWO, {0: 1}, source.group_metadata())
    assert tuple(reached) == POINTS


@pytest.mark.parametrize("place", range(len(POINTS)))
def test_a_refusal_at_any_point_is_all_or_nothing(place: int) -> None:
    log = MemoryLog()
    source, sink = joined(log)
    raise_at(log, place, Refused("no"))
    with pytest.raises(TransactionFailed):
        sink.commit(TWO, {0: 1}, source.group_metadata())
    happened = POINTS[place] == "committed"  # only the answer was lost
    assert [record.value for record in log.read("forecasts")] == [b"one"] * happened
    assert [record.value for record in log.read("dead_letters")] == [b"two"] * happened
    assert source.committed([0]) == {0: 1 if happened else None}


@pytest.mark.parametrize("place", range(len(POINTS) - 1))
def test_a_death_leaves_the_transaction_open_until_its_id_is_claimed(place: int) -> None:
    log = MemoryLog()
    source, sink = joined(log)
    raise_at(log, place, Died())
    with pytest.raises(Died):
        sink.commit(TWO, {0: 1}, source.group_metadata())
    log.produce(0, b"A", b"tick")
    written = [record.value for record in log.read("forecasts", "read_uncommitted")]
    assert written == ([b"one"] if place > 1 else [])
    assert log.bounds("forecasts", 0, "read_committed") == (0, 0)
    MemorySink(log, group_id="g", instance_id="0").open()
    assert log.bounds("forecasts", 0, "read_committed") == (0, 2 if written else 0)  # the record and the marker
    assert log.read("forecasts") == []


def test_a_reader_stops_at_the_first_open_transaction_even_before_committed_records() -> None:
    log = MemoryLog()
    slow, quick = log.claim("slow"), log.claim("quick")
    log.begin(slow)
    log.append(slow, "ticks", Message(0, b"A", b"first"))
    log.begin(quick)
    log.append(quick, "ticks", Message(0, b"A", b"second"))
    log.end(quick, committed=True)
    assert log.read("ticks") == []
    log.expire("slow")
    assert [(record.offset, record.value) for record in log.read("ticks")] == [(1, b"second")]


def test_timestamps_are_those_the_test_sets() -> None:
    log = MemoryLog()
    log.produce(0, b"A", b"tick")
    log.now_ms = 1_700_000_000_000
    log.produce(0, b"A", b"tick")
    assert [record.timestamp for record in log.read("ticks")] == [0, 1_700_000_000_000]


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5])
def test_a_partition_never_has_two_owners_and_all_are_shared_evenly(members: int) -> None:
    log = MemoryLog(partitions=7)
    sources: list[MemorySource] = []
    for number in range(members):
        sources.append(MemorySource(log, group_id="g", instance_id=str(number)))
        for _ in range(6):
            for source in sources:
                source.poll(0, 1)
                owned = [partition for other in sources for partition in other.assignment()]
                assert len(owned) == len(set(owned)), owned
        sizes = sorted(len(source.assignment()) for source in sources)
        assert sum(sizes) == 7
        assert sizes[-1] - sizes[0] <= 1


def test_members_that_wait_for_a_round_receive_nothing() -> None:
    log = MemoryLog()
    first, _ = joined(log)
    for partition in first.assignment():
        first.start_at(partition, 0)
    second = MemorySource(log, group_id="g", instance_id="1")
    third = MemorySource(log, group_id="g", instance_id="2")
    third.poll(0, 10)
    log.produce(0, b"A", b"tick")
    second.poll(0, 10)
    assert not first.poll(0, 10).records or 0 in first.assignment()
    assert third.assignment() == ()


def test_one_partition_with_much_does_not_starve_the_others() -> None:
    log = MemoryLog()
    source, _ = joined(log)
    for partition in source.assignment():
        source.start_at(partition, 0)
        for _ in range(20):
            log.produce(partition, b"A", b"tick")
    seen = {record.partition for _ in range(4) for record in source.poll(0, 3).records}
    assert seen == {0, 1, 2, 3}
