"""A Kafka log in memory: topics, transactions and their coordinator, without threads and without a clock.

It does what a real broker was measured to do where that matters to exactly once:

- a marker that ends a transaction occupies an offset in every partition the transaction wrote to;
- a `read_committed` reader gets nothing at or beyond the first record of a transaction that is still open, whoever
  wrote it, and never the records of an aborted one;
- claiming a transactional id aborts what its last holder left open and fences that holder;
- offsets are committed with the transaction, and until it ends nobody is told the committed offset.

One simplification: all markers of a transaction are written at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from daemon.core.records import Headers, InputRecord, Message
from daemon.transport.memory_group import Membership, MemoryGroup, Refused
from daemon.transport.port import Role

Topic = Literal["ticks"] | Role
Isolation = Literal["read_committed", "read_uncommitted"]
#: Named moments at which `MemoryLog.on_point` is called, before what they name; "committed" is after it.
Point = Literal["poll", "open", "begin", "send", "offsets", "commit", "committed"]

TOPICS: tuple[Topic, ...] = ("ticks", "forecasts", "dead_letters", "state")


class ProducerFenced(Refused):
    """The coordinator knows a newer epoch of the transactional id."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A producer's right to write under a transactional id, until somebody claims it again."""

    transactional_id: str
    epoch: int


@dataclass(slots=True)
class _Transaction:
    state: Literal["open", "committed", "aborted"] = "open"
    #: (topic, partition) -> offset of the first record of this transaction there.
    first: dict[tuple[Topic, int], int] = field(default_factory=dict)
    #: group -> partition -> offset, to be committed with it.
    offsets: dict[str, dict[int, int]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Entry:
    #: None where a marker stands.
    record: InputRecord | None
    #: None for records outside any transaction.
    transaction: _Transaction | None


@dataclass(slots=True)
class _Partition:
    #: Offset of entries[0]; what was before is no longer retained.
    first: int = 0
    entries: list[_Entry] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.first + len(self.entries)


class MemoryLog:
    """One cluster: the topic `ticks`, the three output topics, and any number of groups."""

    def __init__(self, partitions: int = 4) -> None:
        self.partitions = partitions
        #: Kafka timestamp of whatever is written next, milliseconds; moved by whoever runs the test.
        self.now_ms = 0
        #: Called at every `Point`. It may do what others do at that moment (join, claim, expel), raise `Refused`
        #: for a broker that refuses, or raise anything else for a process that dies there.
        self.on_point: Callable[[Point], None] = lambda point: None
        self._topics = {topic: [_Partition() for _ in range(partitions)] for topic in TOPICS}
        self._groups: dict[str, MemoryGroup] = {}
        self._epochs: dict[str, int] = {}
        self._open: dict[str, _Transaction] = {}

    def produce(self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
        """Write one tick outside any transaction and return its offset."""
        return self._write("ticks", Message(partition, key, value, headers), None)

    def read(self, topic: Topic, isolation: Isolation = "read_committed") -> list[InputRecord]:
        """Return all retained records that such a reader sees, partition by partition."""
        return [
            record
            for partition in range(self.partitions)
            for record in self.records(topic, partition, self.bounds(topic, partition, isolation)[0], isolation)
        ]

    def records(self, topic: Topic, partition: int, offset: int, isolation: Isolation) -> Iterator[InputRecord]:
        """Return the records of one partition from `offset` on, as far as such a reader may see."""
        log = self._topics[topic][partition]
        end = self.bounds(topic, partition, isolation)[1]
        for entry in log.entries[offset - log.first : end - log.first]:
            hidden = isolation == "read_committed" and entry.transaction and entry.transaction.state != "committed"
            if entry.record is not None and not hidden:
                yield entry.record

    def bounds(self, topic: Topic, partition: int, isolation: Isolation) -> tuple[int, int]:
        """Return the first retained offset and the end; for `read_committed` the end is the last stable offset."""
        log = self._topics[topic][partition]
        if isolation == "read_uncommitted":
            return log.first, log.end
        starts = [transaction.first.get((topic, partition), log.end) for transaction in self._open.values()]
        return log.first, min(starts, default=log.end)

    def trim(self, topic: Topic, partition: int, first: int) -> None:
        """Let retention delete everything before the offset `first`."""
        log = self._topics[topic][partition]
        del log.entries[: first - log.first]
        log.first = first

    def group(self, group_id: str) -> MemoryGroup:
        """Return the group of that name, new if nobody asked before."""
        return self._groups.setdefault(group_id, MemoryGroup(group_id, self.partitions))

    def held(self, group_id: str, partition: int) -> bool:
        """Whether an open transaction holds the group's offset of this partition."""
        return any(partition in transaction.offsets.get(group_id, ()) for transaction in self._open.values())

    def claim(self, transactional_id: str) -> Claim:
        """Take over a transactional id: abort what is open under it, fence the last holder."""
        self._end(transactional_id, committed=False)
        epoch = self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        return Claim(transactional_id, epoch)

    def expire(self, transactional_id: str) -> None:
        """Do what the coordinator does when a transaction has outlived its timeout."""
        self.claim(transactional_id)

    def begin(self, claim: Claim) -> None:
        """Begin a transaction."""
        self._open[self._id(claim)] = _Transaction()

    def append(self, claim: Claim, topic: Topic, message: Message) -> int:
        """Write a record in the open transaction and return its offset."""
        transaction = self._open[self._id(claim)]
        offset = self._write(topic, message, transaction)
        transaction.first.setdefault((topic, message.partition), offset)
        return offset

    def add_offsets(self, claim: Claim, membership: Membership, offsets: Mapping[int, int]) -> None:
        """Add offsets to the open transaction if the membership is still good."""
        transaction = self._open[self._id(claim)]
        self.group(membership.group_id).check(membership)
        transaction.offsets.setdefault(membership.group_id, {}).update(offsets)

    def end(self, claim: Claim, *, committed: bool) -> None:
        """Commit or abort the open transaction."""
        self._end(self._id(claim), committed=committed)

    def _end(self, transactional_id: str, *, committed: bool) -> None:
        transaction = self._open.pop(transactional_id, None)
        if transaction is None:
            return
        transaction.state = "committed" if committed else "aborted"
        for topic, partition in transaction.first:
            self._topics[topic][partition].entries.append(_Entry(None, transaction))
        if committed:
            for group_id, offsets in transaction.offsets.items():
                self.group(group_id).offsets.update(offsets)

    def _write(self, topic: Topic, message: Message, transaction: _Transaction | None) -> int:
        log = self._topics[topic][message.partition]
        offset = log.end
        record = InputRecord(
            topic, message.partition, offset, self.now_ms, message.key, message.value, tuple(message.headers)
        )
        log.entries.append(_Entry(record, transaction))
        return offset

    def _id(self, claim: Claim) -> str:
        if self._epochs[claim.transactional_id] != claim.epoch:
            raise ProducerFenced(f"{claim.transactional_id} has a newer holder")
        return claim.transactional_id
