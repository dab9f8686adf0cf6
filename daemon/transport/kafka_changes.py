"""What a rebalance did to our assignment, noted where kafka-python tells it and taken where the loop can act on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition

from daemon.transport.port import Polled

#: Where a new partition stands until `Source.start_at`. Any valid offset does: a paused partition is never fetched.
PLACEHOLDER_OFFSET = 0


class AssignmentChanges(ConsumerRebalanceListener):  # type: ignore[misc]
    """What happened to the assignment since it was last taken.

    kafka-python calls a listener on its I/O thread while `poll` waits for it in ours, so nothing here needs a lock;
    but it must not block, or heartbeats stop.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self._gone: dict[int, Literal["revoked", "lost"]] = {}
        self._assigned: set[int] = set()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        for tp in assigned:
            self._consumer.pause(tp)
            self._consumer.seek(tp, PLACEHOLDER_OFFSET)
        self._assigned.update(numbers(assigned))

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._note_gone(revoked, "revoked")

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self._note_gone(lost, "lost")

    @property
    def pending(self) -> bool:
        """True while there is something to take."""
        return bool(self._gone or self._assigned)

    def take(self) -> Polled:
        """Return the changes, without records, and forget them."""
        polled = Polled(
            revoked=tuple(p for p in sorted(self._gone) if self._gone[p] == "revoked"),
            lost=tuple(p for p in sorted(self._gone) if self._gone[p] == "lost"),
            assigned=tuple(sorted(self._assigned)),
        )
        self._gone.clear()
        self._assigned.clear()
        return polled

    def _note_gone(self, partitions: Iterable[TopicPartition], how: Literal["revoked", "lost"]) -> None:
        for partition in numbers(partitions):
            self._gone[partition] = how
            self._assigned.discard(partition)


def numbers(partitions: Iterable[TopicPartition]) -> tuple[int, ...]:
    """Return the partition numbers, sorted."""
    return tuple(sorted(tp.partition for tp in partitions))
