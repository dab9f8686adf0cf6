"""Findings on the group: who is in it, who owns what, and whether it gets on, seen twice some seconds apart."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.doctor.cluster.commands import Commands
from daemon.doctor.cluster.looks import PARTITIONS_MAX, Look, tick_at
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register, skip_all
from daemon.transport.group import REBALANCING, Member, PartitionStatus
from daemon.transport.port import Reader

NOBODY = register(
    Check(
        code="nobody_runs",
        of=("cluster",),
        severity="note",
        title="no instance runs",
        measures="members of the group",
        limit=1,
        beyond="below",
        form="count",
        remedy="start it",
    )
)
REBALANCES = register(
    Check(
        code="rebalancing",
        of=("cluster",),
        severity="problem",
        title="the group does not come to rest",
        measures="time between two looks that both found it rebalancing; usually it takes a second",
        limit=0,
        form="seconds",
        remedy="look for an instance that hangs, or comes and goes: its log, /livez; a killed one is out after 10 s",
    )
)
FOREIGN_MEMBERS = register(
    Check(
        code="foreign_members",
        of=("cluster",),
        severity="problem",
        title="somebody else is in the group, and takes partitions from it",
        measures="members without an instance id, or that subscribe to something else than the ticks alone",
        limit=0,
        form="count",
        remedy="give either of them another group: [kafka] group_id belongs to one service",
    )
)
UNOWNED = register(
    Check(
        code="unowned_partitions",
        of=("cluster",),
        severity="problem",
        title="partitions belong to nobody although the group is at rest",
        measures="partitions of the ticks that no member owned at either look",
        limit=0,
        form="count",
        remedy="restart one of the instances; the group shares out anew",
    )
)
WAITING = register(
    Check(
        code="ticks_wait",
        of=("cluster",),
        severity="warning",
        title="ticks wait for their forecasts",
        measures="age of the oldest tick without an outcome, by its Kafka timestamp",
        limit=10,
        problem_limit=300,
        form="seconds",
        remedy="where the lag falls, wait; where it grows, give more instances, up to one for each partition",
    )
)
STANDSTILL = register(
    Check(
        code="standstill",
        of=("cluster",),
        severity="problem",
        title="a partition that has an owner stands still while ticks wait",
        measures="ticks that wait, the first for more than 10 s, while the committed offset is that of the first look",
        limit=0,
        form="count",
        remedy="look at the owner's log, /readyz (it may still be restoring) and /livez; see open_transaction here",
    )
)
CHECKS = (NOBODY, REBALANCES, FOREIGN_MEMBERS, UNOWNED, WAITING, STANDSTILL)

#: A tick that waits for less may still be in work: a rebalance or another model can stop a partition for seconds.
STANDSTILL_SECONDS = 10.0


def examine_group(first: Look, second: Look, reader: Reader, commands: Commands) -> Iterator[Outcome]:
    """Judge the group by two looks at it."""
    group = second.group
    state = "it has neither members nor offsets" if group.state == "Dead" else f"the group is {group.state.lower()}"
    members = Measurement(len(group.members), resource=group.group_id, detail=state)
    yield judge(NOBODY, [members], command=commands.tickcast("run"))
    ages = {row.partition: _age(second, row, reader) for row in _most_behind(second)}
    waiting = [_waiting(first, second, *each) for each in ages.items()]
    if not group.members:
        # Nobody is at fault for what waits: that is told, and no reason for a script to stop.
        yield judge(WAITING, waiting, severity="note", otherwise="nothing is committed yet")
        yield from skip_all((REBALANCES, FOREIGN_MEMBERS, UNOWNED, STANDSTILL), "the group has no members")
        return
    resting = group.state not in REBALANCING
    unrest = 0.0 if resting or first.group.state not in REBALANCING else (second.at_ms - first.at_ms) / 1000
    yield judge(REBALANCES, [Measurement(unrest, resource=group.group_id, detail=group.state)])
    foreign = [member for member in group.members if _is_foreign(member, group.topic)]
    names = ", ".join(f"{member.name} ({_says(member)})" for member in foreign)
    yield judge(FOREIGN_MEMBERS, [Measurement(len(foreign), resource=group.group_id, detail=names)])
    yield _unowned(first, second) if resting else judge(UNOWNED, [], otherwise="the group is rebalancing")
    yield judge(WAITING, waiting, otherwise="nothing is committed yet")
    standing = [_standing(first, second, *each) for each in ages.items()]
    yield judge(STANDSTILL, standing, otherwise="nothing is committed yet")


def _unowned(first: Look, second: Look) -> Outcome:
    ownerless = [
        partition for partition, row in second.rows.items() if row.owner is None and first.rows[partition].owner is None
    ]
    detail = f"of {len(second.rows)}: {', '.join(map(str, ownerless))}" if ownerless else ""
    return judge(UNOWNED, [Measurement(len(ownerless), resource=second.topic, detail=detail)])


def _waiting(first: Look, second: Look, partition: int, age: float) -> Measurement:
    """Measure how long the next tick of a partition has been waiting."""
    now, before, seconds = second.rows[partition], first.rows[partition], (second.at_ms - first.at_ms) / 1000
    detail = f"{now.lag} behind; {before.lag} behind {seconds:.1f} s before"
    return Measurement(age, resource=f"{second.topic}-{partition}", detail=detail)


def _standing(first: Look, second: Look, partition: int, age: float) -> Measurement:
    """Measure how much waits in a partition that somebody owns and that has not moved."""
    now, resource = second.rows[partition], f"{second.topic}-{partition}"
    if not now.owner or now.committed != first.rows[partition].committed or age <= STANDSTILL_SECONDS:
        return Measurement(0.0, resource=resource)
    seconds = (second.at_ms - first.at_ms) / 1000
    return Measurement(
        now.lag or 0, resource=resource, detail=f"{now.owner} stands at {now.committed} for {seconds:.1f} s"
    )


def _most_behind(look: Look) -> list[PartitionStatus]:
    """Return the partitions that have been committed at all, those first that have most ticks to answer."""
    known = [row for row in look.group.partitions if row.lag is not None]
    return sorted(known, key=lambda row: row.lag or 0, reverse=True)[:PARTITIONS_MAX]


def _age(look: Look, row: PartitionStatus, reader: Reader) -> float:
    """Return for how many seconds the next tick of a partition waits; 0 where none does.

    A lag alone says little: behind the last tick of a transaction stands its end, which nobody answers.
    """
    if not row.lag or row.committed is None:
        return 0.0
    tick = tick_at(reader, row.partition, row.committed, look.bounds[row.partition])
    return 0.0 if tick is None else max(look.at_ms - tick.timestamp, 0) / 1000


def _is_foreign(member: Member, topic: str) -> bool:
    return not member.static or (bool(member.topics) and member.topics != (topic,))


def _says(member: Member) -> str:
    return "no instance id" if not member.static else f"reads {', '.join(member.topics)}"
