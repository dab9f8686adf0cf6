"""Real ticks through a real Kafka, with a model trained on their first half. `bench/real_ticks.py` does all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from daemon.tick_files import read_ticks
from daemon.training import TrainingOptions, train
from schemas import Forecast
from tests.e2e.world import World, origin

pytestmark = [pytest.mark.kafka, pytest.mark.tensorflow]

CUT = 30_000
ONE_BY_ONE = 1_200


@pytest.fixture(scope="module")
def ticks(real_ticks: Path) -> list[dict[str, Any]]:
    return list(islice(read_ticks([real_ticks], in_order=True), CUT))


@pytest.fixture(scope="module")
def bundle(ticks: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("real") / "bundle"
    train(ticks[: CUT // 2], TrainingOptions(units=16, layers=1, epochs=1), out)
    return out


@pytest.fixture
def world(kafka: str, tmp_path: Path, bundle: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, bundle)
    yield made
    made.close()


def test_every_real_tick_has_a_forecast_in_the_order_of_its_instrument(
    world: World, ticks: list[dict[str, Any]]
) -> None:
    world.send_ticks(ticks)
    daemon = world.daemon().wait_ready()
    found = world.await_outcomes()
    by_instrument: dict[str, list[Forecast]] = defaultdict(list)
    for record in found:
        assert not record.headers, f"tick {origin(record)} became a dead letter"
        forecast = Forecast.model_validate_json(record.value)
        by_instrument[forecast.instrument].append(forecast)
    assert {name: len(forecasts) for name, forecasts in by_instrument.items()} == count_by_instrument(ticks)
    for name, forecasts in by_instrument.items():
        assert [f.ts for f in forecasts] == [t["ts"] for t in ticks if t["instrument"] == name]
        assert [f.step for f in forecasts] == list(range(len(forecasts)))
    metrics = daemon.metrics()
    assert metrics["tickcast_probe_variance"] == 0
    assert metrics['tickcast_prediction_variance{instrument="BTCUSDT.SPOT"}'] > 0


def test_one_tick_a_batch_and_two_thousand_give_the_same_bytes(
    world: World, kafka: str, tmp_path: Path, bundle: Path, ticks: list[dict[str, Any]]
) -> None:
    other = World(kafka, tmp_path / "other", bundle)
    try:
        payloads = []
        for each, size in ((world, 1), (other, 2000)):
            each.send_ticks(ticks[:ONE_BY_ONE])
            each.daemon(pipeline={"max_batch_ticks": size}).wait_ready()
            topic = each.topics.ticks.encode()
            payloads.append({origin(r): r.value.replace(topic, b"ticks") for r in each.await_outcomes()})
        assert payloads[0] == payloads[1]
    finally:
        other.close()


def count_by_instrument(ticks: list[dict[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for tick in ticks:
        counts[tick["instrument"]] += 1
    return dict(counts)
