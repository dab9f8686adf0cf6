"""A member of the group as the tests drive it, and how they wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from daemon.core.records import Message, Record
from daemon.transport.memory import MemorySource
from daemon.transport.port import Outgoing, Polled, Source

#: Longer than any wait that is not a failure; a session times out after 10 s.
PATIENCE_SECONDS = 20.0


class Member:
    """A source that is polled, what it delivered, and what it was told."""

    def __init__(self, source: Source, *, start: bool = True) -> None:
        self.source = source
        self.records: list[Record] = []
        self.assigned: list[int] = []
        self.revoked: list[int] = []
        self.lost: list[int] = []
        self._start = start

    def turn(self, max_records: int = 1000) -> Polled:
        """Poll once; start what was assigned at its committed offset, or at 0."""
        polled = self.source.poll(0.1, max_records)
        self.records += polled.records
        self.assigned += polled.assigned
        self.revoked += polled.revoked
        self.lost += polled.lost
        if self._start and polled.assigned:
            for partition, offset in settled(self.source, polled.assigned).items():
                self.source.start_at(partition, offset or 0)
        return polled

    @property
    def values(self) -> list[tuple[int, bytes | None]]:
        """Partition and value of every record delivered, as they came."""
        return [(record.partition, record.value) for record in self.records]


def turn_until(condition: Callable[[], bool], *members: Member, max_records: int = 1000) -> None:
    """Poll the members until the condition holds; fail when patience ends.

    Members of one Kafka group poll side by side, each on a thread of its own as in processes of their own: in turn,
    each would wait for the others to rejoin while they wait for it.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS

    def turn(member: Member) -> None:
        while not condition():
            assert time.monotonic() < deadline, [(m.source.assignment(), m.values[-3:]) for m in members]
            member.turn(max_records)

    if len(members) > 1 and not any(isinstance(member.source, MemorySource) for member in members):
        with ThreadPoolExecutor(len(members)) as threads:
            list(threads.map(turn, members))
    else:
        while not condition():
            assert time.monotonic() < deadline, [(m.source.assignment(), m.values[-3:]) for m in members]
            for member in members:
                member.turn(max_records)


def settled(source: Source, partitions: Sequence[int]) -> dict[int, int | None]:
    """Return the committed offsets once no transaction holds any of them."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while set(offsets := source.committed(partitions)) < set(partitions):
        assert time.monotonic() < deadline, offsets
    return offsets


def settle(*members: Member) -> None:
    """Poll until the members share the four partitions evenly, and each knows of the last round."""
    turn_until(lambda: all(len(member.source.assignment()) == 4 // len(members) for member in members), *members)
    for member in members:
        member.turn()


def owning(source: Source, *, start: bool = True, count: int = 4) -> Member:
    """Return a member that has joined the group and owns `count` partitions."""
    member = Member(source, start=start)
    turn_until(lambda: len(source.assignment()) == count, member)
    return member


def ticks(partition: int, *names: str) -> list[Message]:
    """Return ticks of one partition, each with its name as value."""
    return [Message(partition, b"key", name.encode()) for name in names]


def forecast(name: str, partition: int = 0) -> Outgoing:
    """Return a transaction's content with one forecast."""
    return Outgoing({"forecasts": [Message(partition, b"key", name.encode())]})
