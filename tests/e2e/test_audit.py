"""The audit against a real Kafka: what daemons published through kills and hand-overs, and what somebody altered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord

from daemon.dev.child import to_toml
from tests.bundles import tiny_bundle
from tests.e2e.world import PARTITIONS, World, await_that
from tests.kafka_fixture import make_topics

pytestmark = pytest.mark.kafka

Change = Callable[[ConsumerRecord], Iterable[bytes]]


@pytest.fixture(scope="module")
def served(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Ticks answered by instances that came, went and were killed; all of them have stopped."""
    directory = tmp_path_factory.mktemp("audit")
    world = World(kafka, directory, tiny_bundle(directory).path)
    often = {"checkpoint_ticks": 300, "max_batch_ticks": 100}
    one = world.daemon("one", pipeline=often).wait_ready()
    two = world.daemon("two", pipeline=often).wait_ready()
    for victim in (one, two, one):
        done = forecasts_of(victim)
        send(world, 2000)
        await_that(lambda: forecasts_of(victim) > done + 100, "ticks flow")  # noqa: B023
        victim.kill()
        victim.start().wait_ready()
    assert two.stop() == 0
    send(world, 500)
    world.await_outcomes()
    assert one.stop() == 0
    yield world
    world.close()


def send(world: World, count: int) -> None:
    """Send quotes, some of them after bad ticks."""
    for part in range(count // 500):
        world.send_quotes(500)
        world.send(b"no tick", b"I1", part % PARTITIONS)


def forecasts_of(daemon: Any) -> float:
    return float(daemon.metrics().get('tickcast_ticks_total{outcome="forecast"}', 0))


def audit(world: World, *arguments: str, **sections: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run `tickcast audit` under the world's settings."""
    return tickcast(world, "audit", *arguments, **sections)


def tickcast(world: World, *arguments: str, **sections: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    config = world.directory / "audit.toml"
    config.write_text(to_toml(world.settings("audit", **sections)), "utf-8")
    command = [sys.executable, "-m", "daemon.cli.main", *arguments, "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def judged(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found["total"]


def test_everything_that_instances_published_through_kills_is_equal(served: World) -> None:
    done = audit(served, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = judged(done)
    bad = sum(1 for _ in filter(lambda r: bool(r.headers), served.outcomes()))
    assert found["forecasts"] == {"equal": len(served.sent) - bad, "different": 0}
    assert found["dead_letters"] == {"equal": bad, "different": 0}
    assert bad >= 12
    assert (found["resets_taken_over"], found["not_judged"]["outcomes"]) == (0, 0)


def test_a_person_is_told_the_same(served: World) -> None:
    done = audit(served, "--partition", "2", "--from", "10", "--to", "20")
    assert done.returncode == 0
    assert "partition 2: from tick 0, where the states began" in done.stdout
    assert done.stdout.splitlines()[2].split()[:2] == ["all", "10"]
    assert "ticks/s" in done.stdout
    assert audit(served, "--partition", "9").returncode == 2


def altered(world: World, change: Change) -> dict[str, str]:
    """Copy the forecasts into another topic, changed, and return the topics with it."""
    other = make_topics(world.bootstrap, "altered", PARTITIONS).forecasts
    consumer = KafkaConsumer(bootstrap_servers=world.bootstrap, isolation_level="read_committed")
    places = [TopicPartition(world.topics.forecasts, p) for p in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_beginning()
    ends = consumer.end_offsets(places)
    producer = KafkaProducer(bootstrap_servers=world.bootstrap, linger_ms=20)
    while any(consumer.position(place) < ends[place] for place in places):
        for records in consumer.poll(200, max_records=5000).values():
            for record in records:
                for value in change(record):
                    producer.send(other, value, record.key, partition=record.partition)
    consumer.close()
    producer.close()
    return {**world.topics.model_dump(), "forecasts": other}


def of_tick(record: ConsumerRecord, partition: int, offset: int) -> bool:
    return b'-%d-%d"' % (partition, offset) in record.value[:80]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("different", lambda r: [r.value.replace(b'"warm":', b'"warm": ') if of_tick(r, 1, 77) else r.value]),
        ("missing", lambda r: [] if of_tick(r, 1, 77) else [r.value]),
        ("twice", lambda r: [r.value, r.value] if of_tick(r, 1, 77) else [r.value]),
    ],
)
def test_one_altered_forecast_among_thousands_is_found(served: World, name: str, change: Change) -> None:
    done = audit(served, "--json", topics=altered(served, change))
    assert done.returncode == 1
    found = judged(done)
    assert {"different": found["forecasts"]["different"], "missing": found["missing"], "twice": found["twice"]} == {
        **dict.fromkeys(("different", "missing", "twice"), 0),
        name: 1,
    }
    fault = found["first_fault"]
    assert (fault["kind"], fault["partition"], fault["offset"]) == (name, 1, 77)
    assert "instrument" in fault["tick"]["value"]
    assert "(partition 1)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("tickcast: error: 1 outcome ")


def test_other_settings_judge_nothing_and_say_so(served: World) -> None:
    done = audit(served, pipeline={"coverage": 0.8})
    assert done.returncode == 1
    assert "is of revision" in done.stdout
    assert done.stderr.startswith("tickcast: error: nothing was judged")


def test_an_export_is_the_start_where_the_first_ticks_are_gone(kafka: str, tmp_path: Path) -> None:
    world = World(kafka, tmp_path, tiny_bundle(tmp_path).path)
    try:
        daemon = world.daemon().wait_ready()
        send(world, 1000)
        world.await_outcomes()
        assert daemon.stop() == 0
        file = tmp_path / "states.gz"
        exported = tickcast(world, "state", "export", str(file))
        assert exported.returncode == 0, exported.stderr
        first = len(world.sent)
        daemon.start().wait_ready()
        send(world, 1000)
        world.await_outcomes()
        admin = KafkaAdminClient(bootstrap_servers=kafka)
        admin.delete_records({TopicPartition(world.topics.ticks, p): 40 for p in range(PARTITIONS)})
        admin.close()
        running = audit(world, "--json", "--snapshot", str(file))
        assert running.returncode == 0, running.stdout + running.stderr
        found = judged(running)
        assert found["forecasts"]["equal"] + found["dead_letters"]["equal"] == len(world.sent) - first
        without = audit(world, "--json")
        assert without.returncode == 0  # dead letters that no state has a say in
        assert judged(without)["not_judged"]["instruments"] == 12
        assert judged(without)["forecasts"] == {"equal": 0, "different": 0}
    finally:
        world.close()
