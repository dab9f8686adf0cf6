"""What tests of failures share: a broker of their own, and short patience with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daemon.dev.broker import Broker, start_broker
from tests.contract.worlds import KafkaWorld
from tests.integration.freezing import DELIVERY_SECONDS


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that only the tests of one module use, since they freeze it."""
    with start_broker(None, tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def impatient(world: KafkaWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of a second or two instead of ten."""
    delivery = {} if world.adapter == "kafka" else {"DELIVERY_TIMEOUT_SECONDS": DELIVERY_SECONDS}
    world.patch(
        monkeypatch,
        "sink",
        TRANSACTION_TIMEOUT_SECONDS=3.0,
        REQUEST_TIMEOUT_SECONDS=1.0,
        ABORT_TIMEOUT_SECONDS=1.0,
        CLOSE_TIMEOUT_SECONDS=1.0,
        **delivery,
    )
    world.patch(monkeypatch, "source", REQUEST_TIMEOUT_SECONDS=1.0, CLOSE_TIMEOUT_SECONDS=1.0)
    monkeypatch.setattr("daemon.transport.place.REQUEST_TIMEOUT_SECONDS", 1.0)
