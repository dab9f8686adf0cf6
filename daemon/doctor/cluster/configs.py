"""Findings on the settings of topics.

What `tickcast run` refuses at its start is a problem; what only costs safety or time is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import NamedTuple

from daemon.doctor.cluster.commands import Commands
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register, seen_in_part
from daemon.transport.topics import (
    DEAD_LETTER_EXTRA_BYTES,
    DEFAULT_MESSAGE_BYTES,
    ROLES,
    STATE_CONFIG,
    TOMBSTONE_MS_MIN,
    TopicFacts,
)
from daemon.transport.transactional_sink import BATCH_BYTES

NOT_COMPACTED = register(
    Check(
        code="state_not_compacted",
        of=("cluster",),
        severity="problem",
        title="states are deleted by age or size",
        measures="1 where the cleanup.policy of the state topic is not compact alone",
        limit=0,
        form="count",
        remedy="set it to compact",
    )
)
SHORT_TOMBSTONES = register(
    Check(
        code="short_tombstones",
        of=("cluster",),
        severity="problem",
        title="a slow restore can bring evicted instruments back",
        measures="delete.retention.ms of the state topic",
        limit=TOMBSTONE_MS_MIN / 1000,
        beyond="below",
        form="seconds",
        remedy="set it to an hour or more",
    )
)
LARGE_SEGMENTS = register(
    Check(
        code="large_segments",
        of=("cluster",),
        severity="warning",
        title="restores read what has long been replaced",
        measures="segment.bytes of the state topic in MiB: every restore reads the newest segment, never compacted",
        limit=16,
        form="number",
        remedy=f"set it to {STATE_CONFIG['segment.bytes']}",
    )
)
COMPACTED = register(
    Check(
        code="compacted_topic",
        of=("cluster",),
        severity="problem",
        title="a topic keeps only the newest record of each instrument",
        measures="topics of ticks, forecasts, dead letters or scores whose cleanup.policy holds compact: recovery and "
        "subscribers need every record",
        limit=0,
        form="count",
        remedy="set cleanup.policy to delete",
    )
)
SMALL_DEAD_LETTERS = register(
    Check(
        code="small_dead_letters",
        of=("cluster",),
        severity="problem",
        title="a large bad tick could not be kept",
        measures="bytes that max.message.bytes of the dead letters is below that of the ticks",
        limit=0,
        form="count",
        remedy="set it above that of the ticks",
    )
)
SMALL_MESSAGES = register(
    Check(
        code="small_messages",
        of=("cluster",),
        severity="warning",
        title="a topic takes only small batches",
        measures="max.message.bytes of an output topic in KiB; the daemon sends batches of up to 256, and one that is "
        "refused is cut and sent again",
        limit=BATCH_BYTES / 1024,
        beyond="below",
        form="number",
        remedy="set max.message.bytes to its default, 1048588",
    )
)
SHORT_RETENTION = register(
    Check(
        code="short_retention",
        of=("cluster",),
        severity="warning",
        title="ticks are deleted soon",
        measures="retention.ms of the ticks: recovery replays them from the last checkpoint, and who stood still for "
        "longer has lost some",
        limit=3600,
        problem_limit=60,
        beyond="below",
        form="seconds",
        remedy="set it to a day or more, longer than the daemon may ever stand still",
    )
)
UNCLEAN = register(
    Check(
        code="unclean_election",
        of=("cluster",),
        severity="warning",
        title="committed records can be lost",
        measures="topics whose unclean.leader.election.enable is true: a copy that lacks records may lead",
        limit=0,
        form="count",
        remedy="set unclean.leader.election.enable to false",
    )
)
APPEND_TIME = register(
    Check(
        code="append_time",
        of=("cluster",),
        severity="note",
        title="ticks carry the broker's time instead of the producer's",
        measures="1 where message.timestamp.type of the ticks is LogAppendTime: latencies count from the broker on, "
        "and a tick that is replayed looks new",
        limit=0,
        form="count",
        remedy="set message.timestamp.type to CreateTime where producers have good clocks",
    )
)
NO_SPARE = register(
    Check(
        code="no_spare_copy",
        of=("cluster",),
        severity="note",
        title="a broker that restarts stops all writing",
        measures="copies of a topic's partitions beyond min.insync.replicas; below 0 nothing can be written at all",
        limit=1,
        problem_limit=0,
        beyond="below",
        form="count",
        remedy="three copies and min.insync.replicas=2 survive any one broker; one copy is for development",
    )
)

OUTPUTS = tuple(role for role in ROLES if role != "ticks")
PLAIN = tuple(role for role in ROLES if role != "state")


class Rule(NamedTuple):
    """What one setting of topics has to be."""

    check: Check
    roles: tuple[str, ...]
    key: str
    number: Callable[[str], float]
    #: What the remedy sets it to.
    value: object


RULES = (
    Rule(NOT_COMPACTED, ("state",), "cleanup.policy", lambda text: text != "compact", "compact"),
    Rule(SHORT_TOMBSTONES, ("state",), "delete.retention.ms", lambda text: int(text) / 1000, 86_400_000),
    Rule(LARGE_SEGMENTS, ("state",), "segment.bytes", lambda text: int(text) / 2**20, STATE_CONFIG["segment.bytes"]),
    Rule(COMPACTED, PLAIN, "cleanup.policy", lambda text: "compact" in text, "delete"),
    Rule(SMALL_MESSAGES, OUTPUTS, "max.message.bytes", lambda text: int(text) / 1024, DEFAULT_MESSAGE_BYTES),
    Rule(
        SHORT_RETENTION, ("ticks",), "retention.ms", lambda text: int(text) / 1000 if text != "-1" else inf, 604_800_000
    ),
    Rule(UNCLEAN, ROLES, "unclean.leader.election.enable", lambda text: text == "true", "false"),
    Rule(APPEND_TIME, ("ticks",), "message.timestamp.type", lambda text: text == "LogAppendTime", "CreateTime"),
)
CHECKS = (*(rule.check for rule in RULES), SMALL_DEAD_LETTERS, NO_SPARE)


def examine_configs(topics: Mapping[str, TopicFacts], commands: Commands) -> Iterator[Outcome]:
    """Judge the settings of topics."""
    known = {role: topic for role, topic in topics.items() if topic.config}
    hidden = [topic.name for topic in topics.values() if topic.partitions and not topic.config]
    why = f"no right to DESCRIBE_CONFIGS {', '.join(hidden)}" if hidden else "there is no such topic"
    for rule in RULES:
        asked = [known[role] for role in rule.roles if role in known and rule.key in known[role].config]
        found = [
            Measurement(
                rule.number(topic.config[rule.key]), detail=f"{rule.key}={topic.config[rule.key]}", resource=topic.name
            )
            for topic in asked
        ]
        wrong = [each.resource for each in found if rule.check.found_at(each.value)]
        changes = [commands.set_topic(str(name), rule.key, rule.value) for name in wrong]
        outcome = judge(rule.check, found, command="\n".join(changes) or None, otherwise=why)
        yield seen_in_part(
            outcome, why if any(topics[role].name in hidden for role in rule.roles if role in topics) else ""
        )
    yield _small_letters(known, commands, why)
    spare = judge(NO_SPARE, [_spare(topic) for topic in known.values() if topic.places], otherwise=why)
    yield seen_in_part(spare, why if hidden else "")


def _small_letters(known: Mapping[str, TopicFacts], commands: Commands, why: str) -> Outcome:
    limits = {role: topic.message_bytes_max for role, topic in known.items()}
    limit, needed = limits.get("dead_letters"), limits.get("ticks")
    if limit is None or needed is None:
        return judge(SMALL_DEAD_LETTERS, [], otherwise=why)
    letters = known["dead_letters"].name
    return judge(
        SMALL_DEAD_LETTERS,
        [Measurement(max(needed - limit, 0), resource=letters, detail=f"{limit} bytes, the ticks take {needed}")],
        command=commands.set_topic(letters, "max.message.bytes", needed + DEAD_LETTER_EXTRA_BYTES),
    )


def _spare(topic: TopicFacts) -> Measurement:
    copies, needed = min(len(place.replicas) for place in topic.places), int(topic.config["min.insync.replicas"])
    detail = f"{copies} {'copy' if copies == 1 else 'copies'}, min.insync.replicas={needed}"
    return Measurement(copies - needed, resource=topic.name, detail=detail)
