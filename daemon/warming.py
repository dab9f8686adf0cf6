"""The states of another model, brought up beside those that work.

Partition by partition the walk of a recovery that finds another revision: nothing of an instrument is kept, the ticks
since the oldest state began are replayed silently. Only that the goal moves: the ticks that are answered meanwhile are
replayed too, until the new states stand where the live ones do. The walk reads nothing but what is committed, so it
holds whatever becomes of a live batch; a partition that is taken away or falls back needs a new one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from daemon.core import marker as markers
from daemon.core.marker import Marker
from daemon.core.records import Message
from daemon.errors import TopicError
from daemon.restore import Pace, Restore, Walk
from daemon.resume import Plan
from schemas import ResetCause

#: A goal that runs ahead of us for so long is met in one piece: live ticks wait until we stand there.
CHASE_SECONDS = 30.0
#: How long they may wait for it.
PIECE_SECONDS = 10.0


class Warming:
    """One warm-up, of the partitions that run when it begins.

    Parameters
    ----------
    positions : next offset of each partition, all answered before it
    """

    def __init__(
        self,
        restore: Restore,
        positions: Mapping[int, int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.restore = restore
        self._goals = dict(positions)
        self._monotonic = monotonic
        self._plans: dict[int, Plan] = {}
        #: Partition -> the first tick that is not in its new states.
        self._stands: dict[int, int] = {}
        #: Partition -> keys that the live states have written since we began: the topic holds them, we may not.
        self._written: dict[int, dict[bytes, None]] = {partition: {} for partition in positions}
        self._walk = self._begun()
        self._begins = True
        self._chases_since: float | None = None

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions that it is for, sorted."""
        return tuple(sorted(self._goals))

    @property
    def remaining_ticks(self) -> int:
        """Ticks still to replay, as far as known."""
        return sum(self.restore.remaining.values()) + sum(self._goals[p] - at for p, at in self._stands.items())

    def wrote(self, state: Iterable[Message]) -> None:
        """Note what a committed transaction wrote to the state topic."""
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
        while self._begins or self._behind is not None:
            pace = self._piece()
            if self._monotonic() >= deadline or (pace is Pace.ASKED and not in_one_piece):
                return False
        return True

    def finish(self) -> dict[int, Marker]:
        """Let the new states be those that answer from here on; return the marker of each partition."""
        found = {}
        for partition, plan in self._plans.items():
            at = self._stands[partition]
            self.restore.pipeline.mark_stale(partition, self._written[partition])
            self.restore.pipeline.warmed_up(partition, ResetCause.REVISION)
            found[partition] = replace(plan.marker, next_offset=at, live_from=at)
        return found

    @property
    def _behind(self) -> int | None:
        """The partition that is furthest behind its goal, None where all stand there."""
        behind = [(self._goals[p] - at, p) for p, at in self._stands.items() if at < self._goals[p]]
        return max(behind)[1] if behind else None

    def _piece(self) -> Pace:
        if self._begins:
            try:
                return next(self._walk)
            except StopIteration:
                self._begins = False
                self._chases_since = self._monotonic()
                return Pace.MOVED
        partition = self._behind
        assert partition is not None
        before = self._stands[partition]
        self._stands[partition] = self.restore.replay_piece(partition, before, self._goals[partition])
        return Pace.MOVED if self._stands[partition] > before else Pace.ASKED

    def _begun(self) -> Walk[None]:
        """Bring each partition to where it stood when its turn came."""
        for partition in self.partitions:
            stored = yield from self.restore.stored(partition)
            plan = yield from self.restore.decided(partition, self._goals[partition], stored)
            if plan.marker.origin is not ResetCause.REVISION or plan.keep:
                raise TopicError(f"partition {partition} {plan.line}")
            yield from self.restore.put_back(partition, plan, stored)
            del stored
            yield from self.restore.replayed(partition, plan)
            self._plans[partition] = plan
            self._stands[partition] = plan.start
