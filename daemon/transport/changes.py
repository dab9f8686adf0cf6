"""What a rebalance did to our assignment, noted where a client tells it and taken where the loop can act on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol

from daemon.transport.port import Polled


class Numbered(Protocol):
    """A partition as either client names it."""

    @property
    def partition(self) -> int: ...


class Changes:
    """What happened to the assignment since it was last taken."""

    def __init__(self) -> None:
        self._gone: dict[int, Literal["revoked", "lost"]] = {}
        self._assigned: set[int] = set()

    def note_assigned(self, partitions: Iterable[Numbered]) -> None:
        """Note partitions that are ours now."""
        self._assigned.update(numbers(partitions))

    def note_gone(self, partitions: Iterable[Numbered], how: Literal["revoked", "lost"]) -> None:
        """Note partitions that are ours no longer."""
        for partition in numbers(partitions):
            self._gone[partition] = how
            self._assigned.discard(partition)

    @property
    def pending(self) -> bool:
        """True while there is something to take."""
        return bool(self._gone or self._assigned)

    def take(self) -> Polled:
        """Return the changes, without records, and forget them."""
        polled = Polled(
            revoked=tuple(p for p in sorted(self._gone) if self._gone[p] == "revoked"),
            lost=tuple(p for p in sorted(self._gone) if self._gone[p] == "lost"),
            assigned=tuple(sorted(self._assigned)),
        )
        self._gone.clear()
        self._assigned.clear()
        return polled


def numbers(partitions: Iterable[Numbered]) -> tuple[int, ...]:
    """Return the partition numbers, sorted."""
    return tuple(sorted(tp.partition for tp in partitions))
