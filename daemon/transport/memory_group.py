"""A consumer group in memory: classic protocol, cooperative assignment, static members, no threads and no clock.

A change of members starts a *round*. Each member joins it when it polls, and waits, without records, until all have;
then the generation grows and each learns in its next poll what it keeps. A partition that must move is taken from its
owner in one round and given to the next owner in the following one, so it never has two owners in one generation.

A commit is checked against member id and generation, never against ownership: while a round is pending the old
generation may still commit, and a member may commit offsets of partitions it does not own (both measured).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass


class Refused(Exception):
    """The cluster refuses a request; the transaction it belonged to cannot be committed."""


class InstanceFenced(Refused):
    """A newer process has our instance id."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What a commit is checked against."""

    group_id: str
    instance_id: str
    member_id: int
    generation: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What a member learns from the group in one poll."""

    #: True while the round waits for others; such a poll delivers nothing.
    waiting: bool = False
    revoked: tuple[int, ...] = ()
    assigned: tuple[int, ...] = ()


@dataclass(slots=True)
class _Member:
    instance_id: str
    #: What the member itself believes to own.
    owned: tuple[int, ...] = ()
    #: The outcome of the last round, until the member polls and learns it.
    granted: tuple[int, ...] | None = None
    generation: int = -1
    joined: bool = False


class MemoryGroup:
    """Members, generation and committed offsets of one group."""

    def __init__(self, group_id: str, partitions: int) -> None:
        self.group_id = group_id
        self.generation = 0
        #: partition -> committed offset of the input topic.
        self.offsets: dict[int, int] = {}
        self._partitions = range(partitions)
        self._members: dict[int, _Member] = {}
        #: Members that are out, as they last knew themselves; some were replaced by a process of their name.
        self._former: dict[int, _Member] = {}
        self._replaced: set[int] = set()
        self._round_open = False
        self._member_ids = itertools.count(1)

    def join(self, instance_id: str) -> int:
        """Join as `instance_id` and return the new member id.

        A name that is a member already is taken over with its partitions, without a round. What the old process was
        still to give up belongs to nobody then, until somebody asks to `share_anew` (measured).
        """
        member = _Member(instance_id)
        for old_id, old in list(self._members.items()):
            if old.instance_id == instance_id:
                self._former[old_id] = self._members.pop(old_id)
                self._replaced.add(old_id)
                member.granted = old.owned if old.granted is None else old.granted
        member_id = next(self._member_ids)
        self._members[member_id] = member
        if member.granted is None:
            self._round_open = True
        return member_id

    def share_anew(self) -> None:
        """Open a round if partitions belong to nobody."""
        members = self._members.values()
        owned = {p for member in members for p in (member.owned if member.granted is None else member.granted)}
        self._round_open |= not owned.issuperset(self._partitions)

    def knows(self, member_id: int) -> bool:
        """Whether this member is in the group as far as its polls tell; a replaced one is told only when it commits."""
        return member_id in self._members or member_id in self._replaced

    def is_replaced(self, member_id: int) -> bool:
        """Whether a newer process has taken this member's name over."""
        return member_id in self._replaced

    @property
    def settled(self) -> bool:
        """True while no round is due and every member knows of the last one."""
        return not self._round_open and all(m.generation == self.generation for m in self._members.values())

    def turn(self, member_id: int) -> Turn:
        """Let a member take part in a round and learn the outcome of the last one; every poll does this."""
        member = self._members.get(member_id)
        if member is None:
            return Turn()
        if self._round_open and member.granted is None:
            member.joined = True
            if all(other.joined for other in self._members.values()):
                self._complete_round()
        if member.granted is None:
            return Turn(waiting=member.joined)
        turn = Turn(
            revoked=tuple(p for p in member.owned if p not in member.granted),
            assigned=tuple(p for p in member.granted if p not in member.owned),
        )
        member.owned, member.granted, member.generation = member.granted, None, self.generation
        self._round_open |= bool(turn.revoked)  # a second round gives them to their new owners
        return turn

    def membership(self, member_id: int) -> Membership:
        """Return what this member may commit under, as far as it knows itself."""
        member = self._members.get(member_id) or self._former[member_id]
        return Membership(self.group_id, member.instance_id, member_id, member.generation)

    def check(self, membership: Membership) -> None:
        """Refuse the commit of a replaced, expelled or outdated member."""
        names = {member.instance_id: member_id for member_id, member in self._members.items()}
        if names.get(membership.instance_id, membership.member_id) != membership.member_id:
            raise InstanceFenced(f"{membership.instance_id} is another member now")
        if membership.member_id not in self._members or membership.generation != self.generation:
            raise Refused(f"generation {membership.generation} of {membership.instance_id} is over")

    def leave(self, member_id: int) -> None:
        """Take a member out; the others share its partitions in the next round. Also how a session ends."""
        if member_id in self._members:
            self._former[member_id] = self._members.pop(member_id)
            self._round_open = bool(self._members)

    def grow(self, partitions: int) -> None:
        """Take in partitions that were added to the topic; the next round shares them out."""
        self._partitions = range(partitions)
        self._round_open = bool(self._members)

    def expel(self, instance_id: str) -> None:
        """Take a member out by name, as the broker does when its session has timed out; it learns so by polling."""
        for member_id, member in list(self._members.items()):
            if member.instance_id == instance_id:
                self.leave(member_id)

    def _complete_round(self) -> None:
        """Share the partitions evenly, leave each where it is if possible, move none in the same round."""
        self.generation += 1
        self._round_open = False
        members = list(self._members.values())
        share, rest = divmod(len(self._partitions), len(members))
        # The larger shares go to those who own most, so that as few partitions as possible move.
        by_size = sorted(members, key=lambda member: -len(member.owned))
        shares = {id(member): share + (place < rest) for place, member in enumerate(by_size)}
        owned = {partition for member in members for partition in member.owned}
        free = [partition for partition in self._partitions if partition not in owned]
        for member in members:
            kept = member.owned[: shares[id(member)]]
            given, free = free[: shares[id(member)] - len(kept)], free[shares[id(member)] - len(kept) :]
            member.granted = tuple(sorted((*kept, *given)))
            member.joined = False
