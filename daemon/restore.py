"""The pieces of the way that brings a partition's states up, each a walk that stops often.

    stored     the newest checkpoint in the state topic
    decided    what follows from it and from the committed offset (`daemon.resume`)
    put back   the snapshots, into the pipeline
    replayed   the ticks from the checkpoint on, silently

`daemon.recovery` walks it to bring partitions to work, `daemon.warming` to bring the states of another model up beside
those that work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from enum import Enum, auto
from itertools import islice
from typing import TypeVar

from daemon.core.marker import Marker, MarkerError
from daemon.core.pin import Pin, newest
from daemon.core.pipeline import Pipeline
from daemon.core.records import Record
from daemon.core.snapshot import Snapshot, SnapshotError
from daemon.errors import BrokerUnavailable
from daemon.logs import facts, log
from daemon.resume import Found, Plan, Terms, decide
from daemon.stored import Stored, blank, is_instrument
from daemon.transport.port import Readable, Reader
from schemas import ResetCause

#: A read that finds nothing returns after this; a fetch that is on its way is taken by the next one.
READ_SECONDS = 0.02
#: Records of one read: some 10 ms of decoding or replaying.
READ_RECORDS = 500

Value = TypeVar("Value")


class Pace(Enum):
    """How a partition got on with one piece of its path."""

    MOVED = auto()
    #: It asked the cluster and has no answer yet; the asking waited already.
    ASKED = auto()
    #: Somebody else has to do something first.
    HELD = auto()


#: The path, piece by piece.
Walk = Generator[Pace, None, Value]


class Restore:
    """Brings states up in a pipeline, under the terms that they are to have."""

    def __init__(self, reader: Reader, pipeline: Pipeline, terms: Terms) -> None:
        self.reader = reader
        self.pipeline = pipeline
        self.terms = terms
        #: Ticks still to replay, by partition.
        self.remaining: dict[int, int] = {}
        #: Ticks replayed so far, and how many of them were accepted.
        self.replayed_count = 0
        self.accepted_count = 0
        #: The newest pin that was met on the way.
        self.pin: Pin | None = None

    def stored(self, partition: int) -> Walk[Stored]:
        """Read the state topic to its end as it is now, which waits out a transaction that is still open there."""
        stored = Stored()
        offset, end = yield from self._bounds("state", partition)
        while offset < end:
            records, next_offset = self._read("state", partition, offset)
            stored.add(records)
            yield Pace.MOVED if next_offset > offset else Pace.ASKED
            offset = next_offset
        self.pin = newest(self.pin, stored.pin())
        return stored

    def decided(self, partition: int, committed: int | None, stored: Stored) -> Walk[Plan]:
        """Decide how the partition goes on; see `daemon.resume`."""
        first, end = yield from self._bounds("ticks", partition)
        try:
            marker = stored.marker()
        except MarkerError as error:
            log.error("the checkpoint's marker is not ours to read", extra=facts(partition=partition, error=str(error)))
            marker = None
        oldest: int | None = None
        if marker is not None and marker.revision != self.terms.revision:
            oldest = yield from self._oldest_reset(marker, stored)
        plan = decide(Found(partition, first, end, committed, marker, oldest, stored.unmarked), self.terms)
        log.log(plan.level, f"partition {plan.line}", extra=facts(partition=partition, offset=plan.start))
        return plan

    def _oldest_reset(self, marker: Marker, stored: Stored) -> Walk[int]:
        """Find where the oldest state began: the ticks since then are what another revision needs.

        Without any, it is the marker: states that began behind it are in no snapshot yet.
        """
        resets: list[int] = []
        for chunk in _chunks(stored.snapshots(marker)):
            resets += (found.instrument.reset_offset for _, found in chunk if isinstance(found, Snapshot))
            yield Pace.MOVED
        return min((offset for offset in resets if offset >= 0), default=marker.next_offset)

    def put_back(self, partition: int, plan: Plan, stored: Stored) -> Walk[dict[str, ResetCause]]:
        """Move the snapshots into the pipeline; return the instruments that begin anew where the partition goes on."""
        marker = plan.marker
        self.pipeline.assign(partition, marker.origin, saved_to=plan.replay_from)
        resets: dict[str, ResetCause] = {}
        if not plan.keep:
            self.pipeline.mark_stale(partition, stored.values)
            return resets
        unusable: dict[bytes, SnapshotError] = {}
        for chunk in _chunks(stored.taken(marker)):
            whole: list[Snapshot] = []
            for key, found in chunk:
                if isinstance(found, SnapshotError):
                    unusable[key] = found
                elif not self.pipeline.fits(found):
                    unusable[key] = SnapshotError("it is of another shape than our states")
                else:
                    whole.append(found)
            resets |= {s.instrument.name: s.instrument.pending_reset or ResetCause.COLD for s in whole if s.is_reset}
            self.pipeline.put_back(partition, whole)
            yield Pace.MOVED
        if unusable:
            resets |= self._give_up(partition, unusable, marker)
        self.pipeline.settle(partition)
        return resets

    def _give_up(self, partition: int, unusable: dict[bytes, SnapshotError], marker: Marker) -> dict[str, ResetCause]:
        """Let the instruments begin anew whose snapshots cannot be used; the next checkpoint sets the topic right."""
        key, error = next(iter(unusable.items()))
        log.error(
            "snapshots that cannot be used, their instruments start cold",
            extra=facts(partition=partition, count=len(unusable), first=repr(key), error=str(error)),
        )
        blanks = [blank(key, marker) for key in unusable if is_instrument(key)]
        self.pipeline.put_back(partition, blanks)
        self.pipeline.mark_stale(partition, unusable)
        return {each.instrument.name: ResetCause.COLD for each in blanks}

    def replayed(self, partition: int, plan: Plan) -> Walk[None]:
        """Move the states over the ticks up to the first that has no committed outcome."""
        offset = plan.replay_from
        while offset < plan.start:
            self.remaining[partition] = plan.start - offset
            next_offset = self.replay_piece(partition, offset, plan.start)
            yield Pace.MOVED if next_offset > offset else Pace.ASKED
            offset = next_offset
        self.remaining.pop(partition, None)

    def replay_piece(self, partition: int, offset: int, stop: int) -> int:
        """Move the states over the next ticks before `stop`, as many as one read brings; return where to go on."""
        records, next_offset = self._read("ticks", partition, offset)
        self.replay([record for record in records if record.offset < stop])
        return min(next_offset, stop)

    def replay(self, records: Sequence[Record]) -> None:
        """Move the states over ticks that are answered already."""
        self.accepted_count += self.pipeline.replay(records)
        self.replayed_count += len(records)

    def _bounds(self, topic: Readable, partition: int) -> Walk[tuple[int, int]]:
        while True:
            try:
                return self.reader.bounds(topic, partition)
            except BrokerUnavailable as error:
                log.debug("asking again", extra=facts(partition=partition, error=str(error)))
            yield Pace.ASKED

    def _read(self, topic: Readable, partition: int, offset: int) -> tuple[Sequence[Record], int]:
        try:
            return self.reader.read(topic, partition, offset, READ_SECONDS, READ_RECORDS)
        except BrokerUnavailable as error:
            log.debug("reading again", extra=facts(partition=partition, error=str(error)))
            return (), offset


def _chunks(items: Iterator[Value]) -> Iterator[list[Value]]:
    """Cut a long walk into pieces."""
    while chunk := list(islice(items, READ_RECORDS)):
        yield chunk
