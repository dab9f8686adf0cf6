"""Training reads a bounded range of a topic on a real broker, and sees what a file of the same ticks shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.boundaries import resolve_rules
from daemon.dev.replay import TickProducer
from daemon.errors import SettingsError, TickcastError
from daemon.training.collect import collect
from daemon.training.topic import find_ranges, read_topic
from daemon.transport.connection import Connection
from tests.integration.tool import Tool
from tests.kafka_fixture import make_topics
from tests.training.market_ticks import market_ticks

pytestmark = pytest.mark.kafka

RULES = resolve_rules(())
TICKS = market_ticks(3000)


@pytest.fixture
def topic(kafka: str) -> str:
    topics = make_topics(kafka, "train", partitions=2)
    producer = TickProducer(Connection(kafka), topics.ticks)
    for tick in TICKS:
        producer.send(tick)
    producer.flush()
    producer.close()
    return topics.ticks


def names_and_counts(found) -> dict[str, int]:
    return {track.name: len(track.ts) for track in found.tracks}


def test_all_of_a_topic_gives_the_tracks_of_the_file(kafka: str, topic: str) -> None:
    connection = Connection(kafka)
    ranges = find_ranges(connection, topic, "earliest", "latest")
    heard: list[int] = []
    found = collect(read_topic(connection, topic, ranges), ("return",), RULES, heard.append)
    expected = collect(TICKS, ("return",), RULES)
    assert names_and_counts(found) == names_and_counts(expected)
    for ours, theirs in zip(found.tracks, expected.tracks, strict=True):
        assert ours.features.tobytes() == theirs.features.tobytes()
    assert heard


def test_a_range_is_bounded_on_both_sides(kafka: str, topic: str) -> None:
    connection = Connection(kafka)
    whole = find_ranges(connection, topic, "earliest", "latest")
    part = find_ranges(connection, topic, "earliest", "latest", from_offset=200)
    assert all(where.start == 200 and where.end == whole[partition].end for partition, where in part.items())
    late = TickProducer(Connection(kafka), topic)
    late.send(TICKS[0] | {"instrument": "LATE"})
    late.flush()
    late.close()
    values = list(read_topic(connection, topic, part))
    assert len(values) == sum(where.end - where.start for where in part.values())
    assert not any(json.loads(value)["instrument"] == "LATE" for value in values)


def test_an_empty_range_and_an_unknown_topic_are_named(kafka: str, topic: str) -> None:
    with pytest.raises(SettingsError, match=f"topic {topic} has no ticks in this range"):
        find_ranges(Connection(kafka), topic, "latest", "latest")
    with pytest.raises(TickcastError, match="absent-topic"):
        find_ranges(Connection(kafka), "absent-topic", "earliest", "latest")


@pytest.mark.tensorflow
def test_the_command_trains_from_a_topic(kafka: str, topic: str, tmp_path: Path) -> None:
    tool = Tool(tmp_path / "tool.toml", {"kafka": {"bootstrap_servers": kafka}})
    done = tool.run(
        "train", "--topic", topic, "--out", str(tmp_path / "bundle"), "--horizons", "1,5", "--units", "4",
        "--layers", "1", "--epochs", "1", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["tick_count"] == len(TICKS)
    assert (tmp_path / "bundle").is_dir()
