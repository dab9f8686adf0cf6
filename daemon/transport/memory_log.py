"""A Kafka cluster in memory: topics, transactions and their coordinator, without threads and without a clock.

It does what a real broker was measured to do where that matters to exactly once:

- a marker that ends a transaction occupies an offset in every partition the transaction wrote to;
- a `read_committed` reader gets nothing at or beyond the first record of a transaction that is still open, whoever
  wrote it, and never the records of an aborted one;
- the markers of one transaction land at different moments, in any order, and the group's offsets get one too: a commit
  can be visible in one partition and still open in the next;
- claiming a transactional id ends what its last holder left open, to the last marker, and fences that holder; so does
  beginning the next transaction, for the markers of the last one;
- a transaction that outlives its timeout is aborted by its coordinator, and its producer is fenced;
- offsets are committed with the transaction, and until their marker lands nobody is told the committed offset;
- compaction and retention take records away, but no offset is ever given twice: readers step over the gaps.

Time is whoever runs the test: markers land, transactions expire and segments are compacted when it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from daemon.core.records import Headers, InputRecord, Message
from daemon.transport.memory_group import Membership, MemoryGroup, Refused
from daemon.transport.memory_partition import MemoryPartition, Topic, Transaction

Isolation = Literal["read_committed", "read_uncommitted"]
#: Named moments at which `MemoryLog.on_point` is called, before what they name; "committed" is after it.
SourcePoint = Literal["poll", "committed_read", "confirm", "bounds", "read"]
SinkPoint = Literal["open", "begin", "send", "offsets", "commit", "committed"]
Point = SourcePoint | SinkPoint

TOPICS: tuple[Topic, ...] = ("ticks", "forecasts", "dead_letters", "state", "scores")


class ProducerFenced(Refused):
    """The coordinator knows a newer epoch of the transactional id."""


class Away(Refused):
    """No broker answers."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A producer's right to write under a transactional id, until somebody claims it again."""

    transactional_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker on its way: which transaction it ends, and where."""

    transactional_id: str
    #: A partition of a topic, or the offsets of a group.
    place: tuple[Topic, int] | str


class MemoryLog:
    """One cluster: the topic `ticks`, the three output topics, and any number of groups."""

    def __init__(self, partitions: int = 4) -> None:
        self.partitions = partitions
        #: Kafka timestamp of whatever is written next, milliseconds; moved by whoever runs the test.
        self.now_ms = 0
        #: Called at every `Point`. It may do what others do at that moment (join, claim, expel), raise `Refused`
        #: for a broker that refuses, or raise anything else for a process that dies there.
        self.on_point: Callable[[Point], None] = lambda point: None
        #: True while no client reaches a broker.
        self.away = False
        #: True: the markers of a transaction that ends wait for `land`, or for the next use of its id.
        self.late_markers = False
        self._topics = {topic: [MemoryPartition(topic) for _ in range(partitions)] for topic in TOPICS}
        self._created = dict.fromkeys(TOPICS, 1)
        self._groups: dict[str, MemoryGroup] = {}
        self._epochs: dict[str, int] = {}
        #: Transactional id -> its transaction, until the last marker is written.
        self._open: dict[str, Transaction] = {}

    def produce(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = (), topic: Topic = "ticks"
    ) -> int:
        """Write one record outside any transaction, a tick unless said otherwise, and return its offset."""
        return self._write(topic, Message(partition, key, value, headers), None)

    def read(self, topic: Topic, isolation: Isolation = "read_committed") -> list[InputRecord]:
        """Return all retained records that such a reader sees, partition by partition."""
        return [
            record
            for partition in range(self.partitions)
            for record in self.records(topic, partition, self.bounds(topic, partition, isolation)[0], isolation)
        ]

    def records(self, topic: Topic, partition: int, offset: int, isolation: Isolation) -> Iterator[InputRecord]:
        """Return the records of one partition from `offset` on, as far as such a reader may see."""
        end = self.bounds(topic, partition, isolation)[1]
        return self._topics[topic][partition].records(offset, end, committed=isolation == "read_committed")

    def bounds(self, topic: Topic, partition: int, isolation: Isolation) -> tuple[int, int]:
        """Return the first retained offset and the end; for `read_committed` the end is the last stable offset."""
        log = self._topics[topic][partition]
        if isolation == "read_uncommitted":
            return log.first, log.end
        starts = [transaction.unmarked.get((topic, partition), log.end) for transaction in self._open.values()]
        return log.first, min(starts, default=log.end)

    def topic_id(self, topic: Topic) -> str:
        """Return the id that the topic got when it was created."""
        return f"{topic}-{self._created[topic]}"

    def trim(self, topic: Topic, partition: int, first: int) -> None:
        """Let retention delete everything before the offset `first`."""
        self._topics[topic][partition].trim(first)

    def compact(self, topic: Topic, partition: int, *, active: int = 0, tombstones: bool = False) -> None:
        """Let the log cleaner keep only the newest record of each key, where it stands.

        It works below the last stable offset, takes markers and aborted records away, and leaves the active segment
        alone: the newest `active` entries. `tombstones` go too once they are older than `delete.retention.ms`.
        """
        stable_end = self.bounds(topic, partition, "read_committed")[1]
        self._topics[topic][partition].compact(stable_end, active=active, tombstones=tombstones)

    def recreate(self, topic: Topic) -> None:
        """Delete a topic and create it anew: empty and with another id; offsets of groups stay as they are."""
        self._topics[topic] = [MemoryPartition(topic) for _ in range(self.partitions)]
        self._created[topic] += 1
        for transaction in self._open.values():
            transaction.unmarked = {place: at for place, at in transaction.unmarked.items() if place[0] != topic}

    def grow(self, partitions: int) -> None:
        """Add partitions to every topic; the groups share them out in a round."""
        for topic, logs in self._topics.items():
            logs += [MemoryPartition(topic) for _ in range(partitions - self.partitions)]
        self.partitions = partitions
        for group in self._groups.values():
            group.grow(partitions)

    def group(self, group_id: str) -> MemoryGroup:
        """Return the group of that name, new if nobody asked before."""
        return self._groups.setdefault(group_id, MemoryGroup(group_id, self.partitions))

    def held(self, group_id: str, partition: int) -> bool:
        """Whether a transaction without its marker holds the group's offset of this partition."""
        return any(partition in transaction.offsets.get(group_id, ()) for transaction in self._open.values())

    def claim(self, transactional_id: str) -> Claim:
        """Take over a transactional id: abort what is open under it, fence the last holder."""
        self._answer()
        self._end(transactional_id, committed=False)
        self._settle(transactional_id)
        epoch = self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        return Claim(transactional_id, epoch)

    def expire(self, transactional_id: str) -> None:
        """Do what the coordinator does when a transaction has outlived its timeout: abort it, fence its producer."""
        if self.is_open(transactional_id):
            self._end(transactional_id, committed=False)
            self._epochs[transactional_id] += 1

    def is_open(self, transactional_id: str) -> bool:
        """Whether a transaction of this id waits for its producer to go on."""
        return transactional_id in self._open and self._open[transactional_id].state == "open"

    def begin(self, claim: Claim) -> None:
        """Begin a transaction, after the last marker of the one before."""
        transactional_id = self._check(claim)
        assert not self.is_open(transactional_id), "a producer has one transaction at a time"
        self._settle(transactional_id)
        self._open[transactional_id] = Transaction()

    def append(self, claim: Claim, topic: Topic, message: Message) -> int:
        """Write a record in the open transaction and return its offset."""
        transaction = self._open[self._check(claim)]
        offset = self._write(topic, message, transaction)
        transaction.unmarked.setdefault((topic, message.partition), offset)
        return offset

    def add_offsets(self, claim: Claim, membership: Membership, offsets: Mapping[int, int]) -> None:
        """Add offsets to the open transaction if the membership is still good."""
        transaction = self._open[self._check(claim)]
        self.group(membership.group_id).check(membership)
        transaction.offsets.setdefault(membership.group_id, {}).update(offsets)

    def end(self, claim: Claim, *, committed: bool) -> None:
        """Commit or abort the open transaction."""
        self._end(self._check(claim), committed=committed)

    def markers(self) -> list[Marker]:
        """Return the markers on their way, in the order in which they were sent; `land` takes them in any order."""
        waiting: list[Marker] = []
        for transactional_id, transaction in self._open.items():
            if transaction.state != "open":
                waiting += (Marker(transactional_id, place) for place in transaction.unmarked)
                waiting += (Marker(transactional_id, group_id) for group_id in transaction.offsets)
        return waiting

    def land(self, marker: Marker) -> None:
        """Let a marker land: from now on the transaction is over there."""
        transaction = self._open[marker.transactional_id]
        if isinstance(marker.place, str):
            offsets = transaction.offsets.pop(marker.place)
            if transaction.state == "committed":
                self.group(marker.place).offsets.update(offsets)
        else:
            topic, partition = marker.place
            del transaction.unmarked[topic, partition]
            self._topics[topic][partition].mark(transaction)
        if not (transaction.unmarked or transaction.offsets):
            del self._open[marker.transactional_id]

    def _end(self, transactional_id: str, *, committed: bool) -> None:
        """Decide the open transaction, if there is one, and send its markers."""
        if self.is_open(transactional_id):
            self._open[transactional_id].state = "committed" if committed else "aborted"
            if not self.late_markers:
                self._settle(transactional_id)

    def _settle(self, transactional_id: str) -> None:
        """Let all markers of the ended transaction land."""
        for marker in self.markers():
            if marker.transactional_id == transactional_id:
                self.land(marker)
        self._open.pop(transactional_id, None)  # one that wrote nothing needs no marker

    def _write(self, topic: Topic, message: Message, transaction: Transaction | None) -> int:
        return self._topics[topic][message.partition].append(message, self.now_ms, transaction)

    def _check(self, claim: Claim) -> str:
        """Return the transactional id of a claim that still holds."""
        self._answer()
        if self._epochs[claim.transactional_id] != claim.epoch:
            raise ProducerFenced(f"{claim.transactional_id} has a newer holder")
        return claim.transactional_id

    def _answer(self) -> None:
        if self.away:
            raise Away("no broker answers")
