"""`tickcast state` and `status` against a real Kafka and a real daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from daemon.core.snapshot import decode
from daemon.dev.replay import partition_of
from daemon.tools.state_export import read_export
from daemon.tools.state_topic import read_stored
from daemon.transport.admin import create_topics
from daemon.transport.connection import Connection
from daemon.transport.kafka_reader import KafkaReader
from schemas import Forecast, ResetCause
from tests.bundles import tiny_bundle
from tests.e2e.world import PARTITIONS, World, await_that
from tests.integration.tool import Tool
from tests.kafka_fixture import topic_names

pytestmark = pytest.mark.kafka

NAMES = tuple(f"I{n}" for n in range(12))


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, tiny_bundle(tmp_path).path)
    yield made
    made.close()


def tool(world: World, **sections: Any) -> Tool:
    return Tool(world.directory / "tool.toml", world.settings("tool", **sections))


def stopped(world: World, count: int = 240) -> None:
    """Let a daemon answer ticks and stop."""
    daemon = world.daemon().wait_ready()
    world.send_quotes(count)
    world.await_outcomes()
    assert daemon.stop() == 0


def test_states_are_listed_and_shown_while_the_group_runs(world: World) -> None:
    tickcast = tool(world)
    assert [row["revision"] for row in tickcast.json("state", "list")["partitions"]] == [None] * PARTITIONS
    world.daemon(pipeline={"checkpoint_seconds": 0.2}).wait_ready()
    world.send_quotes(240)
    world.await_outcomes()
    await_that(lambda: len(tickcast.json("state", "list", "--instruments")["instruments"]) == 12, "states are saved")
    listed = tickcast.json("state", "list", "--instruments")
    (revision,) = {row["revision"] for row in listed["partitions"]}
    assert sum(row["instruments"] for row in listed["partitions"]) == 12
    assert {row["origin"] for row in listed["partitions"]} == {"first"}
    assert {row["instrument"]: row["partition"] for row in listed["instruments"]} == {
        name: partition_of(name, PARTITIONS) for name in NAMES
    }
    await_that(
        lambda: {row["step"] for row in tickcast.json("state", "list", "--instruments")["instruments"]} == {20},
        "the last checkpoint",
    )
    table = tickcast.text("state", "list", "--instruments").splitlines()
    assert table[0].split()[:4] == ["partition", "revision", "checkpoint", "committed"]
    assert table[1].split()[:2] == ["0", revision]
    assert sum(line.startswith("I") and line.split()[0] in NAMES for line in table) == 12
    status = tickcast.json("status")
    assert [(row["revision"], row["owner"]) for row in status["partitions"]] == [(revision, "0")] * PARTITIONS

    (found,) = tickcast.json("state", "show", "I3")["snapshots"]
    assert (found["instrument"], found["step"], found["revision"]) == ("I3", 20, revision)
    assert len(found["state"]) == 16
    assert found["cells"]["return: running variance"] > 0
    text = tickcast.text("state", "show", "I3")
    assert "return: running variance" in text
    assert "16 numbers" in text
    line = tickcast.refusal("state", "show", "I33", code=2)
    assert "no state of instrument 'I33'; close are I3" in line


def test_a_bundle_that_does_not_fit_or_is_not_there_leaves_cells_without_names(world: World) -> None:
    stopped(world)
    assert isinstance(tool(world).json("state", "show", "I1")["snapshots"][0]["cells"], dict)
    other = tool(world, pipeline={"warmup_ticks": 7})
    assert isinstance(other.json("state", "show", "I1")["snapshots"][0]["cells"], list)
    gone = tool(world, model={"bundle": str(world.directory / "nowhere")})
    assert isinstance(gone.json("state", "show", "I1")["snapshots"][0]["cells"], list)


@pytest.mark.parametrize("name", ["state.jsonl", "state.jsonl.gz"])
def test_an_export_holds_what_the_topic_holds(world: World, name: str) -> None:
    stopped(world)
    file = world.directory / name
    said = tool(world).json("state", "export", str(file))
    assert said == {"file": str(file), "partitions": PARTITIONS, "records": 12 + PARTITIONS}
    export = read_export(file)
    reader = KafkaReader(Connection(world.bootstrap), {"state": world.topics.state})
    for partition, held in export.partitions.items():
        stored = read_stored(reader, partition)
        assert held.values == stored.values
        assert held.marker() == stored.marker() is not None
    reader.close()


def test_exports_of_a_busy_group_are_consistent(world: World) -> None:
    daemon = world.daemon(pipeline={"checkpoint_ticks": 1, "max_batch_ticks": 20}).wait_ready()
    markers: set[int] = set()
    tickcast = tool(world)
    for number in range(4):
        world.send_quotes(1500)
        file = world.directory / f"busy-{number}.jsonl"
        tickcast.text("state", "export", str(file))
        for held in read_export(file).partitions.values():
            marker = held.marker()
            if marker is not None:
                markers.add(marker.next_offset)
                offsets = [decode(key.decode(), value).next_offset for key, value in held.values.items()]
                assert all(offset <= marker.next_offset for offset in offsets)
                assert max(offsets) == marker.next_offset
    assert len(markers) > PARTITIONS
    world.await_outcomes()
    assert daemon.stop() == 0


def twin_of(world: World) -> World:
    """Return a second service on the same ticks, with a group and outputs of its own."""
    twin = World(world.bootstrap, world.directory / "twin", world.bundle)
    twin.topics = topic_names("twin").model_copy(update={"ticks": world.topics.ticks})
    create_topics(Connection(world.bootstrap), twin.topics)
    return twin


def quotes(world: World, start: int, count: int) -> None:
    """Send the same quotes in every run, prices moving, each instrument in order."""
    base = 1_704_207_600 * 10**9
    world.send_ticks(
        {"instrument": f"I{n % 12}", "ts": base + n * 10**6, "bid": 100 + n * 7 % 11, "ask": 112 + n * 5 % 7}
        for n in range(start, start + count)
    )


def by_id(world: World) -> dict[str, bytes]:
    return {json.loads(r.value)["id"]: r.value for r in world.outcomes() if r.value is not None and not r.headers}


def test_a_reset_begins_one_instrument_anew_and_touches_no_other(world: World) -> None:
    twin = twin_of(world)
    settings = twin.settings()
    settings["kafka"]["group_id"] += "-twin"
    undisturbed = twin.daemon(kafka={"group_id": settings["kafka"]["group_id"]}).wait_ready()
    daemon, tickcast = world.daemon().wait_ready(), tool(world)
    quotes(world, 0, 600)
    world.await_outcomes()

    line = tickcast.refusal("state", "reset", "I5", "--yes", code=2)
    assert "is running (0)" in line
    assert "`session`" in line
    assert daemon.stop() == 0
    assert "close are I5" in tickcast.refusal("state", "reset", "I55", "--yes", code=2)
    assert "--yes" in tickcast.refusal("state", "reset", "I5", code=2)
    assert "1 reset written" in tickcast.text("state", "reset", "I5", "--yes")
    (note,) = [row["note"] for row in tickcast.json("state", "list", "--instruments")["instruments"] if row["note"]]
    assert note == "will be reset: operator"

    daemon.start().wait_ready()
    quotes(world, 600, 600)
    world.await_outcomes()
    await_that(lambda: len(by_id(twin)) == 1200, "the undisturbed run has answered all")
    ours, theirs = by_id(world), by_id(twin)
    assert daemon.stop() == undisturbed.stop() == 0
    twin.close()

    changed = [Forecast.model_validate_json(value) for id_, value in ours.items() if value != theirs[id_]]
    assert ours.keys() == theirs.keys()
    assert {forecast.instrument for forecast in changed} == {"I5"}
    assert len(changed) == 50
    first = min(changed, key=lambda forecast: forecast.ts)
    assert (first.step, first.reset) == (0, ResetCause.OPERATOR)
    assert [forecast.reset for forecast in changed if forecast is not first] == [None] * 49
    assert sorted(forecast.step for forecast in changed) == list(range(50))


def test_a_reset_after_a_kill_takes_place_at_the_committed_offset(world: World) -> None:
    daemon = world.daemon(pipeline={"checkpoint_seconds": 3600}).wait_ready()
    quotes(world, 0, 240)
    world.await_outcomes()
    assert daemon.stop() == 0
    daemon.start().wait_ready()
    quotes(world, 240, 240)
    world.await_outcomes()
    daemon.kill()
    tickcast = tool(world)
    await_that(lambda: tickcast.run("state", "reset", "--all", "--yes").returncode == 0, "the killed member is gone")
    daemon.start().wait_ready()
    quotes(world, 480, 240)
    found = [Forecast.model_validate_json(record.value) for record in world.await_outcomes()]
    assert daemon.stop() == 0
    resets = [forecast for forecast in found if forecast.reset is ResetCause.OPERATOR]
    assert {forecast.instrument for forecast in resets} == set(NAMES)
    assert len(resets) == 12
    assert all(forecast.step == 0 for forecast in resets)
    last_before = {f.instrument: f.ts for f in found if f.ts < 1_704_207_600 * 10**9 + 480 * 10**6}
    assert all(forecast.ts > last_before[forecast.instrument] for forecast in resets)


def test_a_group_that_starts_while_resets_are_written_is_seen(world: World) -> None:
    """Members that come between the first look and the last abort the transaction."""
    from daemon.cli import state
    from daemon.core.records import Message
    from daemon.errors import SettingsError
    from daemon.tools.state_reset import Reset, ResetPlan

    stopped(world)
    file = world.directory / "race.toml"
    Tool(file, world.settings("race"))
    before = tool(world).json("state", "list", "--instruments")
    with state._looking(file, None) as look:
        daemon = world.daemon().wait_ready()
        plan = ResetPlan((Reset("I1", 0, Message(0, b"I1", b"anything")),), ())
        with pytest.raises(SettingsError, match="is running"):
            state._write(look, plan, dict(look.committed))
        assert daemon.stop() == 0
        with pytest.raises(SettingsError, match="has run meanwhile"):
            state._write(look, plan, {p: (at or 0) + 1 for p, at in look.committed.items()})
    assert tool(world).json("state", "list", "--instruments") == before


def recovered_partitions(log: bytes) -> set[int]:
    """Return the partitions that a daemon has recovered, by its log."""
    lines = [json.loads(line) for line in log.splitlines() if line.endswith(b"}")]
    return {line["partition"] for line in lines if line["message"] == "partition recovered"}


def test_a_start_waits_for_resets_that_are_being_written(world: World) -> None:
    from daemon.core.records import Message
    from daemon.core.snapshot import encode_reset
    from daemon.transport.kafka_writer import KafkaWriter

    stopped(world)
    listed = tool(world).json("state", "list")["partitions"]
    home = partition_of("I1", PARTITIONS)
    value = encode_reset(listed[home]["revision"], listed[home]["committed"], "I1", ResetCause.OPERATOR, 0)
    with KafkaWriter(Connection(world.bootstrap), "race/state-reset") as writer:
        with writer.transaction() as transaction:
            transaction.send(world.topics.state, Message(home, b"I1", value))
            transaction.flush()
            before = world.daemons[-1].log.read_bytes()
            daemon = world.daemon()
            others = {partition for partition in range(PARTITIONS) if partition != home}

            def recovered() -> set[int]:
                return recovered_partitions(daemon.log.read_bytes().removeprefix(before))

            await_that(lambda: recovered() >= others, "the other partitions are recovered")
            assert home not in recovered()
        daemon.wait_ready()
    world.send_quotes(12)
    found = [Forecast.model_validate_json(record.value) for record in world.await_outcomes()]
    assert daemon.stop() == 0
    assert [f.instrument for f in found if f.reset is ResetCause.OPERATOR] == ["I1"]


def test_a_look_at_a_cluster_without_the_topics_is_one_line(kafka: str, tmp_path: Path) -> None:
    settings = {"kafka": {"bootstrap_servers": kafka}, "topics": topic_names("absent").model_dump()}
    line = Tool(tmp_path / "absent.toml", settings).refusal("state", "list", code=5)
    assert "topics check" in line


def test_a_foreign_record_in_the_state_topic_is_listed_as_such(world: World) -> None:
    stopped(world)
    producer = KafkaProducer(bootstrap_servers=world.bootstrap)
    producer.send(world.topics.state, b"no snapshot", b"I0", partition=partition_of("I0", PARTITIONS))
    producer.close()
    # What stands behind the newest marker counts only if it is a reset: a checkpoint may be on its way.
    assert all(row["note"] is None for row in tool(world).json("state", "list", "--instruments")["instruments"])
