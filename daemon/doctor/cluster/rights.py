"""Findings on rights: each one that the daemon needs, asked for without using it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from daemon.doctor.cluster.commands import Commands
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register
from daemon.transport.connection import transactional_id
from daemon.transport.kafka_view import ClusterView
from daemon.transport.topics import RIGHTS, TopicFacts

MISSING_RIGHT = register(
    Check(
        code="missing_right",
        of=("cluster",),
        severity="problem",
        title="the daemon's user lacks a right",
        measures="rights on a topic, the group or the transactional id that the daemon needs and its user lacks",
        limit=0,
        form="count",
        remedy="grant it",
    )
)
CHECKS = (MISSING_RIGHT,)


def examine_rights(topics: Mapping[str, TopicFacts], view: ClusterView, commands: Commands) -> Iterator[Outcome]:
    """Judge what our user may do."""
    kafka = commands.settings.kafka
    writer = transactional_id(kafka.group_id, kafka.instance_id)
    lacking: dict[tuple[str, str], list[str]] = {}
    for role, topic in topics.items():
        # A topic that we may not even describe, and one whose rights the cluster does not tell.
        known = RIGHTS[role] if topic.rights is None else topic.rights
        lacking["topic", topic.name] = sorted(RIGHTS[role] - known)
    lacking["group", kafka.group_id] = [] if view.may_join(kafka.group_id) else ["READ"]
    lacking["transactional-id", writer] = [] if view.may_write_as(writer, kafka.group_id) else ["WRITE"]
    found = [
        Measurement(len(rights), resource=f"{kind} {name}", detail=" and ".join(rights))
        for (kind, name), rights in lacking.items()
    ]
    grants = [
        commands.allow(right.capitalize(), f"--{kind} {name}")
        for (kind, name), rights in lacking.items()
        for right in rights
    ]
    yield judge(MISSING_RIGHT, found, command="\n".join(grants) or None)
