"""A group and its transactions, as the cluster sees them; to be asked while the cluster may be away."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import KafkaError

from daemon.transport.connection import transactional_id
from tests.e2e.world import PARTITIONS

Answer = TypeVar("Answer")
BOOTSTRAP_MS = 1000
REQUEST_MS = 3000


class GroupView:
    """What is committed, and which transactions are open.

    Invariants
    ----------
    - A committed offset never falls: nobody may rewind a partition.
    """

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._wanted = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        self._admin: KafkaAdminClient | None = None
        self._committed: dict[int, int] = dict.fromkeys(range(PARTITIONS), 0)

    def committed(self) -> dict[int, int]:
        """Return the committed offsets, 0 where there is none; the last known ones while nobody answers."""
        found = self._ask(lambda admin: admin.list_group_offsets({self._group: self._wanted})[self._group], None)
        if found is None:
            return self._committed
        now = {tp.partition: max(0, found[tp].offset) if tp in found else 0 for tp in self._wanted}
        fallen = {p: (self._committed[p], offset) for p, offset in now.items() if offset < self._committed[p]}
        assert not fallen, f"committed offsets went back (partition: from, to): {fallen}"
        self._committed = now
        return now

    def open_transaction(self, instance: str) -> frozenset[str] | None:
        """Return the topics that an instance's open transaction has written to; None where none is open."""
        name = transactional_id(self._group, instance)
        found = self._ask(lambda admin: admin.describe_transactions([name])[name], None)
        if found is None or found.state != "Ongoing":
            return None
        return frozenset(tp.topic for tp in found.topic_partitions)

    def close(self) -> None:
        """Let the connection go."""
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _ask(self, ask: Callable[[KafkaAdminClient], Answer], unknown: Answer) -> Answer:
        try:
            if self._admin is None:
                self._admin = KafkaAdminClient(
                    bootstrap_servers=self._bootstrap,
                    bootstrap_timeout_ms=BOOTSTRAP_MS,
                    request_timeout_ms=REQUEST_MS,
                )
            return ask(self._admin)
        except KafkaError:  # the broker is away, or its coordinators are not there yet
            self.close()
            return unknown
