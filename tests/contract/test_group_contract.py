"""What every `Source` promises about its group: who owns what, and who may commit."""

from __future__ import annotations

import time

import pytest

from daemon.errors import Fenced, TransactionFailed
from tests.contract.members import Member, forecast, owning, settle, settled, ticks, turn_until
from tests.contract.worlds import World


def sharing(world: World, *instances: str) -> list[Member]:
    """Return members that share the four partitions evenly."""
    members = [Member(world.source(instance)) for instance in instances]
    settle(*members)
    return members


def test_a_second_member_takes_half_and_the_rest_goes_on(world: World) -> None:
    first = owning(world.source())
    world.produce([tick for partition in range(4) for tick in ticks(partition, "before")])
    turn_until(lambda: len(first.records) == 4, first)
    second = Member(world.source("1"))
    settle(first, second)

    assert sorted(first.revoked) == sorted(second.assigned) == list(second.source.assignment())
    assert sorted(first.assigned) == [0, 1, 2, 3], "kept partitions are not assigned again"
    assert not first.lost
    assert sorted(first.source.positions()) == list(first.source.assignment())

    del first.records[:]
    world.produce([tick for partition in range(4) for tick in ticks(partition, "after")])
    turn_until(lambda: len(first.records) == 2 and len(second.records) == 4, first, second)
    kept, moved = first.source.assignment(), second.source.assignment()
    assert sorted(first.values) == [(p, b"after") for p in kept]
    assert sorted(second.values) == sorted((p, name) for p in moved for name in (b"before", b"after"))


def test_short_polls_between_long_work_join_the_group(world: World) -> None:
    source = world.source()
    for _ in range(10):
        source.poll(0, 1)
        time.sleep(0.05)  # work, during which the group answers
    assert source.assignment() == (0, 1, 2, 3)


def test_leaving_hands_the_partitions_over(world: World) -> None:
    first, second = sharing(world, "0", "1")
    first.source.close(leave=True)
    turn_until(lambda: second.source.assignment() == (0, 1, 2, 3), second)
    assert not second.lost


def test_staying_keeps_the_place_for_the_next_process(world: World) -> None:
    first, second = sharing(world, "0", "1")
    mine = first.source.assignment()
    first.source.close(leave=False)
    for _ in range(5):
        second.turn()
    again = owning(world.source("0"), count=2)
    assert again.source.assignment() == mine
    assert not second.revoked[len(mine) :]
    assert second.source.assignment() == tuple(p for p in range(4) if p not in mine)


def test_an_expelled_member_loses_everything_and_must_start_again(world: World) -> None:
    member = owning(world.source())
    world.produce(ticks(0, "a"))
    turn_until(lambda: bool(member.records), member)
    member.assigned.clear()
    world.expel("0")
    turn_until(lambda: bool(member.lost) and len(member.assigned) == 4, member)
    assert sorted(member.lost) == sorted(member.assigned) == [0, 1, 2, 3]
    assert not member.revoked


def test_an_expelled_member_cannot_commit(world: World) -> None:
    member, sink = owning(world.source()), world.sink()
    sink.open()
    world.expel("0")
    with pytest.raises(TransactionFailed):
        sink.commit(forecast("a"), {0: 1}, member.source.group_metadata())
    assert world.read("forecasts") == []


def test_of_two_processes_with_one_name_the_older_ends_and_the_newer_survives(world: World) -> None:
    older, older_sink = owning(world.source()), world.sink()
    older_sink.open()
    metadata = older.source.group_metadata()
    newer, newer_sink = owning(world.source()), world.sink()
    newer_sink.open()

    with pytest.raises(TransactionFailed):  # its producer is fenced: it cannot know by whom yet
        older_sink.commit(forecast("older"), {0: 1}, metadata)
    with pytest.raises(Fenced):  # it tries again, and its membership is refused
        older_sink.commit(forecast("older"), {0: 1}, metadata)
    with pytest.raises(TransactionFailed):  # what the older one's second try cost the newer one
        newer_sink.commit(forecast("newer"), {0: 1}, newer.source.group_metadata())
    newer_sink.commit(forecast("newer"), {0: 1}, newer.source.group_metadata())

    assert [record.value for record in world.read("forecasts")] == [b"newer"]
    assert settled(newer.source, [0]) == {0: 1}


def test_the_older_process_does_not_take_the_newer_out_when_it_leaves(world: World) -> None:
    older = owning(world.source())
    newer = owning(world.source())
    older.source.close(leave=True)
    for _ in range(10):
        newer.turn()
    assert newer.source.assignment() == (0, 1, 2, 3)
    assert not newer.lost


def test_only_the_older_of_two_processes_with_one_name_finds_its_place_taken(world: World) -> None:
    older = owning(world.source())
    older.source.confirm()
    newer = owning(world.source())
    newer.source.confirm()
    with pytest.raises(Fenced):
        older.source.confirm()


def test_a_member_has_joined_once_it_knows_its_partitions(world: World) -> None:
    source = world.source()
    assert not source.joined
    owning(source)
    assert source.joined
