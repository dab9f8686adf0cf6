"""Dead letters read back: what stands in their headers, and the letters of a partition in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from daemon.core.records import Record
from daemon.errors import BrokerUnavailable
from daemon.transport.port import Reader
from schemas import HEADER_PREFIX

#: What a letter that our daemon has not written is said to be.
FOREIGN = "foreign"
#: Digits of a 64-bit number.
DIGITS_MAX = 19
READ_SECONDS = 0.1
READ_RECORDS = 500
#: Reads that bring nothing before the broker counts as away; only what is committed is asked for.
EMPTY_READS_MAX = 150


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of the dead-letter topic."""

    partition: int
    offset: int
    #: When it was written, ms since the epoch.
    written_ms: int
    key: bytes | None
    value: bytes | None
    #: Where the tick stood, and its Kafka timestamp; None where the headers do not say.
    tick_topic: str | None
    tick_partition: int | None
    tick_offset: int | None
    tick_timestamp: int | None
    #: A `schemas.Reason`, or `FOREIGN`.
    reason: str
    detail: str
    #: How many times the tick was tried.
    attempt: int
    #: The value is only the beginning of the tick's.
    truncated: bool


def read_letter(record: Record) -> Letter:
    """Read a record of the dead-letter topic; anybody may write there, so any headers give a letter."""
    headers = {
        name.removeprefix(HEADER_PREFIX): (value or b"").decode("utf-8", "backslashreplace")
        for name, value in record.headers
        if name.startswith(HEADER_PREFIX)
    }
    return Letter(
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        headers.get("topic"),
        _number(headers.get("partition")),
        _number(headers.get("offset")),
        _number(headers.get("timestamp")),
        headers.get("reason") or FOREIGN,
        headers.get("detail", ""),
        _number(headers.get("attempt")) or 1,
        "truncated" in headers,
    )


class LetterBox:
    """The dead-letter topic."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def letters(self, partition: int, start: int, end: int) -> Iterator[Letter]:
        """Yield the letters of a partition from `start`, or the first retained one, up to `end`.

        Parameters
        ----------
        end : at most the last stable offset; beyond it nobody knows yet what is a letter

        Raises
        ------
        BrokerUnavailable, TopicError, AccessDenied
        """
        first, _ = self._reader.bounds("dead_letters", partition)
        offset, empty = max(start, first), 0
        while offset < end:
            records, next_offset = self._reader.read("dead_letters", partition, offset, READ_SECONDS, READ_RECORDS)
            yield from (read_letter(record) for record in records if record.offset < end)
            empty = 0 if next_offset > offset else empty + 1
            if empty > EMPTY_READS_MAX:
                raise BrokerUnavailable(f"partition {partition} of the dead letters cannot be read on from {offset}")
            offset = next_offset


def _number(text: str | None) -> int | None:
    """Read a count; headers that are none, or of a thousand digits, say nothing."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else None
