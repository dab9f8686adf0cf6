"""Findings on the group: who is in it, who owns what, and whether it gets on, seen twice some seconds apart."""

from __future__ import annotations

from collections.abc import Iterator

from daemon.doctor.cluster.commands import Commands
from daemon.doctor.cluster.looks import Look, tick_at
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register, skip_all
from daemon.transport.group import REBALANCING, Member
from daemon.transport.port import Reader

NOBODY = register(
    Check(
        code="nobody_runs",
        of=("cluster",),
        severity="note",
        title="nobody runs",
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
        measures="ticks that waited at both looks while the committed offset did not move",
        limit=0,
        form="count",
        remedy="look at the owner's log, /readyz (it may still be restoring) and /livez; see open_transaction here",
    )
)
CHECKS = (NOBODY, REBALANCES, FOREIGN_MEMBERS, UNOWNED, WAITING, STANDSTILL)

#: Partitions whose oldest waiting tick is read: those with most of them.
READ_PARTITIONS_MAX = 16


def examine_group(first: Look, second: Look, reader: Reader, commands: Commands) -> Iterator[Outcome]:
    """Judge the group by two looks at it."""
    group = second.group
    yield judge(
        NOBODY,
        [Measurement(len(group.members), resource=group.group_id, detail=f"the group is {group.state.lower()}")],
        command=commands.tickcast("run"),
    )
    if not group.members:
        # Nobody is at fault for what waits: that is told, and no reason for a script to stop.
        yield judge(WAITING, _waiting(first, second, reader), severity="note", otherwise="nothing is committed yet")
        yield from skip_all((REBALANCES, FOREIGN_MEMBERS, UNOWNED, STANDSTILL), "the group has no members")
        return
    resting = group.state not in REBALANCING
    unrest = 0.0 if resting or first.group.state not in REBALANCING else (second.at_ms - first.at_ms) / 1000
    yield judge(REBALANCES, [Measurement(unrest, resource=group.group_id, detail=group.state)])
    foreign = [member for member in group.members if _is_foreign(member, group.topic)]
    names = ", ".join(f"{member.name} ({_says(member)})" for member in foreign)
    yield judge(FOREIGN_MEMBERS, [Measurement(len(foreign), resource=group.group_id, detail=names)])
    yield _unowned(first, second) if resting else judge(UNOWNED, [], otherwise="the group is rebalancing")
    yield judge(WAITING, _waiting(first, second, reader), otherwise="nothing is committed yet")
    yield judge(STANDSTILL, _standing(first, second, reader), otherwise="nothing is committed yet")


def _unowned(first: Look, second: Look) -> Outcome:
    ownerless = [
        partition for partition, row in second.rows.items() if row.owner is None and first.rows[partition].owner is None
    ]
    detail = f"of {len(second.rows)}: {', '.join(map(str, ownerless))}" if ownerless else ""
    return judge(UNOWNED, [Measurement(len(ownerless), resource=second.group.topic, detail=detail)])


def _waiting(first: Look, second: Look, reader: Reader) -> Iterator[Measurement]:
    """Measure how long the next tick of each partition has been waiting; of the many, those with most behind it."""
    rows = sorted(second.group.partitions, key=lambda row: row.lag or 0, reverse=True)
    for row in [row for row in rows if row.committed is not None][:READ_PARTITIONS_MAX]:
        assert row.committed is not None
        tick = tick_at(reader, row.partition, row.committed, second.bounds[row.partition]) if row.lag else None
        age = (second.at_ms - tick.timestamp) / 1000 if tick is not None and tick.timestamp >= 0 else 0.0
        seconds, before = (second.at_ms - first.at_ms) / 1000, first.rows[row.partition].lag
        detail = f"{row.lag} behind; {before} behind {seconds:.1f} s before"
        yield Measurement(max(age, 0.0), resource=f"{second.group.topic}-{row.partition}", detail=detail)


def _standing(first: Look, second: Look, reader: Reader) -> Iterator[Measurement]:
    seconds = (second.at_ms - first.at_ms) / 1000
    for partition, row in second.rows.items():
        before = first.rows[partition]
        if row.committed is None:
            continue
        waited = before.end - row.committed if row.owner and row.committed == before.committed else 0
        # Behind the last tick of a transaction stands its end, which nobody answers.
        if waited and tick_at(reader, partition, row.committed, first.bounds[partition]) is None:
            waited = 0
        detail = f"{row.owner} stands at {row.committed} for {seconds:.1f} s" if waited else ""
        yield Measurement(waited, resource=f"{second.group.topic}-{partition}", detail=detail)


def _is_foreign(member: Member, topic: str) -> bool:
    return not member.static or (bool(member.topics) and member.topics != (topic,))


def _says(member: Member) -> str:
    return "no instance id" if not member.static else f"reads {', '.join(member.topics)}"
