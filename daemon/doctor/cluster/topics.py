"""Findings on topics: whether they are there, how they are set up, and where their partitions lie.

What `tickcast run` refuses at its start is a problem here; what only costs safety or time is a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple

from daemon.doctor.cluster.commands import Commands
from daemon.doctor.finding import Check, Form, Measurement, Outcome, Severity, judge, register
from daemon.transport.kafka_sink import BATCH_BYTES
from daemon.transport.topics import (
    DEAD_LETTER_EXTRA_BYTES,
    DEFAULT_MESSAGE_BYTES,
    ROLES,
    STATE_CONFIG,
    TOMBSTONE_MS_MIN,
    Place,
    TopicFacts,
)


def _check(
    code: str,
    severity: Severity,
    title: str,
    measures: str,
    remedy: str,
    *,
    limit: float = 0,
    form: Form = "count",
    below: bool = False,
    problem_limit: float | None = None,
) -> Check:
    return register(
        Check(
            code=code,
            of=("cluster",),
            severity=severity,
            title=title,
            measures=measures,
            limit=limit,
            beyond="below" if below else "above",
            form=form,
            problem_limit=problem_limit,
            remedy=remedy,
        )
    )


MISSING = _check(
    "missing_topic",
    "problem",
    "a topic does not exist",
    "topics of the settings that the cluster does not have",
    "create it, or set [topics] to the right name",
)
UNEQUAL = _check(
    "unequal_partitions",
    "problem",
    "topics have other partition counts than the ticks",
    "partitions too many or too few: what a tick leads to keeps its partition (dead letters may have more)",
    "let the topics grow to the same count; one that has too many is deleted, created anew, or another is named",
)
TOPICS = (MISSING, UNEQUAL)

NOT_COMPACTED = _check(
    "state_not_compacted",
    "problem",
    "states are deleted by age or size",
    "1 where the cleanup.policy of the state topic is not compact alone",
    "set it to compact",
)
SHORT_TOMBSTONES = _check(
    "short_tombstones",
    "problem",
    "a slow restore can bring evicted instruments back",
    "delete.retention.ms of the state topic",
    "set it to an hour or more",
    limit=TOMBSTONE_MS_MIN / 1000,
    form="seconds",
    below=True,
)
LARGE_SEGMENTS = _check(
    "large_segments",
    "warning",
    "restores read what has long been replaced",
    "segment.bytes of the state topic in MiB: the newest segment is never compacted, and every restore reads it",
    f"set it to {STATE_CONFIG['segment.bytes']}",
    limit=16,
    form="number",
)
COMPACTED = _check(
    "compacted_topic",
    "problem",
    "a topic keeps only the newest record of each instrument",
    "topics of ticks, forecasts, dead letters or scores whose cleanup.policy holds compact: recovery and subscribers "
    "need them all",
    "set cleanup.policy to delete",
)
SMALL_DEAD_LETTERS = _check(
    "small_dead_letters",
    "problem",
    "a large bad tick could not be kept",
    "bytes that max.message.bytes of the dead letters is below that of the ticks",
    "set it above that of the ticks",
)
SMALL_MESSAGES = _check(
    "small_messages",
    "warning",
    "a topic takes only small batches",
    "max.message.bytes of an output topic in KiB; the daemon sends batches of 256, and a larger one costs a second try",
    "set max.message.bytes to its default, 1048588",
    limit=BATCH_BYTES / 1024,
    form="number",
    below=True,
)
SHORT_RETENTION = _check(
    "short_retention",
    "warning",
    "ticks are deleted soon",
    "retention.ms of the ticks: recovery replays them from the last checkpoint, and who stood still for longer has "
    "lost some",
    "set it to a day or more, longer than the daemon may ever stand still",
    limit=3600,
    problem_limit=60,
    form="seconds",
    below=True,
)
UNCLEAN = _check(
    "unclean_election",
    "warning",
    "committed records can be lost",
    "topics whose unclean.leader.election.enable is true: a copy that lacks records may lead",
    "set unclean.leader.election.enable to false",
)
APPEND_TIME = _check(
    "append_time",
    "note",
    "ticks carry the broker's time instead of the producer's",
    "1 where message.timestamp.type of the ticks is LogAppendTime: latencies count from the broker on, and a tick that "
    "is replayed looks new",
    "set message.timestamp.type to CreateTime where producers have good clocks",
)
NO_SPARE = _check(
    "no_spare_copy",
    "note",
    "a broker that restarts stops all writing",
    "copies of a topic's partitions beyond min.insync.replicas; below 0 nothing can be written at all",
    "three copies and min.insync.replicas=2 survive any one broker; one copy is for development",
    limit=1,
    problem_limit=0,
    below=True,
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
CONFIGS = (*(rule.check for rule in RULES), SMALL_DEAD_LETTERS, NO_SPARE)

OFFLINE = _check(
    "offline_partition",
    "problem",
    "a partition has no leader: nothing of it is read or written",
    "partitions of a topic, Kafka's own included, without a leader",
    "start the brokers that hold its copies",
)
OUT_OF_SYNC = _check(
    "out_of_sync",
    "warning",
    "copies are missing or behind",
    "copies of a topic's partitions, Kafka's own included, that are not in sync",
    "look at the brokers that hold them: one that is down, slow or full",
)
PLACES = (OFFLINE, OUT_OF_SYNC)


def examine_topics(topics: Mapping[str, TopicFacts], commands: Commands) -> Iterator[Outcome]:
    """Judge whether the topics are there and fit together."""
    # What may not even be described is told with the rights.
    seen = [topic for topic in topics.values() if topic.partitions is not None or topic.rights != frozenset()]
    absent = [Measurement(float(topic.partitions is None), resource=topic.name) for topic in seen]
    yield judge(
        MISSING, absent, command=commands.tickcast("topics create"), otherwise="there is no right to see any of them"
    )
    ticks = topics["ticks"].partitions
    others = {role: topic for role, topic in topics.items() if role != "ticks" and topic.partitions}
    found = [_apart(role, topic, ticks) for role, topic in others.items()] if ticks else []
    most = max(topic.partitions or 0 for topic in topics.values())
    grow = commands.tickcast(f"topics grow --partitions {most}")
    yield judge(UNEQUAL, found, command=grow, otherwise="the ticks or all others cannot be seen")


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
        yield judge(rule.check, found, command="\n".join(changes) or None, otherwise=why)
    yield _small_letters(known, commands, why)
    yield judge(NO_SPARE, [_spare(topic) for topic in known.values() if topic.places], otherwise=why)


def examine_places(topics: Mapping[str, TopicFacts], internal: Mapping[str, Sequence[Place]]) -> Iterator[Outcome]:
    """Judge where partitions lie, ours and those of Kafka's own topics."""
    offline, behind = [], []
    ours = {topic.name: topic.places for topic in topics.values() if topic.places}
    for name, places in {**ours, **internal}.items():
        leaderless = [place.partition for place in places if place.leader is None]
        lagging = {place.partition: sorted(set(place.replicas) - set(place.in_sync)) for place in places}
        missing = {partition: brokers for partition, brokers in lagging.items() if brokers}
        offline.append(Measurement(len(leaderless), resource=name, detail=_listed("partition", leaderless)))
        brokers = sorted({broker for each in missing.values() for broker in each})
        detail = f"{_listed('partition', list(missing))} on {_listed('broker', brokers)}" if missing else ""
        behind.append(Measurement(sum(map(len, missing.values())), resource=name, detail=detail))
    yield judge(OFFLINE, offline, otherwise="no topic can be seen")
    yield judge(OUT_OF_SYNC, behind, otherwise="no topic can be seen")


def _apart(role: str, topic: TopicFacts, ticks: int) -> Measurement:
    count = topic.partitions or 0
    # A dead letter keeps the partition of its tick; nobody minds partitions that stay empty.
    apart = max(ticks - count, 0) if role == "dead_letters" else abs(ticks - count)
    return Measurement(apart, resource=topic.name, detail=f"{count} partitions, the ticks have {ticks}")


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


def _listed(noun: str, numbers: Sequence[int]) -> str:
    return f"{noun}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else ""
