"""What every `Sink` promises: all or nothing, and nothing of a failure in what follows."""

from __future__ import annotations

import pytest

from daemon.core.records import Message
from daemon.errors import TransactionFailed
from daemon.transport.port import Outgoing, Role, Sink, Source
from tests.contract.members import Member, forecast, owning, settle, settled, ticks, turn_until
from tests.contract.worlds import World


def values(world: World, role: Role = "forecasts") -> list[bytes | None]:
    return [record.value for record in world.read(role)]


def opened(world: World, instance: str = "0") -> Sink:
    sink = world.sink(instance)
    sink.open()
    return sink


def joined(world: World, instance: str = "0") -> Source:
    return owning(world.source(instance)).source


def test_a_transaction_carries_messages_of_every_role_and_the_offsets(world: World) -> None:
    source, sink = joined(world), opened(world)
    messages: dict[Role, list[Message]] = {
        "forecasts": [Message(1, b"A", b"one"), Message(3, b"B", b"two", (("name", b"value"),))],
        "dead_letters": [Message(2, b"\xff", b"", (("reason", b"late"),))],
        "state": [Message(1, b"A", b"snapshot"), Message(1, b"B", None)],
    }
    sink.commit(Outgoing(messages), {1: 5, 2: 7}, source.group_metadata())
    for role, sent in messages.items():
        got = world.read(role)
        assert [(r.partition, r.key, r.value, [tuple(h) for h in r.headers]) for r in got] == [
            (m.partition, m.key, m.value, list(m.headers)) for m in sent
        ]
    assert settled(source, [0, 1, 2, 3]) == {0: None, 1: 5, 2: 7, 3: None}


def test_messages_of_a_partition_keep_their_order(world: World) -> None:
    source, sink = joined(world), opened(world)
    for start in range(0, 600, 200):
        batch = [Message(0, b"A", str(n).encode()) for n in range(start, start + 200)]
        sink.commit(Outgoing({"forecasts": batch}), {0: start + 200}, source.group_metadata())
    assert values(world) == [str(n).encode() for n in range(600)]


def test_offsets_alone_are_committed(world: World) -> None:
    source, sink = joined(world), opened(world)
    sink.commit(Outgoing(), {0: 3}, source.group_metadata())
    assert settled(source, [0]) == {0: 3}


def test_a_transaction_without_offsets_is_refused(world: World) -> None:
    source, sink = joined(world), opened(world)
    with pytest.raises(AssertionError):
        sink.commit(forecast("a"), {}, source.group_metadata())


def test_the_next_owner_begins_where_the_last_one_committed(world: World) -> None:
    world.produce(ticks(0, "a", "b", "c"))
    first, sink = owning(world.source()), opened(world)
    turn_until(lambda: len(first.records) == 2, first, max_records=2)
    sink.commit(forecast("a b"), first.source.positions(), first.source.group_metadata())
    first.source.close(leave=True)
    second = owning(world.source("1"))
    turn_until(lambda: bool(second.records), second)
    assert second.values == [(0, b"c")]


def test_a_stale_generation_commits_nothing_and_leaks_nothing_into_the_next_transaction(world: World) -> None:
    first, sink = owning(world.source()), opened(world)
    stale = first.source.group_metadata()
    settle(first, Member(world.source("1")))
    with pytest.raises(TransactionFailed):
        sink.commit(forecast("stale"), {0: 100, 1: 100, 2: 100, 3: 100}, stale)
    assert values(world) == []
    mine = first.source.assignment()[0]
    sink.commit(forecast("good"), {mine: 1}, first.source.group_metadata())
    assert values(world) == [b"good"]
    expected = {partition: 1 if partition == mine else None for partition in range(4)}
    assert settled(first.source, range(4)) == expected


def test_a_pending_rebalance_does_not_stop_a_commit(world: World) -> None:
    first, sink = owning(world.source()), opened(world)
    Member(world.source("1")).turn()  # has asked to join; the group waits for the first member
    sink.commit(forecast("a"), {0: 1}, first.source.group_metadata())
    assert values(world) == [b"a"]


def test_a_second_sink_with_the_same_id_fences_the_first(world: World) -> None:
    source, first = joined(world), opened(world)
    first.commit(forecast("a"), {0: 1}, source.group_metadata())
    opened(world)
    with pytest.raises(TransactionFailed):
        first.commit(forecast("b"), {0: 2}, source.group_metadata())
    assert values(world) == [b"a"]
    assert settled(source, [0]) == {0: 1}
    first.commit(forecast("c"), {0: 3}, source.group_metadata())  # on a fresh producer
    assert values(world) == [b"a", b"c"]


def test_sinks_of_two_instances_do_not_disturb_each_other(world: World) -> None:
    first, second = owning(world.source()), Member(world.source("1"))
    settle(first, second)
    sinks = opened(world), opened(world, "1")
    for number in range(3):
        for member, sink in zip((first, second), sinks, strict=True):
            partition = member.source.assignment()[0]
            sink.commit(forecast(str(number), partition), {partition: number}, member.source.group_metadata())
    assert values(world) == [b"0", b"1", b"2"] * 2


def test_open_ends_what_a_killed_process_left_open(world: World) -> None:
    source = joined(world)
    world.hang("0", Message(0, b"A", b"never"), {0: 9}, source.group_metadata())
    assert 0 not in source.committed([0])
    sink = opened(world)
    assert settled(source, [0]) == {0: None}
    sink.commit(forecast("good"), {0: 1}, source.group_metadata())
    assert values(world) == [b"good"]


def test_a_sink_closes_whatever_state_it_is_in(world: World) -> None:
    source = joined(world)
    world.sink().close()
    sink = opened(world)
    opened(world)
    with pytest.raises(TransactionFailed):
        sink.commit(forecast("b"), {0: 2}, source.group_metadata())
    sink.close()
    sink.close()
