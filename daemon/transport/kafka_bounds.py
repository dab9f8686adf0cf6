"""Where a partition begins and ends, asked without any group.

The high watermark comes from an admin client: the end that a `read_committed` consumer is told is the last stable
offset, below the checkpoint of a transaction that is just being committed. Asking both bounds takes 3 ms.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import UnknownTopicOrPartitionError
from kafka.protocol.consumer import IsolationLevel

from daemon.errors import TickcastError, TopicError
from daemon.transport.admin_line import AdminLine

_log = logging.getLogger(__name__)

#: A partition that brings nothing is looked up this often: no client says that it was deleted.
CHECK_SECONDS = 1.0


def ask_bounds(
    admin: KafkaAdminClient, places: Iterable[TopicPartition], isolation: IsolationLevel
) -> dict[TopicPartition, tuple[int, int]]:
    """Return the first retained offset and the end, as readers of that isolation see it."""
    wanted = list(places)
    first, end = (
        admin.list_partition_offsets(dict.fromkeys(wanted, spec), isolation_level=isolation)
        for spec in (OffsetSpec.EARLIEST, OffsetSpec.LATEST)
    )
    return {tp: (first[tp].offset, end[tp].offset) for tp in wanted}


class Bounds:
    """The bounds of the partitions that a reader reads, and whether a place is within them."""

    def __init__(self, admin: AdminLine, timeout_seconds: float) -> None:
        self._admin = admin
        self._timeout_seconds = timeout_seconds
        #: When it was last made sure that the partition at hand exists, on the monotonic clock.
        self._checked = 0.0

    def of(self, topic: str, partition: int) -> tuple[int, int]:
        """Return the first retained offset and the high watermark.

        Raises
        ------
        TopicError : there is no such partition
        BrokerUnavailable, AccessDenied
        """
        tp = TopicPartition(topic, partition)
        try:
            return self._admin.ask(
                lambda admin: ask_bounds(admin, [tp], IsolationLevel.READ_UNCOMMITTED)[tp],
                f"reading the bounds of {topic}-{partition}",
                self._timeout_seconds,
            )
        except TickcastError as error:
            if isinstance(error.__cause__, UnknownTopicOrPartitionError):
                raise TopicError(
                    f"there is no {topic}-{partition}, or no right to see it; `tickcast topics check` tells which"
                ) from error
            raise

    def check(self, topic: str, partition: int, offset: int, *, now: bool = False) -> None:
        """Make sure that there is such a place, `now` or where it has not been done for `CHECK_SECONDS`.

        Clients wait in silence for a partition that does not exist.
        """
        if not now and time.monotonic() < self._checked + CHECK_SECONDS:
            return
        first, end = self.of(topic, partition)
        if not first <= offset <= end:
            raise out_of_range(topic, partition, offset, first, end)
        self._checked = time.monotonic()

    def explain(self, topic: str, partition: int, offset: int) -> TickcastError | None:
        """Return the error for a place that a broker refused; None where the bounds cannot be told."""
        try:
            return out_of_range(topic, partition, offset, *self.of(topic, partition))
        except TickcastError as unknown:
            _log.debug("the bounds of %s-%d cannot be told: %s", topic, partition, unknown)
            return None


def out_of_range(topic: str, partition: int, offset: int, first: int, end: int) -> TopicError:
    """Return the error for a place outside the bounds."""
    return TopicError(
        f"{topic}-{partition} does not hold offset {offset}, only {first} to {end}: "
        + (
            "the records were deleted by retention or by hand"
            if offset < first
            else "the topic was created anew or its end was lost"
        )
        + "; keep records longer, or start with another [kafka] group_id and [topics] state"
    )
