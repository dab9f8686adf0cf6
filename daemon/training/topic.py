"""Ticks of a Kafka topic for training: a bounded range of it, read beside the daemon without a group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from daemon.errors import BrokerUnavailable, SettingsError
from daemon.transport.connection import Connection
from daemon.transport.group import read_group
from daemon.transport.kafka_reader import KafkaReader
from daemon.transport.offsets import When, offsets_at
from daemon.transport.port import Reader

READ_SECONDS = 0.1
READ_RECORDS = 2000
#: Reads that bring nothing before the broker counts as away; only what was there at the start is asked for.
EMPTY_READS_MAX = 150
#: More ticks than this do not fit into the memory of an ordinary machine as columns.
TICKS_MAX = 50_000_000


@dataclass(frozen=True)
class Range:
    """Where a partition is read: from the offset `start` up to, not including, `end`."""

    start: int
    end: int


def find_ranges(
    connection: Connection, topic: str, since: When, until: When, *, from_offset: int = 0
) -> dict[int, Range]:
    """Return what to read of each partition.

    Parameters
    ----------
    since, until : by the Kafka timestamps of the records
    from_offset : nothing before it is read, in any partition

    Raises
    ------
    SettingsError : nothing is there, or more than memory holds
    TopicError, BrokerUnavailable, AccessDenied
    """
    # The group does not matter: it is asked for the topic's partitions only.
    partitions = [row.partition for row in read_group(connection, "tickcast-train", topic).partitions]
    starts, ends = (offsets_at(connection, topic, partitions, when) for when in (since, until))
    found = {p: Range(max(starts[p], from_offset), ends[p]) for p in partitions}
    found = {p: where for p, where in found.items() if where.start < where.end}
    count = sum(where.end - where.start for where in found.values())
    if not count:
        raise SettingsError(f"topic {topic} has no ticks in this range; give an earlier --since or a later --until")
    if count > TICKS_MAX:
        raise SettingsError(f"topic {topic} has {count:,} ticks in this range, at most {TICKS_MAX:,}; narrow it down")
    return found


def read_topic(connection: Connection, topic: str, ranges: Mapping[int, Range]) -> Iterator[bytes]:
    """Yield the ticks of ranges, partition by partition: an instrument's are all in one, in order."""
    reader = KafkaReader(connection, {"ticks": topic})
    try:
        for partition, where in ranges.items():
            yield from _partition(reader, topic, partition, where)
    finally:
        reader.close()


def _partition(reader: Reader, topic: str, partition: int, where: Range) -> Iterator[bytes]:
    offset, empty = where.start, 0
    while offset < where.end:
        records, next_offset = reader.read("ticks", partition, offset, READ_SECONDS, READ_RECORDS)
        yield from (record.value or b"" for record in records if record.offset < where.end)
        empty = 0 if next_offset > offset else empty + 1
        if empty > EMPTY_READS_MAX:
            raise BrokerUnavailable(f"partition {partition} of {topic} cannot be read on from {offset}; try again")
        offset = next_offset
