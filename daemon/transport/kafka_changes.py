"""The rebalance listener of kafka-python."""

from __future__ import annotations

from collections.abc import Iterable

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition

from daemon.transport.changes import Changes

#: Where a new partition stands until `Source.start_at`. Any valid offset does: a paused partition is never fetched.
PLACEHOLDER_OFFSET = 0


class AssignmentChanges(Changes, ConsumerRebalanceListener):  # type: ignore[misc]
    """What happened to the assignment since it was last taken.

    kafka-python calls a listener on its I/O thread while `poll` waits for it in ours, so nothing here needs a lock;
    but it must not block, or heartbeats stop.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        super().__init__()
        self._consumer = consumer

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        for tp in assigned:
            self._consumer.pause(tp)
            self._consumer.seek(tp, PLACEHOLDER_OFFSET)
        self.note_assigned(assigned)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self.note_gone(revoked, "revoked")

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self.note_gone(lost, "lost")
