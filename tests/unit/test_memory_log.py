"""What the log in memory does beyond the transport's contract: hooks, faults, and the group's rounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from daemon.core.records import Message
from daemon.errors import BrokerUnavailable, TopicError, TransactionFailed
from daemon.transport.connection import transactional_id
from daemon.transport.memory import MemoryReader, MemorySink, MemorySource
from daemon.transport.memory_group import Refused
from daemon.transport.memory_log import Claim, Marker, MemoryLog, Point
from daemon.transport.memory_partition import Topic
from daemon.transport.port import Outgoing

TWO = Outgoing({"forecasts": [Message(0, b"A", b"one")], "dead_letters": [Message(1, b"B", b"two")]})
MY_ID = transactional_id("g", "0")
POINTS: tuple[Point, ...] = ("begin", "send", "send", "offsets", "commit", "committed")


class Died(Exception):
    """The process is gone: nothing after this runs."""


def joined(log: MemoryLog, instance: str = "0") -> tuple[MemorySource, MemorySink]:
    source = MemorySource(log, group_id="g", instance_id=instance)
    sink = MemorySink(log, group_id="g", instance_id=instance)
    source.poll(0, 1)
    sink.open()
    return source, sink


def write(log: MemoryLog, claim: Claim, *values: str, topic: Topic = "state") -> None:
    """Write records of partition 0 in the open transaction: the letter is the key, "A-" a tombstone."""
    for value in values:
        log.append(claim, topic, Message(0, value[:1].encode(), None if value[1:] == "-" else value.encode()))


def checkpoint(log: MemoryLog, *values: str, committed: bool = True) -> None:
    """Write one transaction into partition 0 of the state topic."""
    claim = log.claim("daemon")
    log.begin(claim)
    write(log, claim, *values)
    log.end(claim, committed=committed)


def stored(log: MemoryLog) -> list[tuple[int, str]]:
    """Return offset and value of what a reader of the state topic gets; a tombstone's value is its key and "-"."""
    reader, found, position = MemoryReader(log), [], 0
    while position < reader.bounds("state", 0)[1]:
        records, position = reader.read("state", 0, position, 0, 2)
        found += [(r.offset, (r.value or (r.key or b"") + b"-").decode()) for r in records]
    return found


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


def test_the_markers_of_a_transaction_land_one_by_one_in_any_order() -> None:
    log = MemoryLog()
    source, sink = joined(log)
    log.late_markers = True
    sink.commit(TWO, {0: 1}, source.group_metadata())
    assert log.read("forecasts") == log.read("dead_letters") == []
    assert source.committed([0, 1]) == {1: None}, "the offset is held until its marker lands"
    markers = {marker.place: marker for marker in log.markers()}
    assert set(markers) == {("forecasts", 0), ("dead_letters", 1), "g"}

    log.land(markers["g"])
    assert source.committed([0]) == {0: 1}
    assert log.read("forecasts") == [], "its marker is still on its way"
    log.land(markers["dead_letters", 1])
    assert [record.value for record in log.read("dead_letters")] == [b"two"]
    log.land(markers["forecasts", 0])
    assert [record.value for record in log.read("forecasts")] == [b"one"]
    assert log.markers() == []


def test_the_bound_of_a_reader_does_not_leave_out_what_was_committed_but_has_no_marker_yet() -> None:
    log = MemoryLog()
    log.late_markers = True
    checkpoint(log, "A1")
    reader = MemoryReader(log)
    assert reader.bounds("state", 0) == (0, 1)
    assert reader.read("state", 0, 0, 0, 10) == ([], 0)
    log.land(Marker("daemon", ("state", 0)))
    records, position = reader.read("state", 0, 0, 0, 10)
    assert [record.value for record in records] == [b"A1"]
    assert position == 2


def test_the_next_use_of_a_transactional_id_waits_for_all_markers_of_the_last() -> None:
    log = MemoryLog()
    source, sink = joined(log)
    log.late_markers = True
    sink.commit(TWO, {0: 1}, source.group_metadata())
    sink.commit(Outgoing(), {0: 2}, source.group_metadata())
    assert len(log.read("forecasts")) == len(log.read("dead_letters")) == 1
    assert source.committed([0]) == {}
    sink.open()
    assert source.committed([0]) == {0: 2}, "a decided commit is finished, not aborted"


def test_a_transaction_that_outlives_its_timeout_is_aborted_and_its_producer_fenced() -> None:
    log = MemoryLog()
    source, sink = joined(log)

    def wait_too_long(point: Point) -> None:
        if point == "commit":
            log.expire(MY_ID)

    log.on_point = wait_too_long
    with pytest.raises(TransactionFailed, match="newer holder"):
        sink.commit(TWO, {0: 1}, source.group_metadata())
    assert log.read("forecasts") == []
    assert source.committed([0]) == {0: None}
    log.on_point = lambda point: None
    sink.commit(TWO, {0: 2}, source.group_metadata())
    assert len(log.read("forecasts")) == 1


def test_what_is_decided_does_not_expire() -> None:
    log = MemoryLog()
    source, sink = joined(log)
    log.late_markers = True
    sink.commit(TWO, {0: 1}, source.group_metadata())
    log.expire(MY_ID)
    sink.commit(TWO, {0: 2}, source.group_metadata())
    assert len(log.read("forecasts")) == 1


def test_compaction_keeps_the_newest_record_of_each_key_where_it_stands() -> None:
    log = MemoryLog()
    checkpoint(log, "A1", "B1", "M1")  # 0 to 2, marker 3
    checkpoint(log, "A2", "M2", committed=False)  # 4 and 5, marker 6
    checkpoint(log, "B-", "M3")  # 7 and 8, marker 9
    before = stored(log)
    assert before == [(0, "A1"), (1, "B1"), (2, "M1"), (7, "B-"), (8, "M3")]
    log.compact("state", 0)
    assert stored(log) == [(0, "A1"), (7, "B-"), (8, "M3")]
    assert log.read("state", "read_uncommitted") == log.read("state"), "aborted records are gone"
    assert log.bounds("state", 0, "read_uncommitted") == (0, 10)
    log.compact("state", 0, tombstones=True)
    assert stored(log) == [(0, "A1"), (8, "M3")]
    checkpoint(log, "A3")
    assert stored(log)[-1] == (10, "A3"), "offsets go on as if nothing had been taken"


def test_compaction_spares_the_active_segment_even_in_the_middle_of_a_transaction() -> None:
    log = MemoryLog()
    checkpoint(log, "A1", "B1", "M1")
    checkpoint(log, "A2", "B2", "M2")  # 4 to 6, marker 7
    log.compact("state", 0, active=3)
    assert stored(log) == [(1, "B1"), (2, "M1"), (4, "A2"), (5, "B2"), (6, "M2")]
    log.compact("state", 0, active=100)
    assert len(stored(log)) == 5


def test_compaction_stops_at_an_open_transaction() -> None:
    log = MemoryLog()
    checkpoint(log, "A1")
    claim = log.claim("other")
    log.begin(claim)
    write(log, claim, "Z1")
    checkpoint(log, "A2")
    log.compact("state", 0)
    log.end(claim, committed=True)
    assert [value for _, value in stored(log)] == ["A1", "Z1", "A2"]


def test_a_reader_in_the_middle_steps_over_what_compaction_took() -> None:
    log = MemoryLog()
    checkpoint(log, "A1", "B1", "C1")
    checkpoint(log, "A2", "B2")
    reader = MemoryReader(log)
    records, position = reader.read("state", 0, 0, 0, 1)
    assert (records[0].value, position) == (b"A1", 1)
    log.compact("state", 0)
    records, position = reader.read("state", 0, position, 0, 10)
    assert [record.value for record in records] == [b"C1", b"A2", b"B2"]
    assert position == reader.bounds("state", 0)[1]


def test_a_recreated_topic_is_empty_has_another_id_and_is_never_read_by_who_knew_the_old_one() -> None:
    log = MemoryLog()
    source, sink = joined(log)
    for _ in range(3):
        log.produce(0, b"A", b"tick")
    source.start_at(0, 0)
    sink.commit(TWO, {0: 1}, source.group_metadata())
    known = source.topic_id()
    source.confirm()
    log.recreate("ticks")
    log.produce(0, b"A", b"another tick")
    assert source.topic_id() != known
    for look in (source.confirm, lambda: source.poll(0, 10)):
        with pytest.raises(TopicError, match="anew"):
            look()
    again = MemorySource(log, group_id="g", instance_id="0")
    again.confirm()
    assert again.committed([0]) == {0: 1}, "offsets outlive the topic"
    assert again.bounds([0]) == {0: (0, 1)}


def test_added_partitions_are_shared_out() -> None:
    log = MemoryLog(partitions=2)
    sources = [MemorySource(log, group_id="g", instance_id=str(number)) for number in range(2)]
    with pytest.raises(TopicError, match="no partition 3"):
        MemoryReader(log).bounds("ticks", 3)
    for _ in range(6):
        for source in sources:
            source.poll(0, 1)
    before = [source.assignment() for source in sources]
    log.grow(4)
    polled = [source.poll(0, 1) for _ in range(6) for source in sources]
    assert sorted(p for poll in polled for p in poll.assigned) == [2, 3]
    assert not any(poll.revoked or poll.lost for poll in polled)
    assert all(set(old) < set(source.assignment()) for old, source in zip(before, sources, strict=True))
    assert MemoryReader(log).bounds("state", 3) == (0, 0)


def test_with_the_broker_away_every_call_says_so_and_a_poll_is_empty() -> None:
    log = MemoryLog()
    source, sink = joined(log)
    log.produce(0, b"A", b"tick")
    source.start_at(0, 0)
    metadata = source.group_metadata()
    log.away = True
    assert source.poll(0, 10).records == ()
    assert source.committed([0]) == {}
    with pytest.raises(TransactionFailed):
        sink.commit(TWO, {0: 1}, metadata)
    reader = MemoryReader(log)
    for call in (
        source.confirm,
        sink.open,
        lambda: source.bounds([0]),
        lambda: reader.bounds("state", 0),
        lambda: reader.read("state", 0, 0, 0, 1),
    ):
        with pytest.raises(BrokerUnavailable, match="no broker answers"):
            call()
    log.away = False
    assert len(source.poll(0, 10).records) == 1
    sink.commit(TWO, {0: 1}, metadata)
    assert source.committed([0]) == {0: 1}


def test_a_broker_that_goes_away_before_the_commit_leaves_the_transaction_open() -> None:
    log = MemoryLog()
    source, sink = joined(log)

    def go_away(point: Point) -> None:
        log.away = point == "commit"

    log.on_point = go_away
    with pytest.raises(TransactionFailed):
        sink.commit(TWO, {0: 1}, source.group_metadata())
    log.away = False
    assert log.is_open(MY_ID)
    assert source.committed([0]) == {}
    log.expire(MY_ID)
    assert source.committed([0]) == {0: None}


def test_an_expelled_zombie_may_write_but_never_commit() -> None:
    log = MemoryLog(partitions=2)
    zombie, its_sink = joined(log)
    metadata = zombie.group_metadata()
    log.group("g").expel("0")
    owner = MemorySource(log, group_id="g", instance_id="1")
    while not owner.assignment():
        owner.poll(0, 1)
    with pytest.raises(TransactionFailed, match="generation"):
        its_sink.commit(TWO, {0: 9}, metadata)
    assert len(log.read("forecasts", "read_uncommitted")) == 1
    assert log.read("forecasts") == []
    assert owner.committed([0]) == {0: None}
    assert zombie.poll(0, 1).lost == (0, 1)


@pytest.mark.parametrize("offset", [1, 9])
def test_a_reader_is_told_that_an_offset_is_not_there(offset: int) -> None:
    log = MemoryLog()
    checkpoint(log, "A1", "B1", "C1")
    log.trim("state", 0, 2)
    reader = MemoryReader(log)
    assert reader.bounds("state", 0) == (2, 4)
    with pytest.raises(TopicError, match=f"does not hold the offset {offset}"):
        reader.read("state", 0, offset, 0, 10)
    assert reader.read("state", 0, 4, 0, 10) == ([], 4)


def test_every_look_at_the_cluster_is_a_point_where_a_process_can_die() -> None:
    log = MemoryLog()
    source, _ = joined(log)
    reader = MemoryReader(log)
    looks: dict[Point, Callable[[], object]] = {
        "poll": lambda: source.poll(0, 1),
        "confirm": source.confirm,
        "committed_read": lambda: source.committed([0]),
        "bounds": lambda: reader.bounds("state", 0),
        "read": lambda: reader.read("state", 0, 0, 0, 1),
    }
    for point, look in looks.items():
        reached: list[Point] = []
        log.on_point = reached.append
        look()
        assert reached == [point]
        raise_at(log, 0, Died())
        with pytest.raises(Died):
            look()


def test_what_a_replaced_member_was_to_give_up_belongs_to_nobody_until_somebody_asks() -> None:
    log = MemoryLog(partitions=3)
    old, other, third = (MemorySource(log, group_id="g", instance_id=str(number)) for number in range(3))
    while len(other.assignment()) < 1:
        old.poll(0, 1)
        other.poll(0, 1)
    assert len(old.assignment()) == 2
    assert not log.group("g").settled, "the first has not heard of the last round"
    for source in (old, third, old, other):  # a round for three: the first is to give one up, and never hears of it
        source.poll(0, 1)
    again = MemorySource(log, group_id="g", instance_id="0")
    for _ in range(6):
        for source in (again, other, third):
            source.poll(0, 1)
    assert [len(source.assignment()) for source in (again, other, third)] == [1, 1, 0]
    other.confirm()
    for _ in range(6):
        for source in (again, other, third):
            source.poll(0, 1)
    assert [len(source.assignment()) for source in (again, other, third)] == [1, 1, 1]
    assert log.group("g").settled
