"""Brings partitions to work: after start, restart, rebalance and failed transaction, by the same path.

    settled    the group's committed offset, once no open transaction holds it
    stored     the newest checkpoint in the state topic
    decided    what follows from the two (`daemon.resume`)
    put back   the snapshots, into the pipeline
    replayed   the ticks from the checkpoint to the committed offset, silently

The path is walked in small pieces between live batches, so `poll` and the partitions that run never wait long for it.
The pieces are `daemon.restore`'s. By the pipeline's first promise the states at its end are those of a process that
never stopped, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from daemon.core.marker import Marker
from daemon.core.pin import Pin
from daemon.core.pipeline import Pipeline
from daemon.errors import BrokerUnavailable, TopicError
from daemon.logs import facts, log
from daemon.phases import Phase, Phases
from daemon.restore import Pace, Restore, Walk
from daemon.resume import Terms
from daemon.transport.port import Reader, Source
from schemas import ResetCause

#: How long a partition may ask before others get their turn. Who goes away at the first read without an answer throws
#: away what is being fetched for it; then all partitions arrived together, late (measured: 2.2 s instead of 0.7).
ASKING_SECONDS = 0.5
#: How often a long recovery says how far it is.
PROGRESS_SECONDS = 5.0


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
        self._patience_seconds = patience_seconds
        self._monotonic = monotonic
        self.phases = Phases()
        #: In the order in which they get their turn.
        self._journeys: list[_Journey] = []
        self._committed: dict[int, int | None] = {}
        self._held_up = False
        self._progress_due = 0.0
        self._restore = Restore(reader, pipeline, terms)
        #: Ticks replayed for earlier models.
        self._replayed_before = 0

    def adopt(self, restore: Restore) -> None:
        """Bring up the states of another model from now on; nothing may be on its way."""
        assert not self.busy
        self._replayed_before += self._restore.replayed_count
        self._restore = restore

    def restore_of(self, pipeline: Pipeline, revision: str) -> Restore:
        """Return what brings up the states of another model, for `adopt`."""
        return Restore(self._restore.reader, pipeline, replace(self._restore.terms, revision=revision))

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
        return sum(self._restore.remaining.values())

    @property
    def replayed_count(self) -> int:
        """Ticks replayed so far."""
        return self._replayed_before + self._restore.replayed_count

    @property
    def instrument_count(self) -> int:
        """Instruments that the live states know."""
        return self._restore.pipeline.instrument_count

    @property
    def pin(self) -> Pin | None:
        """The newest pin that was met on the way."""
        return self._restore.pin

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
            if (
                self._restore.terms.on_lost_ticks == "stop"
                or self.phases.of(journey.partition) is not Phase.CATCHING_UP
            ):
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
        restore = self._restore
        committed = yield from self._settled(partition)
        self.phases.move(partition, Phase.RESTORING)
        stored = yield from restore.stored(partition)
        plan = yield from restore.decided(partition, committed, stored)
        resets = yield from restore.put_back(partition, plan, stored)
        del stored  # where the snapshots were of no use it still holds them
        self.phases.move(partition, Phase.CATCHING_UP)
        yield from restore.replayed(partition, plan)
        for name, cause in resets.items():
            self._restore.pipeline.reset(partition, name, cause)
        if plan.marker.origin is ResetCause.REVISION and plan.owed:
            self._restore.pipeline.warmed_up(partition, ResetCause.REVISION)
        owed = plan.owed or bool(resets)
        marker = replace(plan.marker, next_offset=plan.start) if owed else plan.marker
        return Recovered(partition, plan.start, marker, owed, self._monotonic() - started)

    def _settled(self, partition: int) -> Walk[int | None]:
        """Wait until the committed offset is known; `_ask_committed` asks for all partitions at once."""
        while partition not in self._committed:
            yield Pace.HELD
        return self._committed[partition]

    # --- what the path stands on --------------------------------------------------------------------------------------

    def _ask_committed(self) -> None:
        unsettled = [j.partition for j in self._journeys if j.partition not in self._committed]
        if unsettled:
            self._committed |= self._source.committed(unsettled)

    def _forget(self, partitions: Sequence[int]) -> None:
        gone = set(partitions)
        self._journeys = [journey for journey in self._journeys if journey.partition not in gone]
        for partition in partitions:
            self._committed.pop(partition, None)
            self._restore.remaining.pop(partition, None)
            self._restore.pipeline.drop(partition)

    def _say_progress(self) -> None:
        now = self._monotonic()
        if self._journeys and now >= self._progress_due:
            self._progress_due = now + PROGRESS_SECONDS
            log.info("restoring", extra=facts(partitions=len(self._journeys), remaining_ticks=self.remaining_ticks))


def _log_arrival(arrived: Recovered) -> None:
    partition, offset, seconds = arrived.partition, arrived.start, round(arrived.seconds, 3)
    origin = arrived.marker.origin.value
    log.info("partition recovered", extra=facts(partition=partition, offset=offset, origin=origin, seconds=seconds))
