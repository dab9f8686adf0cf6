"""A transaction during which something happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kafka import KafkaConsumer, TopicPartition

from daemon.core.records import Message


class Interrupted(Sequence[Message]):
    """Two messages of partition 0; between them, as the sink takes them, something happens."""

    def __init__(self, happen: Callable[[], None]) -> None:
        self._happen = happen

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Message:  # type: ignore[override]
        if index == 1:
            self._happen()
        if index > 1:
            raise IndexError
        return Message(0, b"key", b"never")


def wait_for_end(bootstrap: str, topic: str, end: int) -> None:
    """Return once partition 0 holds `end` offsets, markers and open transactions counted."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_uncommitted")
    tp = TopicPartition(topic, 0)
    deadline = time.monotonic() + 20
    while consumer.end_offsets([tp])[tp] < end:
        assert time.monotonic() < deadline, f"{topic}-0 does not reach {end}"
    consumer.close()
