"""One partition in memory: offsets that are never given twice, transactions, retention and compaction."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal

from daemon.core.records import InputRecord, Message
from daemon.transport.port import Role

Topic = Literal["ticks"] | Role

_OFFSET = attrgetter("offset")


@dataclass(slots=True)
class Transaction:
    """What its coordinator knows of a transaction, until the last of its markers is written."""

    #: Anything but "open" is the coordinator's decision, which markers carry to where the transaction wrote.
    state: Literal["open", "committed", "aborted"] = "open"
    #: (topic, partition) -> offset of the first record there, as long as no marker is written there.
    unmarked: dict[tuple[Topic, int], int] = field(default_factory=dict)
    #: group -> partition -> offset, as long as no marker is written there.
    offsets: dict[str, dict[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at an offset."""

    offset: int
    #: None where a marker stands.
    record: InputRecord | None
    #: None for records outside any transaction.
    transaction: Transaction | None

    @property
    def committed(self) -> bool:
        """Whether it is a record of no transaction, or of one that was committed."""
        return self.record is not None and (self.transaction is None or self.transaction.state == "committed")


class MemoryPartition:
    """The entries of one partition, with gaps where compaction took some."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        #: The first retained offset; retention moves it, compaction does not.
        self.first = 0
        #: The high watermark: the offset of what is written next.
        self.end = 0
        self._entries: list[Entry] = []

    def append(self, message: Message, timestamp: int, transaction: Transaction | None) -> int:
        """Write a record and return its offset."""
        record = InputRecord(
            self._topic, message.partition, self.end, timestamp, message.key, message.value, tuple(message.headers)
        )
        return self._append(record, transaction)

    def mark(self, transaction: Transaction) -> None:
        """Write the marker that ends a transaction here; it occupies an offset."""
        self._append(None, transaction)

    def records(self, start: int, stop: int, *, committed: bool) -> Iterator[InputRecord]:
        """Return the records from `start` to before `stop`, without those of aborted transactions if `committed`."""
        for index in range(self._index(start), self._index(stop)):
            entry = self._entries[index]
            if entry.record is not None and (entry.committed or not committed):
                yield entry.record

    def trim(self, first: int) -> None:
        """Let retention delete everything before the offset `first`."""
        del self._entries[: self._index(first)]
        self.first = first

    def compact(self, stable_end: int, *, active: int, tombstones: bool) -> None:
        """Do as `MemoryLog.compact` says, below the last stable offset."""
        end = max(0, min(self._index(stable_end), len(self._entries) - active))
        cleanable = self._entries[:end]
        newest = {entry.record.key: entry.offset for entry in cleanable if entry.record and entry.committed}
        self._entries[:end] = [
            entry
            for entry in cleanable
            if entry.record
            and newest.get(entry.record.key) == entry.offset
            and not (tombstones and entry.record.value is None)
        ]

    def _append(self, record: InputRecord | None, transaction: Transaction | None) -> int:
        self._entries.append(Entry(self.end, record, transaction))
        self.end += 1
        return self.end - 1

    def _index(self, offset: int) -> int:
        """Return the place of the first entry at or after an offset."""
        return bisect_left(self._entries, offset, key=_OFFSET)
