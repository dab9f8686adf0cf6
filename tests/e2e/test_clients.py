"""Two clients, one service: what one has begun the other goes on with, and a group may have members of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.dev.child import ChildDaemon
from tests.bundles import tiny_bundle
from tests.contract.worlds import CLIENTS
from tests.e2e.world import World, await_that, read_topics
from tests.kafka_fixture import make_topics

pytest.importorskip("confluent_kafka", reason="the extra librdkafka is not installed")
pytestmark = pytest.mark.kafka

#: Small batches and frequent checkpoints, so that there is always something in the middle of being done.
BUSY = {"max_batch_ticks": 100, "checkpoint_ticks": 500}
FORECASTS = 'tickcast_ticks_total{outcome="forecast"}'


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, tiny_bundle(tmp_path).path)
    yield made
    made.close()


def daemon(world: World, instance: str, client: str) -> ChildDaemon:
    settings = world.settings(instance, kafka={"client": client}, pipeline=BUSY)
    made = ChildDaemon(world.directory, settings, name=f"{instance}-{client}")
    world.daemons.append(made)
    return made.start().wait_ready()


def undisturbed(world: World) -> Counter[tuple[int, bytes]]:
    """Return the forecasts that one daemon writes for the same ticks, from the start and in peace."""
    names = make_topics(world.bootstrap, "undisturbed")
    settings = world.settings("0", pipeline=BUSY)
    settings["kafka"]["group_id"] += "-undisturbed"
    settings["topics"] = names.model_copy(update={"ticks": world.topics.ticks}).model_dump()
    made = ChildDaemon(world.directory, settings, name="undisturbed")
    world.daemons.append(made.start().wait_ready())
    await_that(lambda: made.metrics().get(FORECASTS, 0) >= len(world.sent), "every tick has its forecast")
    return payloads(world.bootstrap, names.forecasts)


def payloads(bootstrap: str, topic: str) -> Counter[tuple[int, bytes]]:
    return Counter((record.partition, record.value) for record in read_topics(bootstrap, topic))


@pytest.mark.parametrize("first", CLIENTS)
def test_the_other_client_goes_on_after_a_kill_and_after_a_stop(world: World, first: str) -> None:
    other = next(client for client in CLIENTS if client != first)
    killed = daemon(world, "0", first)
    world.send_quotes(3000)
    await_that(lambda: killed.metrics().get(FORECASTS, 0) > 600, "ticks flow")
    killed.kill()
    stopped = daemon(world, "0", other)
    world.send_quotes(1000)
    await_that(lambda: stopped.metrics().get(FORECASTS, 0) > 600, "ticks flow")
    assert stopped.stop() == 0
    daemon(world, "0", first)
    world.send_quotes(1000)
    world.await_outcomes()
    assert payloads(world.bootstrap, world.topics.forecasts) == undisturbed(world)


@pytest.mark.parametrize("first", CLIENTS)
def test_both_clients_share_a_group_so_a_service_is_switched_instance_by_instance(world: World, first: str) -> None:
    other = next(client for client in CLIENTS if client != first)
    one = daemon(world, "one", first)
    world.send_quotes(1000)
    two = daemon(world, "two", other)
    await_that(lambda: two.metrics()["tickcast_assigned_partitions"] == 2, "the second instance has its share")
    world.send_quotes(1000)
    await_that(lambda: two.metrics().get(FORECASTS, 0) > 0, "the second instance answers")
    assert one.stop() == 0
    await_that(lambda: two.metrics()["tickcast_assigned_partitions"] == 4, "the second instance has all")
    world.send_quotes(1000)
    again = daemon(world, "one", other)
    await_that(lambda: again.metrics()["tickcast_assigned_partitions"] == 2, "the first is back, by the other client")
    world.send_quotes(1000)
    world.await_outcomes()
    assert payloads(world.bootstrap, world.topics.forecasts) == undisturbed(world)
