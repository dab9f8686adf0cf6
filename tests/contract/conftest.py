"""The clusters every contract test runs on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.worlds import CLIENTS, MemoryWorld, World, real_world


@pytest.fixture(params=["memory", *(pytest.param(client, marks=pytest.mark.kafka) for client in CLIENTS)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """An empty cluster: in memory, then a real one by each client."""
    memory = request.param == "memory"
    world: World = MemoryWorld() if memory else real_world(request.param, request.getfixturevalue("kafka"))
    yield world
    world.close()
