"""A broker that stands still."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from daemon.dev.broker import Broker

#: How long a record may wait by librdkafka where its patience is short; ours waits as long as its transaction.
DELIVERY_SECONDS = 1.5


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
