"""A broker that stands still, and patience that is short enough for it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from daemon.dev.broker import Broker
from tests.contract.worlds import KafkaWorld

#: By librdkafka a record may wait so long; ours waits as long as its transaction.
DELIVERY_SECONDS = 1.5


def be_impatient(world: KafkaWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set bounds of a second or two instead of ten."""
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


def freeze(broker: Broker) -> None:
    """Return once every thread of the broker stands still; one that ran on could answer a whole transaction."""
    psutil.Process(broker.pid).send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 60
    threads = [Path(f"/proc/{each.id}/stat") for each in psutil.Process(broker.pid).threads()]
    while any(each.read_text().rpartition(")")[2].split()[0] != "T" for each in threads if each.exists()):
        assert time.monotonic() < deadline


@contextmanager
def frozen(broker: Broker) -> Iterator[None]:
    freeze(broker)
    try:
        yield
    finally:
        psutil.Process(broker.pid).send_signal(signal.SIGCONT)


def seconds_of(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start
