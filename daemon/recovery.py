"""Brings partitions to work: after start, restart, rebalance and failed transaction, by the same path.

    settled    the group's committed offset, once no open transaction holds it
    stored     the newest checkpoint in the state topic
    decided    what follows from the two (`daemon.resume`)
    put back   the snapshots, into the pipeline
    replayed   the ticks from the checkpoint to the committed offset, silently

The path is walked in small pieces between live batches, so `poll` and the partitions that run never wait long for it.
By the pipeline's first promise the states at its end are those of a process that never stopped, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import islice
from typing import TypeVar

from daemon.core.marker import Marker, MarkerError
from daemon.core.pipeline import Pipeline
from daemon.core.records import Record
from daemon.core.snapshot import Snapshot, SnapshotError
from daemon.errors import BrokerUnavailable, TopicError
from daemon.logs import facts, log
from daemon.phases import Phase, Phases
from daemon.resume import Found, Plan, Terms, decide
from daemon.stored import Stored, blank, is_instrument
from daemon.transport.port import Readable, Reader, Source
from schemas import ResetCause

#: A read that finds nothing returns after this; a fetch that is on its way is taken by the next one.
READ_SECONDS = 0.02
#: Records of one read: some 10 ms of decoding or replaying.
READ_RECORDS = 500
#: How long a partition may ask before others get their turn. Who goes away at the first read without an answer throws
#: away what is being fetched for it; then all partitions arrived together, late (measured: 2.2 s instead of 0.7).
ASKING_SECONDS = 0.5
#: How often a long recovery says how far it is.
PROGRESS_SECONDS = 5.0

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


@dataclass(frozen=True, slots=True)
class Recovered:
    """A partition whose states stand at `start`."""

    partition: int
    start: int
    #: In force from here on.
    marker: Marker
    #: True where the state topic does not hold it yet: it is to be committed before the first tick is answered.
    owed: bool
    #: From the assignment to here.
    seconds: float


@dataclass(slots=True)
class _Journey:
    """One partition on its way."""

    partition: int
    walk: Walk[Recovered]
    #: Since when it has to wait.
    waits_since: float | None = None


class Recovery:
    """The partitions that are ours and do not run yet.

    Parameters
    ----------
    patience_seconds : how long a partition may wait for a broker or for another owner's transaction
    """

    def __init__(
        self,
        source: Source,
        reader: Reader,
        pipeline: Pipeline,
        terms: Terms,
        *,
        patience_seconds: float = 60.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._reader = reader
        self._pipeline = pipeline
        self._terms = terms
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic
        self.phases = Phases()
        #: In the order in which they get their turn.
        self._journeys: list[_Journey] = []
        self._committed: dict[int, int | None] = {}
        #: Ticks still to replay, by partition.
        self._remaining: dict[int, int] = {}
        self._held_up = False
        self._progress_due = 0.0
        #: Ticks replayed so far.
        self.replayed_count = 0

    def begin(self, partitions: Sequence[int]) -> None:
        """Set partitions on their way, anew where they are on it or run already."""
        self._forget(partitions)
        now = self._monotonic()
        self._progress_due = now + PROGRESS_SECONDS
        for partition in partitions:
            self.phases.move(partition, Phase.ASSIGNED)
            self._journeys.append(_Journey(partition, self._path(partition)))

    def drop(self, partitions: Sequence[int]) -> None:
        """Give up partitions that are no longer ours, wherever they are; nothing is written for them."""
        self._forget(partitions)
        for partition in partitions:
            if self.phases.of(partition) is not Phase.UNKNOWN:  # given and taken within one poll
                self.phases.move(partition, Phase.UNKNOWN)

    def run(self, recovered: Recovered) -> None:
        """Let a recovered partition deliver; the checkpoint that it owed, if any, is committed."""
        self.phases.move(recovered.partition, Phase.RUNNING)
        self._source.start_at(recovered.partition, recovered.start)

    @property
    def waiting_for(self) -> str | None:
        """What the partitions on their way still need, in words; None where there are none."""
        count = len(self._journeys)
        if not count:
            return None
        return f"{count} partition{'s' if count > 1 else ''} to be restored, {self.remaining_ticks} ticks to replay"

    @property
    def busy(self) -> bool:
        """True while partitions are on their way."""
        return bool(self._journeys)

    @property
    def held_up(self) -> bool:
        """True where none of them got on in the last slice."""
        return self.busy and self._held_up

    @property
    def remaining_ticks(self) -> int:
        """Ticks still to replay, as far as known."""
        return sum(self._remaining.values())

    def work(self, seconds: float) -> list[Recovered]:
        """Get on for about so long; return the partitions that have arrived.

        Raises
        ------
        TopicError : a partition cannot go on without somebody's decision
        BrokerUnavailable : one has waited for longer than we are patient
        """
        arrived: list[Recovered] = []
        deadline = self._monotonic() + seconds
        self._ask_committed()
        held = 0
        while held < len(self._journeys):
            pace = self._advance(self._journeys[0], arrived)
            held = held + 1 if pace is Pace.HELD else 0
            if pace is Pace.ASKED or self._monotonic() >= deadline:
                break
        self._held_up = held > 0
        self._say_progress()
        return arrived

    def _advance(self, journey: _Journey, arrived: list[Recovered]) -> Pace:
        """Walk one piece; return how it got on. One that is held lets the others go first."""
        try:
            pace = next(journey.walk)
        except StopIteration as end:
            self._journeys.remove(journey)
            arrived.append(end.value)
            _log_arrival(end.value)
            pace = Pace.MOVED
        except TopicError as error:
            if self._terms.on_lost_ticks == "stop" or self.phases.of(journey.partition) is not Phase.CATCHING_UP:
                raise
            # Deleted since it was decided to replay them: decide again, on what is there now.
            log.warning("ticks were lost while replayed", extra=facts(partition=journey.partition, error=str(error)))
            self.begin([journey.partition])
            pace = Pace.MOVED
        if pace is Pace.MOVED:
            for each in self._journeys:
                each.waits_since = None  # the others had to wait for this one
            return pace
        now = self._monotonic()
        journey.waits_since = now if journey.waits_since is None else journey.waits_since
        waited = now - journey.waits_since
        if waited > self._patience_seconds:
            raise BrokerUnavailable(
                f"partition {journey.partition} could not be restored for {waited:.0f} s: the broker is away, or an "
                "open transaction of another instance holds it"
            )
        if pace is Pace.ASKED and waited < ASKING_SECONDS:
            return pace
        self._journeys.append(self._journeys.pop(0))
        return Pace.HELD

    # --- the path -----------------------------------------------------------------------------------------------------

    def _path(self, partition: int) -> Walk[Recovered]:
        started = self._monotonic()
        committed = yield from self._settled(partition)
        self.phases.move(partition, Phase.RESTORING)
        stored = yield from self._stored(partition)
        plan = yield from self._decided(partition, committed, stored)
        resets = yield from self._put_back(partition, plan, stored)
        del stored  # as large as the states themselves
        self.phases.move(partition, Phase.CATCHING_UP)
        yield from self._replayed(partition, plan)
        for name, cause in resets.items():
            self._pipeline.reset(partition, name, cause)
        if plan.marker.origin is ResetCause.REVISION and plan.owed:
            self._pipeline.warmed_up(partition, ResetCause.REVISION)
        owed = plan.owed or bool(resets)
        marker = replace(plan.marker, next_offset=plan.start) if owed else plan.marker
        return Recovered(partition, plan.start, marker, owed, self._monotonic() - started)

    def _settled(self, partition: int) -> Walk[int | None]:
        """Wait until the committed offset is known; `_ask_committed` asks for all partitions at once."""
        while partition not in self._committed:
            yield Pace.HELD
        return self._committed[partition]

    def _stored(self, partition: int) -> Walk[Stored]:
        """Read the state topic to its end as it is now, which waits out a transaction that is still open there."""
        stored = Stored()
        offset, end = yield from self._bounds("state", partition)
        while offset < end:
            records, next_offset = self._read("state", partition, offset)
            stored.add(records)
            yield Pace.MOVED if next_offset > offset else Pace.ASKED
            offset = next_offset
        return stored

    def _decided(self, partition: int, committed: int | None, stored: Stored) -> Walk[Plan]:
        first, end = yield from self._bounds("ticks", partition)
        try:
            marker = stored.marker()
        except MarkerError as error:
            log.error("the checkpoint's marker is not ours to read", extra=facts(partition=partition, error=str(error)))
            marker = None
        oldest: int | None = None
        if marker is not None and marker.revision != self._terms.revision:
            oldest = yield from self._oldest_reset(marker, stored)
        plan = decide(Found(partition, first, end, committed, marker, oldest, stored.unmarked), self._terms)
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

    def _put_back(self, partition: int, plan: Plan, stored: Stored) -> Walk[dict[str, ResetCause]]:
        """Give the snapshots to the pipeline; return the instruments that begin anew where the partition goes on."""
        marker = plan.marker
        self._pipeline.assign(partition, marker.origin, saved_to=plan.replay_from)
        resets: dict[str, ResetCause] = {}
        if not plan.keep:
            self._pipeline.mark_stale(partition, stored.values)
            return resets
        unusable: dict[bytes, SnapshotError] = {}
        for chunk in _chunks(stored.snapshots(marker)):
            whole: list[Snapshot] = []
            for key, found in chunk:
                if isinstance(found, SnapshotError):
                    unusable[key] = found
                elif not self._pipeline.fits(found):
                    unusable[key] = SnapshotError("it is of another shape than our states")
                else:
                    whole.append(found)
            resets |= {s.instrument.name: s.instrument.pending_reset or ResetCause.COLD for s in whole if s.is_reset}
            self._pipeline.put_back(partition, whole)
            yield Pace.MOVED
        if unusable:
            resets |= self._give_up(partition, unusable, marker)
        self._pipeline.settle(partition)
        return resets

    def _give_up(self, partition: int, unusable: dict[bytes, SnapshotError], marker: Marker) -> dict[str, ResetCause]:
        """Let the instruments begin anew whose snapshots cannot be used; the next checkpoint sets the topic right."""
        key, error = next(iter(unusable.items()))
        log.error(
            "snapshots that cannot be used, their instruments start cold",
            extra=facts(partition=partition, count=len(unusable), first=repr(key), error=str(error)),
        )
        blanks = [blank(key, marker) for key in unusable if is_instrument(key)]
        self._pipeline.put_back(partition, blanks)
        self._pipeline.mark_stale(partition, unusable)
        return {each.instrument.name: ResetCause.COLD for each in blanks}

    def _replayed(self, partition: int, plan: Plan) -> Walk[None]:
        """Move the states over the ticks up to the first that has no committed outcome."""
        offset = plan.replay_from
        while offset < plan.start:
            self._remaining[partition] = plan.start - offset
            records, next_offset = self._read("ticks", partition, offset)
            answered = [record for record in records if record.offset < plan.start]
            self._pipeline.replay(answered)
            self.replayed_count += len(answered)
            yield Pace.MOVED if next_offset > offset else Pace.ASKED
            offset = next_offset
        self._remaining.pop(partition, None)

    # --- what the path stands on --------------------------------------------------------------------------------------

    def _ask_committed(self) -> None:
        unsettled = [j.partition for j in self._journeys if j.partition not in self._committed]
        if unsettled:
            self._committed |= self._source.committed(unsettled)

    def _bounds(self, topic: Readable, partition: int) -> Walk[tuple[int, int]]:
        while True:
            try:
                return self._reader.bounds(topic, partition)
            except BrokerUnavailable as error:
                log.debug("asking again", extra=facts(partition=partition, error=str(error)))
            yield Pace.ASKED

    def _read(self, topic: Readable, partition: int, offset: int) -> tuple[Sequence[Record], int]:
        try:
            return self._reader.read(topic, partition, offset, READ_SECONDS, READ_RECORDS)
        except BrokerUnavailable as error:
            log.debug("reading again", extra=facts(partition=partition, error=str(error)))
            return (), offset

    def _forget(self, partitions: Sequence[int]) -> None:
        gone = set(partitions)
        self._journeys = [journey for journey in self._journeys if journey.partition not in gone]
        for partition in partitions:
            self._committed.pop(partition, None)
            self._remaining.pop(partition, None)
            self._pipeline.drop(partition)

    def _say_progress(self) -> None:
        now = self._monotonic()
        if self._journeys and now >= self._progress_due:
            self._progress_due = now + PROGRESS_SECONDS
            log.info("restoring", extra=facts(partitions=len(self._journeys), remaining_ticks=self.remaining_ticks))


def _log_arrival(arrived: Recovered) -> None:
    partition, offset, seconds = arrived.partition, arrived.start, round(arrived.seconds, 3)
    origin = arrived.marker.origin.value
    log.info("partition recovered", extra=facts(partition=partition, offset=offset, origin=origin, seconds=seconds))


def _chunks(items: Iterator[Value]) -> Iterator[list[Value]]:
    """Cut a long walk into pieces."""
    while chunk := list(islice(items, READ_RECORDS)):
        yield chunk
