"""`tickcast deadletters` against a real Kafka: what is shown, and what is put back, exactly once."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.consumer.fetcher import ConsumerRecord

from daemon.core.records import Message
from daemon.errors import Fenced
from daemon.transport.connection import Connection
from daemon.transport.group import read_group
from daemon.transport.kafka_writer import KafkaWriter
from schemas import HEADER_PREFIX
from tests.bundles import tiny_bundle
from tests.e2e.world import World, await_that, origin, read_topics
from tests.integration.tool import Tool

pytestmark = pytest.mark.kafka

ATTEMPT = HEADER_PREFIX + "attempt"
#: What mends ticks whose price has another name.
TICK_MAP = {"price": "last"}


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, tiny_bundle(tmp_path).path)
    yield made
    made.close()


def tool(world: World, **sections: Any) -> Tool:
    return Tool(world.directory / "tool.toml", world.settings("tool", **sections))


def all_ticks(world: World) -> list[ConsumerRecord]:
    return read_topics(world.bootstrap, world.topics.ticks)


def put_back(world: World) -> list[ConsumerRecord]:
    return [record for record in all_ticks(world) if any(name == ATTEMPT for name, _ in record.headers)]


def quote(name: str, ts: int, **facts: Any) -> bytes:
    return json.dumps({"instrument": name, "ts": ts, "bid": 100, "ask": 101, **facts}).encode()


def send_bad(world: World) -> int:
    """Send one good tick, then seven bad ones of partition 1; return the time of the good one."""
    now = time.time_ns()
    world.send(quote("A", now), b"A", 1)
    world.send(quote("A", now - 10**9), b"A", 1)  # late, for ever
    world.send(b"{", b"A", 1)  # not JSON, for ever
    world.send(quote("B", now + 3 * 10**9), b"B", 1)  # ahead of its time, for three seconds
    world.send(quote("A", now + 4 * 10**9, session="x"), b"A", 1)  # the same
    world.send(json.dumps({"instrument": "C", "ts": now, "last": 5.0}).encode(), b"C", 1)  # until the map is mended
    world.send(None, b"A", 1)
    world.send(quote("A", now)[:-1] + b', "note": "tab\\t\x07"}', b"A", 1)
    return now


def test_letters_are_shown_with_where_and_why(world: World) -> None:
    tickcast = tool(world)
    assert tickcast.text("deadletters", "show").startswith("0 dead letters")
    daemon = world.daemon(pipeline={"future_skew_seconds": 1}).wait_ready()
    send_bad(world)
    world.await_outcomes()
    assert daemon.stop() == 0
    shown = tickcast.json("deadletters", "show")
    assert shown["counts"] == {"late": 1, "not_json": 2, "future_time": 2, "missing_field": 1, "empty": 1}
    assert len(shown["letters"]) == 7
    late = shown["letters"][0]
    assert (late["reason"], late["key"], late["attempt"], late["partition"]) == ("late", "A", 1, 1)
    assert late["tick"] == {
        "topic": world.topics.ticks, "partition": 1, "offset": 1, "timestamp_ms": late["tick"]["timestamp_ms"]
    }  # fmt: skip
    assert json.loads(base64.b64decode(late["value_base64"]))["instrument"] == "A"
    only = tickcast.json("deadletters", "show", "--reason", "not_json", "--limit", "1")
    assert only["counts"] == {"not_json": 2}
    assert [each["tick"]["offset"] for each in only["letters"]] == [7]
    table = tickcast.text("deadletters", "show")
    assert "\x07" not in table
    assert table.splitlines()[-1].startswith("7 dead letters")
    assert f"{world.topics.ticks}-1-1" in table
    assert "known are empty, not_json" in tickcast.refusal("deadletters", "show", "--reason", "bad", code=2)


def test_letters_are_put_back_once_and_answered(world: World) -> None:
    daemon = world.daemon(pipeline={"future_skew_seconds": 1}).wait_ready()
    now = send_bad(world)
    world.await_outcomes()
    tickcast = tool(world, pipeline={"future_skew_seconds": 1})
    await_that(lambda: time.time_ns() > now + 4 * 10**9, "the ticks ahead of their time are due")
    await_that(
        lambda: sum(row["instruments"] for row in tickcast.json("state", "list")["partitions"]) == 1, "A is saved"
    )
    dry = tickcast.json("deadletters", "replay", "--dry-run")
    assert (dry["put_back"], dry["rejected_again"]) == (2, 5)
    assert {reason: found["count"] for reason, found in dry["reasons"].items()} == {
        "late": 1,
        "not_json": 2,
        "missing_field": 1,
        "empty": 1,
    }
    assert put_back(world) == []

    text = tickcast.text("deadletters", "replay")
    assert text.startswith("2 put back, 5 would only be rejected again:\n")
    ticks = put_back(world)
    assert [(t.partition, t.key, dict(t.headers)) for t in ticks] == [(1, key, {ATTEMPT: b"1"}) for key in (b"B", b"A")]
    world.sent += [(t.partition, t.offset) for t in ticks]
    outcomes = world.await_outcomes()
    assert [bool(o.headers) for o in outcomes if origin(o) in world.sent[-2:]] == [False, False]

    again = tickcast.json("deadletters", "replay")
    assert (again["put_back"], again["rejected_again"]) == (0, 3)
    assert len(put_back(world)) == 2
    assert daemon.stop() == 0


def test_what_is_mended_is_heard_again_and_what_fails_again_counts_on(world: World) -> None:
    daemon = world.daemon(pipeline={"future_skew_seconds": 1}).wait_ready()
    now = time.time_ns()
    value = json.dumps({"instrument": "C", "ts": now, "last": 5.0}).encode()
    world.send(value, b"C", 2)
    world.await_outcomes()
    assert tool(world).json("deadletters", "replay")["put_back"] == 0
    mended = tool(world, **{"ticks.map": TICK_MAP})
    assert mended.json("deadletters", "replay")["put_back"] == 1
    (tick,) = put_back(world)
    assert (tick.partition, tick.key, tick.value) == (2, b"C", value)
    # The daemon still runs without the map, so the tick fails a second time, and says so.
    world.sent.append((tick.partition, tick.offset))
    world.await_outcomes()
    assert [each["attempt"] for each in mended.json("deadletters", "show")["letters"]] == [1, 2]
    assert mended.json("deadletters", "replay")["put_back"] == 1
    assert [dict(each.headers)[ATTEMPT] for each in put_back(world)] == [b"1", b"2"]
    assert daemon.stop() == 0


def test_ticks_and_place_are_one_transaction_and_a_second_command_ends_the_first(world: World) -> None:
    connection, group = Connection(world.bootstrap), world.topics.ticks + "-letters"

    def place() -> int | None:
        return read_group(connection, group, world.topics.dead_letters).partitions[1].committed

    def write(writer: KafkaWriter, value: bytes, next_letter: int, *, fails: bool = False) -> None:
        with writer.transaction() as transaction:
            transaction.send(world.topics.ticks, Message(1, b"A", value, [(ATTEMPT, b"1")]))
            transaction.flush()
            transaction.commit_offsets(group, world.topics.dead_letters, {1: next_letter})
            if fails:
                raise RuntimeError("in between")

    with KafkaWriter(connection, group) as writer, pytest.raises(RuntimeError, match="in between"):
        write(writer, b"never", 5, fails=True)
    assert (put_back(world), place()) == ([], None)
    with KafkaWriter(connection, group) as first:
        with KafkaWriter(connection, group) as second:
            write(second, b"once", 7)
        with pytest.raises(Fenced, match="another command"):
            write(first, b"twice", 9)
    assert ([tick.value for tick in put_back(world)], place()) == ([b"once"], 7)
