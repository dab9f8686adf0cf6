"""`tickcast rewind`, and the two procedures built on it: a group set back, and a backfill beside a group that runs."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.cli.rewind import consequences, parse_when
from daemon.config import TopicSettings
from daemon.errors import SettingsError
from schemas import Forecast, ResetCause
from tests.bundles import tiny_bundle
from tests.e2e.world import PARTITIONS, World, await_that
from tests.integration.tool import Tool
from tests.kafka_fixture import topic_names

BASE = 1_704_207_600 * 10**9


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, tiny_bundle(tmp_path).path)
    yield made
    made.close()


def quotes(world: World, start: int, count: int) -> None:
    """Send quotes with moving prices, each instrument in order."""
    world.send_ticks(
        {"instrument": f"I{n % 12}", "ts": BASE + n * 10**6, "bid": 100 + n * 7 % 11, "ask": 112 + n * 5 % 7}
        for n in range(start, start + count)
    )


def pause_between() -> str:
    """Return a time after all records so far and before all to come."""
    time.sleep(0.02)
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    time.sleep(0.02)
    return now


def forecasts(world: World) -> list[bytes]:
    return [r.value for r in world.outcomes() if r.topic == world.topics.forecasts]


def of_log(world: World, name: str = "daemon-0") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (world.directory / f"{name}.log").read_text().splitlines()]


@pytest.mark.kafka
def test_a_group_set_back_publishes_the_same_ids_again_and_starts_cold(world: World) -> None:
    tickcast = Tool(world.directory / "tool.toml", world.settings("tool"))
    daemon = world.daemon().wait_ready()
    quotes(world, 0, 360)
    world.await_outcomes()
    then, before = pause_between(), tickcast.json("status")["partitions"]
    quotes(world, 360, 240)
    world.await_outcomes()
    assert "stop all of its instances" in tickcast.refusal("rewind", "--to", then, "--yes", code=2)
    assert daemon.stop() == 0

    assert "nobody is there" in tickcast.refusal("rewind", "--to", then, code=2)
    text = tickcast.text("rewind", "--to", then, "--yes")
    assert "published again, with the same ids" in text
    committed = [row["committed"] for row in tickcast.json("status")["partitions"]]
    records = Counter(partition for partition, _ in world.sent[:360])
    assert committed == [records[partition] for partition in range(PARTITIONS)]
    assert all(at <= row["committed"] for at, row in zip(committed, before, strict=True))

    first = forecasts(world)
    daemon.start().wait_ready()
    await_that(lambda: len(forecasts(world)) == 600 + 240, "what follows is published again")
    assert daemon.stop() == 0
    again = [Forecast.model_validate_json(value) for value in (Counter(forecasts(world)) - Counter(first)).elements()]
    ids = Counter(json.loads(value)["id"] for value in forecasts(world))
    assert Counter(ids.values()) == {1: 360, 2: 240}
    assert {f.instrument: f.step for f in again if f.reset is ResetCause.COLD} == {f"I{n}": 0 for n in range(12)}
    assert any("the group was set back" in line["message"] for line in of_log(world))


@pytest.mark.kafka
def test_a_backfill_runs_into_topics_of_its_own_while_the_group_goes_on(world: World) -> None:
    daemon = world.daemon().wait_ready()
    quotes(world, 0, 240)
    world.await_outcomes()
    then = pause_between()
    quotes(world, 240, 240)
    world.await_outcomes()

    other = World(world.bootstrap, world.directory / "backfill", world.bundle)
    other.topics = TopicSettings(**topic_names("backfill").model_dump() | {"ticks": world.topics.ticks})
    group = {"group_id": other.topics.state}
    tickcast = Tool(other.directory / "tool.toml", other.settings("0", kafka=group))
    created = tickcast.text("topics", "create").splitlines()
    assert [line.endswith("was there") for line in created] == [True, False, False, False]
    rewound = tickcast.json("rewind", "--to", then, "--yes")["partitions"]
    assert [row["before"] for row in rewound] == [None] * PARTITIONS
    backfill = other.daemon(kafka=group).wait_ready()
    await_that(lambda: len(forecasts(other)) == 240, "the backfill has arrived")

    quotes(world, 480, 120)
    world.await_outcomes()
    await_that(lambda: len(forecasts(other)) == 360, "and goes on")
    assert daemon.stop() == backfill.stop() == 0
    other.close()
    found = [Forecast.model_validate_json(value) for value in forecasts(other)]
    assert {forecast.ts for forecast in found} == {BASE + n * 10**6 for n in range(240, 600)}
    assert Counter(forecast.reset for forecast in found) == {ResetCause.COLD: 12, None: 348}
    assert len(forecasts(world)) == 600


@pytest.mark.kafka
def test_ends_single_partitions_and_wrong_use(world: World) -> None:
    tickcast = Tool(world.directory / "tool.toml", world.settings("tool"))
    quotes(world, 0, 120)
    ends = [count for _, count in sorted(Counter(partition for partition, _ in world.sent).items())]
    one = tickcast.json("rewind", "--to", "latest", "--partition", "2", "--yes")
    assert one["partitions"] == [{"partition": 2, "before": None, "after": ends[2]}]
    found = tickcast.json("rewind", "--to", "earliest", "--yes")["partitions"]
    assert [row["before"] for row in found] == [None, None, ends[2], None]
    assert [row["after"] for row in found] == [0] * PARTITIONS
    future = tickcast.json("rewind", "--to", "2100-01-01T00:00:00Z", "--yes")["partitions"]
    assert [row["after"] for row in future] == ends
    assert "no partition 9, only 0 to 3" in tickcast.refusal("rewind", "--to", "latest", "-p", "9", "--yes", code=2)


def test_times_are_exact_and_have_an_offset() -> None:
    assert parse_when("earliest") == "earliest"
    assert parse_when("latest") == "latest"
    assert parse_when("2024-01-02T15:00:00.123Z") == 1_704_207_600_123
    assert parse_when("2024-01-02T16:00:00.1230001+01:00") == 1_704_207_600_123  # read to the microsecond
    assert parse_when("2024-01-02T15:00:00.123001Z") == 1_704_207_600_124
    with pytest.raises(SettingsError, match="no offset from UTC"):
        parse_when("2024-01-02T15:00:00")
    with pytest.raises(SettingsError, match="neither earliest"):
        parse_when("yesterday")


def test_what_a_change_does_is_said() -> None:
    back, ahead, new = consequences({0: 10, 1: 10, 2: None, 3: 10}, {0: 5, 1: 20, 2: 5, 3: 10})
    assert back.startswith("set back: partition 0;")
    assert ahead.startswith("set ahead: partition 1;")
    assert new.startswith("new: partition 2;")
    assert consequences({0: 10}, {0: 10}) == ["nothing changes"]
