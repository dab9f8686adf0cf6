"""The life of a partition in this process: a table of the transitions that are allowed.

                        offset and checkpoint read      states at the committed offset
                                   |                              |
    (unknown) --> ASSIGNED --> RESTORING ----> CATCHING_UP ----> RUNNING
                     ^             |               |               |
                     +-------------+---------------+---------------+   a transaction failed: start over
                                   |
                                   v
                             (unknown)             revoked or lost, from any phase

Only RUNNING partitions deliver ticks to the pipeline's forecasts, and only they stand in transactions; the checkpoint
that a partition owes before its first tick is written on the way from CATCHING_UP to RUNNING.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """Where a partition stands; `UNKNOWN` is not ours."""

    UNKNOWN = "unknown"
    ASSIGNED = "assigned"
    RESTORING = "restoring"
    CATCHING_UP = "catching up"
    RUNNING = "running"


TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.UNKNOWN: frozenset({Phase.ASSIGNED}),
    Phase.ASSIGNED: frozenset({Phase.RESTORING, Phase.ASSIGNED, Phase.UNKNOWN}),
    Phase.RESTORING: frozenset({Phase.CATCHING_UP, Phase.ASSIGNED, Phase.UNKNOWN}),
    Phase.CATCHING_UP: frozenset({Phase.RUNNING, Phase.ASSIGNED, Phase.UNKNOWN}),
    Phase.RUNNING: frozenset({Phase.ASSIGNED, Phase.UNKNOWN}),
}


class IllegalTransition(AssertionError):
    """A bug: the phases do not follow each other so. Nothing was changed."""


class Phases:
    """The phase of every partition that is ours."""

    def __init__(self) -> None:
        self._phases: dict[int, Phase] = {}

    def move(self, partition: int, to: Phase) -> None:
        """Take a partition to its next phase.

        Raises
        ------
        IllegalTransition : the table does not hold it
        """
        now = self.of(partition)
        if to not in TRANSITIONS[now]:
            raise IllegalTransition(f"partition {partition}: {now} -> {to}")
        if to is Phase.UNKNOWN:
            del self._phases[partition]
        else:
            self._phases[partition] = to

    def of(self, partition: int) -> Phase:
        """Return a partition's phase."""
        return self._phases.get(partition, Phase.UNKNOWN)
