"""The clusters every contract test runs on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.worlds import KafkaWorld, LibrdWorld, MemoryWorld, World


@pytest.fixture(
    params=[
        "memory",
        pytest.param("kafka-python", marks=pytest.mark.kafka),
        pytest.param("librdkafka", marks=pytest.mark.kafka),
    ]
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty cluster: in memory, then a real one by each client."""
    world: World
    if request.param == "memory":
        world = MemoryWorld()
    elif request.param == "kafka-python":
        world = KafkaWorld(request.getfixturevalue("kafka"))
    else:
        pytest.importorskip("confluent_kafka", reason="the extra librdkafka is not installed")
        world = LibrdWorld(request.getfixturevalue("kafka"))
    yield world
    world.close()
