"""The transport port: where ticks come from and where outcomes go, exactly once.

Three small ports: `Source` (a member of the consumer group), `Sink` (transactions) and `Reader` (looks at a partition
without any group, for recovery and tools). Two adapters keep the contract, `kafka` and `memory`; `tests/contract` runs
one suite against both.

Promised
--------
- Records of a partition arrive in offset order, `read_committed`, as raw bytes, none left out.
- A partition delivers nothing until the caller says with `start_at` where to begin.
- `Sink.commit` is atomic: all messages and offsets, or nothing that a `read_committed` reader ever sees.
- After `TransactionFailed` the next `commit` runs on a fresh producer; nothing of the failed one leaks into it.
- A commit under the metadata of an old generation fails.

Not promised
------------
- That a partition still belongs to us when `commit` is called: fencing says so by failing.
- Any order between partitions.
- Thread safety: one thread owns source and sink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from daemon.core.records import Message, Record

#: The output topics by role; the adapter knows their names.
Role = Literal["forecasts", "dead_letters", "state", "scores"]
#: The topics that can be read without a group: the first two by recoveries, all by tools.
Readable = Literal["ticks"] | Role


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought: records, and the changes of assignment that happened inside it, in that order of time.

    `revoked` partitions were given up in an orderly way, `lost` ones were taken away; either way their state is to be
    dropped and nothing written for them. `assigned` ones wait, paused, for `Source.start_at`.
    """

    records: Sequence[Record] = ()
    revoked: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    assigned: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The messages of one transaction, by role."""

    messages: Mapping[Role, Sequence[Message]] = field(default_factory=dict)


class Source(Protocol):
    """The input topic as one member of the consumer group sees it."""

    def poll(self, timeout_seconds: float, max_records: int) -> Polled:
        """Wait at most `timeout_seconds` for records or a change of assignment.

        Raises
        ------
        BrokerUnavailable, AccessDenied, Fenced : after any of them this source must not be polled again
        """
        ...

    @property
    def joined(self) -> bool:
        """True while we are a settled member of the group, with or without partitions."""
        ...

    def assignment(self) -> tuple[int, ...]:
        """Return the partitions that are ours now, sorted."""
        ...

    def committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """Return the group's committed offsets, as far as they are settled; None where there is none.

        A partition whose offset an open transaction holds, or for which no broker answers now, is left out: ask again.
        Returns soon either way, so that live partitions do not wait.

        Raises
        ------
        AccessDenied : a right is missing
        """
        ...

    def bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return (first retained offset, end offset) of each partition of the input topic."""
        ...

    def start_at(self, partition: int, offset: int) -> None:
        """Seek an assigned partition and let it deliver."""
        ...

    def stop(self, partition: int) -> None:
        """Pause an assigned partition until the next `start_at`; nothing of it is delivered any more."""
        ...

    def positions(self) -> dict[int, int]:
        """Return the next offset of each assigned partition that has been started, transaction markers stepped over."""
        ...

    def lags(self) -> dict[int, int]:
        """Return how far each started partition is behind the log's end, in offsets, as the client knows it already."""
        ...

    def group_metadata(self) -> object:
        """Return the membership to commit under; read it right after the poll that brought the records."""
        ...

    def topic_id(self) -> str:
        """Return the id that the cluster gave the input topic when it was created; another one after a re-creation."""
        ...

    def confirm(self) -> None:
        """Make sure that no newer process has our place in the group, and that the input topic is still the same.

        Ask after a failed transaction and before `Sink.open`: two processes under one instance id share a transactional
        id too, and whoever opens it fences the other, for ever if neither asks. Ask also now and then: who neither
        reads nor commits hears of neither. And where partitions belong to nobody although the group is at rest, this
        asks for a rebalance.

        Raises
        ------
        Fenced : a newer process has our place
        TopicError : the topic was deleted, or deleted and created anew
        BrokerUnavailable, AccessDenied : it cannot be learned
        """
        ...

    def close(self, *, leave: bool) -> None:
        """Close the consumer; `leave` takes a static member out of the group too. Bounded in time, never raises."""
        ...


class Sink(Protocol):
    """The output topics and the group's offsets, written in transactions."""

    def open(self) -> None:
        """Claim our transactional id: fences and aborts what an earlier holder left open."""
        ...

    def commit(self, outgoing: Outgoing, offsets: Mapping[int, int], group_metadata: object) -> None:
        """Write one transaction: messages, then offsets of the input partitions, then the commit.

        Raises
        ------
        TransactionFailed : nothing of it is visible, or, where only the answer to the commit was lost, all of it: after
            the next `open`, and not before, the committed offsets tell. The next call uses a fresh producer.
        Fenced : a newer holder of our id exists
        AccessDenied : a right is missing
        """
        ...

    def close(self) -> None:
        """Abort what is open and close the producer. Bounded in time, never raises."""
        ...


class Reader(Protocol):
    """Partitions as any `read_committed` reader sees them, without a group: for recovery, and for tools."""

    def bounds(self, topic: Readable, partition: int) -> tuple[int, int]:
        """Return the first retained offset and the high watermark: what is written, committed or not.

        Who has read up to it has read everything that was committed before the call. A bound that transactions end
        would leave out a checkpoint whose marker is on its way.

        Raises
        ------
        TopicError : there is no such partition
        BrokerUnavailable, AccessDenied
        """
        ...

    def read(
        self, topic: Readable, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[Sequence[Record], int]:
        """Read on from `offset`; the cheapest way is to go on with the offset that the last call returned.

        Returns
        -------
        records : at most `max_records`, in offset order; none when none came within `timeout_seconds`
        next_offset : where to read on, markers and aborted records stepped over; it can grow without any record, and
            stays below the first record of an open transaction

        Raises
        ------
        TopicError : `offset` is not retained, or beyond the end
        BrokerUnavailable, AccessDenied
        """
        ...

    def close(self) -> None:
        """Let the connection go. Bounded in time, never raises."""
        ...
