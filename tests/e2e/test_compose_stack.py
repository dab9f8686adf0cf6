"""`docker compose up` without containers: the compose file's own commands, broker settings and Prometheus, for real."""

from __future__ import annotations

import json
import shutil
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from daemon.model.bundle import Bundle
from schemas import Forecast
from tests.bundles import tiny_bundle
from tests.deploy.compose_file import services
from tests.e2e.compose_stack import NO_SETTING, Stack, property_name
from tests.e2e.world import await_that, read_topics

pytestmark = pytest.mark.kafka

#: No Grafana can be had for tests.
NOT_STARTED = {"grafana"}
#: Settings that the broker does not tell: where it listens is proven by who reaches it.
UNTOLD = {"listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"}


def bundles_of(stack: Stack) -> Path:
    """Return the folder of bundles; a new volume takes it over from the image."""
    folder = stack.volume("tickcast") / "bundles"
    folder.mkdir(exist_ok=True)
    return folder


def query(stack: Stack, text: str) -> dict[str, float]:
    """Ask Prometheus; returns job -> value."""
    url = f"http://{stack.address('9090')}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        result = json.load(answer)["data"]["result"]
    return {each["metric"]["job"]: float(each["value"][1]) for each in result}


def test_up_gives_forecasts_for_every_tick_and_metrics_of_them_and_down_ends_all(tmp_path: Path) -> None:
    if not shutil.which("prometheus"):
        pytest.skip("no prometheus on the path: apt-get install prometheus")
    with Stack(tmp_path) as stack:
        bundle = tiny_bundle(bundles_of(stack), name="market")
        for name in ("market", "watch", "prometheus"):
            stack.up(name)
        for name in ("watch", "prometheus"):
            stack.await_healthy(name)
        once = {name for name, service in services().items() if service.is_once}
        assert stack.running == set(services()) - NOT_STARTED - once
        assert "is there already; nothing to do" in stack.log("train")
        assert_broker_settings(stack)
        assert_prometheus_follows(stack)
        assert stack.stop("market") == 0
        ticks = int(stack.log("market").splitlines()[-1].split()[0])
        assert {each.model for each in forecasts_of(stack, ticks)} == {bundle.id}
        assert stack.stop("tickcast") == 0
        assert stack.stop("watch") == 0
        assert stack.stop("prometheus") == 0
        assert stack.stop("kafka") == 143  # as Java ends when it was asked to


def assert_prometheus_follows(stack: Stack) -> None:
    ticks = 'sum by (job) (tickcast_ticks_total{outcome="forecast"})'
    await_that(lambda: query(stack, "up") == {"tickcast": 1}, "up == 1")
    await_that(lambda: query(stack, ticks).get("tickcast", 0) > 0, "the first forecasts")
    before = query(stack, ticks)["tickcast"]
    await_that(lambda: query(stack, ticks)["tickcast"] > before, "more forecasts")


def assert_broker_settings(stack: Stack) -> None:
    """The broker knows each setting of the file, and has the value: it passes over a mistyped one in silence."""
    wanted = {
        property_name(name): value
        for name, value in services()["kafka"].environment.items()
        if name.startswith("KAFKA_") and name not in NO_SETTING
    }
    broker = ConfigResource(ConfigResourceType.BROKER, wanted["node.id"])
    admin = KafkaAdminClient(bootstrap_servers=stack.address("9092"))
    try:
        told = admin.describe_configs([broker], config_filter="all")["broker"][wanted["node.id"]]
    finally:
        admin.close()
    names = wanted.keys() - UNTOLD
    assert {name: told.get(name, {}).get("value") for name in names} == {name: wanted[name] for name in names}
    assert wanted.keys() <= told.keys()


def forecasts_of(stack: Stack, ticks: int) -> list[Forecast]:
    """Wait until each tick of the market has its outcome, and return the forecasts."""
    topics = ("forecasts", "tickcast-dead-letters")
    await_that(lambda: len(read_topics(stack.address("9092"), *topics)) == ticks, f"{ticks} outcomes")
    found = [Forecast.model_validate_json(each.value) for each in read_topics(stack.address("9092"), "forecasts")]
    assert len(found) == ticks
    return found


@pytest.mark.long
@pytest.mark.tensorflow
def test_the_training_service_leaves_a_bundle_and_skips_when_there_is_one(tmp_path: Path) -> None:
    quick = {"--minutes=1": "--minutes=0.05", "--epochs=6": "--epochs=1"}
    with Stack(tmp_path, quick) as stack:
        bundles = bundles_of(stack)
        for said in ("R² against no change", "is there already; nothing to do"):
            stack.up("train")
            stack.await_success("train")
            assert said in stack.log("train")
            assert Bundle.load(bundles / "market").spec.horizons
            stack.down()
