"""What the checks look at: the group and the ends of the ticks at a moment, and single ticks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daemon.core.records import Record
from daemon.transport.group import GroupStatus, PartitionStatus
from daemon.transport.kafka_view import Bounds
from daemon.transport.port import Reader

#: A single tick that is there comes within milliseconds; a busy machine takes its time.
READ_SECONDS = 2.0
#: Partitions that single ticks are read of, those with most to tell first: some 50 ms each.
PARTITIONS_MAX = 64


@dataclass(frozen=True)
class Ends:
    """The ends of the ticks at one moment."""

    #: Our clock, ms since the epoch.
    at_ms: int
    topic: str
    #: By partition.
    bounds: Mapping[int, Bounds]


@dataclass(frozen=True)
class Look(Ends):
    """The group and its ticks at one moment."""

    group: GroupStatus

    @property
    def rows(self) -> dict[int, PartitionStatus]:
        """The partitions of the ticks, by number."""
        return {row.partition: row for row in self.group.partitions}


def tick_at(reader: Reader, partition: int, offset: int, bounds: Bounds) -> Record | None:
    """Return the first tick at or after an offset that a `read_committed` reader gets; None where there is none."""
    place = max(offset, bounds.first)
    while place < bounds.stable:
        records, next_place = reader.read("ticks", partition, place, READ_SECONDS, 1)
        if records:
            return records[0]
        if next_place == place:
            return None
        place = next_place
    return None
