"""A model in window mode that is rolled out, as a daemon on a real Kafka: the promises of a carried state hold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from daemon.core.spec import Column, Output
from daemon.model.bundle import Bundle
from schemas import Forecast
from tests.bundles import tiny_bundle
from tests.e2e.world import PARTITIONS, World, await_that

pytestmark = pytest.mark.kafka

COLUMNS = (Column("price", mean=103.0, std=2.0), Column("spread", "running", std=1e-2), Column("field:flow"))
WINDOW = {
    "mode": "window",
    "steps": 6,
    "missing": "last",
    "future": ("output:0", "hold", 0.0),
    "horizons": (1, 4, 9),
}


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    bundle = tiny_bundle(tmp_path, columns=COLUMNS, outputs=(Output(1, "price", mean=103.0, scale=0.5),), **WINDOW)
    made = World(kafka, tmp_path, bundle.path)
    yield made
    made.close()


def test_kills_change_no_bit_of_what_predict_says_of_the_same_ticks(world: World) -> None:
    daemon = world.daemon(pipeline={"max_batch_ticks": 50, "checkpoint_ticks": 200}).wait_ready()
    for life in range(3):
        world.send_ticks(ticks(life))
        await_that(lambda: daemon.metrics().get('tickcast_ticks_total{outcome="forecast"}', 0) > 200, "ticks flow")
        if life < 2:
            daemon.kill()
            daemon.start().wait_ready()
    found = [Forecast.model_validate_json(record.value) for record in world.await_outcomes()]
    metrics = daemon.metrics()
    assert metrics["tickcast_probe_runs_total"] > 0
    assert metrics["tickcast_probe_variance"] == 0
    expected = by_instrument(Bundle.load(world.bundle).predict(log_of(world)))
    assert {len(each["mean"]) for answers in expected.values() for each in answers} == {3}
    for name, answers in by_instrument([forecast.model_dump() for forecast in found]).items():
        assert [(each["step"], list(each["mean"])) for each in answers] == [
            (each["step"], each["mean"]) for each in expected[name]
        ]


def ticks(life: int) -> list[dict[str, Any]]:
    """Return quotes of 12 instruments, a third of them without the field."""
    made = []
    for n in range(900):
        at = 1_704_207_600 * 10**9 + (900 * life + n) * 10**7
        tick = {"instrument": f"I{n % 12}", "ts": at, "bid": 100 + n % 7, "ask": 101 + n % 7 + life}
        made.append(tick | ({"fields": {"flow": float(n % 5)}} if n < 12 or n % 3 else {}))
    return made


def log_of(world: World) -> list[dict[str, Any]]:
    """Return all ticks of the topic, each instrument's in its order."""
    consumer = KafkaConsumer(bootstrap_servers=world.bootstrap, enable_auto_commit=False)
    places = [TopicPartition(world.topics.ticks, partition) for partition in range(PARTITIONS)]
    consumer.assign(places)
    consumer.seek_to_beginning()
    found: list[dict[str, Any]] = []
    while len(found) < len(world.sent):
        for records in consumer.poll(200).values():
            found += [json.loads(record.value) for record in records]
    consumer.close()
    return found


def by_instrument(forecasts: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for forecast in forecasts:
        found[forecast["instrument"]].append(forecast)
    return dict(found)
