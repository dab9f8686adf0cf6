"""The clusters every contract test runs on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.worlds import KafkaWorld, MemoryWorld, World


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty cluster: in memory, then a real one."""
    world: World = MemoryWorld() if request.param == "memory" else KafkaWorld(request.getfixturevalue("kafka"))
    yield world
    world.close()
