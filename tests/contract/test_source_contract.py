"""What every `Source` promises about records and positions."""

from __future__ import annotations

import itertools
import time

import pytest

from daemon.core.records import Message
from daemon.errors import TopicError
from tests.contract.members import Member, owning, settled, ticks, turn_until
from tests.contract.worlds import World


def test_records_arrive_complete_and_in_offset_order(world: World) -> None:
    names = [str(n) for n in range(50)]
    for partition in range(4):
        world.produce(ticks(partition, *names))
    member = owning(world.source())
    turn_until(lambda: len(member.records) >= 200, member, max_records=7)
    for partition in range(4):
        mine = [record for record in member.records if record.partition == partition]
        assert [record.value for record in mine] == [name.encode() for name in names]
        assert [record.offset for record in mine] == list(range(50))


def test_a_poll_returns_at_most_max_records(world: World) -> None:
    world.produce(ticks(0, *map(str, range(20))) + ticks(1, *map(str, range(20))))
    member = owning(world.source())
    sizes: list[int] = []

    def all_there() -> bool:
        sizes.append(len(member.records))
        return len(member.records) == 40

    turn_until(all_there, member, max_records=7)
    assert max(later - earlier for earlier, later in itertools.pairwise(sizes)) == 7


def test_records_are_raw_bytes_as_they_stood(world: World) -> None:
    sent = [
        Message(0, b"\xff\x00key", b"\xfe not utf-8", (("name", b"\x00value"), ("name", b""))),
        Message(0, b"key", b""),
        Message(0, b"key", None),
        Message(0, None, b"no key"),
    ]
    world.produce(sent)
    member = owning(world.source())
    turn_until(lambda: len(member.records) == len(sent), member)
    for message, record in zip(sent, member.records, strict=True):
        assert (record.key, record.value) == (message.key, message.value)
        assert [tuple(header) for header in record.headers] == list(message.headers)
        assert record.timestamp >= 0


def test_a_new_partition_delivers_nothing_before_start_at(world: World) -> None:
    world.produce(ticks(0, "a", "b") + ticks(1, "c"))
    member = owning(world.source(), start=False)
    assert sorted(member.assigned) == [0, 1, 2, 3]
    member.source.start_at(1, 0)
    turn_until(lambda: bool(member.records), member)
    for _ in range(5):
        member.turn()
    assert member.values == [(1, b"c")]
    assert member.source.positions() == {1: 1}


def test_start_at_begins_at_the_offset_given(world: World) -> None:
    world.produce(ticks(2, "a", "b", "c", "d"))
    member = owning(world.source(), start=False)
    member.source.start_at(2, 2)
    turn_until(lambda: len(member.records) == 2, member)
    assert member.values == [(2, b"c"), (2, b"d")]


def test_start_at_again_repeats(world: World) -> None:
    world.produce(ticks(0, "a", "b", "c"))
    member = owning(world.source())
    turn_until(lambda: len(member.records) == 3, member)
    member.source.start_at(0, 1)
    turn_until(lambda: len(member.records) == 5, member)
    assert [value for _, value in member.values] == [b"a", b"b", b"c", b"b", b"c"]


def test_a_stopped_partition_delivers_nothing_until_it_starts_again(world: World) -> None:
    world.produce(ticks(0, *map(str, range(10))))
    member = owning(world.source())
    turn_until(lambda: len(member.records) >= 3, member, max_records=3)
    taken = len(member.records)  # the client holds more of this partition in its buffer
    member.source.stop(0)
    world.produce(ticks(1, "other"))
    turn_until(lambda: (1, b"other") in member.values, member)
    assert len(member.records) == taken + 1
    assert 0 not in member.source.positions()
    member.source.start_at(0, taken)
    turn_until(lambda: len(member.records) == 11, member)
    assert [value for partition, value in member.values if partition == 0] == [str(n).encode() for n in range(10)]


def test_start_at_refuses_a_partition_that_is_not_ours(world: World) -> None:
    with pytest.raises(ValueError):
        owning(world.source()).source.start_at(17, 0)


def test_aborted_ticks_are_not_delivered_and_positions_step_over_markers(world: World) -> None:
    world.produce(ticks(0, "a"))
    world.produce_transaction(ticks(0, "never"), committed=False)
    world.produce_transaction(ticks(0, "b"), committed=True)
    member = owning(world.source())
    turn_until(lambda: member.source.positions()[0] == 5, member)  # a, never, marker, b, marker
    assert [value for _, value in member.values] == [b"a", b"b"]
    assert member.source.bounds([0]) == {0: (0, 5)}


def test_lag_is_what_lies_between_position_and_end(world: World) -> None:
    world.produce(ticks(0, *map(str, range(10))))
    member = owning(world.source())
    turn_until(lambda: len(member.records) == 4, member, max_records=4)
    assert member.source.lags()[0] == 6
    turn_until(lambda: len(member.records) == 10, member)
    assert member.source.lags() == {0: 0, 1: 0, 2: 0, 3: 0}


def test_bounds_tell_what_is_retained(world: World) -> None:
    world.produce(ticks(3, *map(str, range(6))))
    world.trim(3, 4)
    source = owning(world.source()).source
    assert source.bounds([3, 0]) == {3: (4, 6), 0: (0, 0)}


@pytest.mark.parametrize("offset", [1, 7])
def test_a_position_outside_the_log_is_an_error_and_not_a_jump(world: World, offset: int) -> None:
    world.produce(ticks(0, *map(str, range(6))))
    world.trim(0, 4)
    member = owning(world.source(), start=False)
    member.source.start_at(0, offset)
    with pytest.raises(TopicError, match=r"offset|Offset"):
        turn_until(lambda: bool(member.records), member)


def test_nothing_is_committed_at_first(world: World) -> None:
    assert owning(world.source()).source.committed([0, 3]) == {0: None, 3: None}


def test_an_offset_that_an_open_transaction_holds_is_left_out_until_it_ends(world: World) -> None:
    source = owning(world.source()).source
    end = world.hang("0", Message(0, b"A", b"pending"), {0: 9}, source.group_metadata())
    start = time.monotonic()
    assert source.committed([0, 1, 3]) == {1: None, 3: None}
    assert time.monotonic() - start < 1, "live partitions wait meanwhile"
    end(committed=True)
    assert settled(source, [0, 1, 3]) == {0: 9, 1: None, 3: None}
    end = world.hang("0", Message(0, b"A", b"never"), {0: 11, 1: 4}, source.group_metadata())
    assert source.committed([3, 0, 1]) == {3: None}
    end(committed=False)
    assert settled(source, [0, 1]) == {0: 9, 1: None}


def test_offsets_of_no_partitions_are_none(world: World) -> None:
    assert owning(world.source()).source.committed([]) == {}


def test_the_id_of_the_topic_stays_while_the_topic_does(world: World) -> None:
    source = owning(world.source()).source
    source.confirm()
    assert source.topic_id()
    assert source.topic_id() == world.source("1").topic_id()


def test_a_topic_created_anew_is_found_out_by_whoever_asks_and_has_another_id(world: World) -> None:
    source = owning(world.source()).source
    before = source.topic_id()
    world.recreate()
    with pytest.raises(TopicError, match="created anew"):
        source.confirm()
    assert world.source("1").topic_id() != before


def test_nothing_is_delivered_from_a_topic_created_anew(world: World) -> None:
    world.produce(ticks(0, *map(str, range(5))) + ticks(1, *map(str, range(5))))
    member = owning(world.source())
    turn_until(lambda: len(member.records) == 10, member)
    world.recreate()
    world.produce([tick for partition in range(4) for tick in ticks(partition, *["new"] * 20)])
    with pytest.raises(TopicError, match="created anew"):
        turn_until(lambda: len(member.records) > 10, member)
    assert len(member.records) == 10


def test_partitions_added_to_the_topic_are_assigned_and_read(world: World) -> None:
    member = owning(world.source())
    world.produce(ticks(0, "before"))
    turn_until(lambda: len(member.records) == 1, member)
    world.grow(6)
    world.produce(ticks(0, "after") + ticks(5, "new"))
    turn_until(lambda: len(member.records) == 3, member)
    assert sorted(member.values) == [(0, b"after"), (0, b"before"), (5, b"new")]
    assert member.assigned[4:] == [4, 5]
    assert not member.revoked
    assert not member.lost


def test_a_closed_source_has_left_no_trace_on_the_next_one(world: World) -> None:
    world.produce(ticks(0, "a"))
    first = owning(world.source())
    turn_until(lambda: bool(first.records), first)
    first.source.close(leave=True)
    second = Member(world.source())
    turn_until(lambda: bool(second.records), second)
    assert second.values == first.values  # nothing was committed
    assert sorted(second.assigned) == [0, 1, 2, 3]
