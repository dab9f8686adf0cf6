"""The states of another model, brought up beside those that work.

Partition by partition the walk of a recovery that finds another revision: nothing of an instrument is kept, the ticks
since the oldest state began are read from the log and replayed silently, up to where the live states stand by then.
From there on the partition is level: what the live model has answered is replayed as it is, batch by batch, without
reading it again. When all partitions are level, the new states stand where the live ones stand.

Only what is committed is ever replayed, so a live batch that fails changes nothing here. Who takes a partition away or
sets it back gives the warm-up up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from daemon.core import marker as markers
from daemon.core.marker import Marker
from daemon.core.records import Message, Record
from daemon.errors import TopicError
from daemon.restore import Pace, Restore, Walk
from daemon.resume import Plan
from schemas import ResetCause

#: A partition whose live states run ahead of us for so long is made level in one piece: live ticks wait meanwhile.
CHASE_SECONDS = 30.0
#: How long they may wait at a time.
PIECE_SECONDS = 10.0


class Warming:
    """One warm-up, of the partitions that run when it begins.

    Parameters
    ----------
    restore : in the pipeline and under the terms of the new model
    positions : next offset of each partition, all answered before it
    """

    def __init__(
        self,
        restore: Restore,
        positions: Mapping[int, int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.restore = restore
        #: Where the live states stand.
        self._goals = dict(positions)
        self._monotonic = monotonic
        #: How the partitions began that are level.
        self._level: dict[int, Plan] = {}
        #: Partition -> keys that the live states have written since we began: the topic holds them, we may not.
        self._written: dict[int, dict[bytes, None]] = {partition: {} for partition in positions}
        self._walk = self._walked()
        #: Since when the partition at hand runs after its live states; None where it has not come near them.
        self._chases_since: float | None = None

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions that it is for, sorted."""
        return tuple(sorted(self._goals))

    def committed(self, records: Sequence[Record], state: Iterable[Message]) -> None:
        """Follow a transaction of the live model: what it answered, and what it wrote to the state topic."""
        self.restore.replay([record for record in records if record.partition in self._level])
        for message in state:
            if message.key is not None and message.key != markers.KEY:
                self._written[message.partition][message.key] = None

    def work(self, seconds: float, positions: Mapping[int, int]) -> bool:
        """Get on for about so long; return True where the new states stand at `positions`, all of them.

        Raises
        ------
        TopicError : ticks that it needs are no longer retained, or the checkpoint is not that of the live states
        """
        self._goals = dict(positions)
        now = self._monotonic()
        in_one_piece = self._chases_since is not None and now - self._chases_since > CHASE_SECONDS
        deadline = now + (PIECE_SECONDS if in_one_piece else seconds)
        for pace in self._walk:
            if self._monotonic() >= deadline or (pace is Pace.ASKED and not in_one_piece):
                return False
        return True

    def finish(self) -> dict[int, Marker]:
        """Let the new states be those that answer from here on; return the marker of each partition."""
        found = {}
        for partition, plan in self._level.items():
            at = self._goals[partition]
            self.restore.pipeline.mark_stale(partition, self._written[partition])
            self.restore.pipeline.warmed_up(partition, ResetCause.REVISION)
            found[partition] = replace(plan.marker, next_offset=at, live_from=at)
        return found

    def _walked(self) -> Walk[None]:
        """Make one partition after the other level: reads of one go on where they were."""
        restore = self.restore
        for partition in self.partitions:
            stored = yield from restore.stored(partition)
            plan = yield from restore.decided(partition, self._goals[partition], stored)
            if plan.marker.origin is not ResetCause.REVISION or plan.keep:
                raise TopicError(f"partition {partition} {plan.line}")
            yield from restore.put_back(partition, plan, stored)
            del stored  # as large as the states themselves
            offset = plan.replay_from
            while offset < self._goals[partition]:
                if offset >= plan.start and self._chases_since is None:
                    self._chases_since = self._monotonic()
                before, offset = offset, restore.replay_piece(partition, offset, self._goals[partition])
                yield Pace.MOVED if offset > before else Pace.ASKED
            self._level[partition] = plan
            self._chases_since = None
