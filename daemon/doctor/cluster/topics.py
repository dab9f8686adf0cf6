"""Findings on topics: whether they are there, fit together, and where their partitions lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from daemon.doctor.cluster.commands import Commands
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register
from daemon.transport.topics import Place, TopicFacts

MISSING = register(
    Check(
        code="missing_topic",
        of=("cluster",),
        severity="problem",
        title="a topic does not exist",
        measures="topics of the settings that the cluster does not have",
        limit=0,
        form="count",
        remedy="create it, or set [topics] to the right name",
    )
)
UNEQUAL = register(
    Check(
        code="unequal_partitions",
        of=("cluster",),
        severity="problem",
        title="topics have other partition counts than the ticks",
        measures="partitions too many or too few: what a tick leads to keeps its partition; dead letters may have more",
        limit=0,
        form="count",
        remedy="let the topics grow to the same count; Kafka takes none away, so one with too many is created anew",
    )
)
OFFLINE = register(
    Check(
        code="offline_partition",
        of=("cluster",),
        severity="problem",
        title="a partition has no leader: nothing of it is read or written",
        measures="partitions of a topic, Kafka's own included, without a leader",
        limit=0,
        form="count",
        remedy="start the brokers that hold its copies",
    )
)
OUT_OF_SYNC = register(
    Check(
        code="out_of_sync",
        of=("cluster",),
        severity="warning",
        title="copies are missing or behind",
        measures="copies of a topic's partitions, Kafka's own included, that are not in sync",
        limit=0,
        form="count",
        remedy="look at the brokers that hold them: one that is down, slow or full",
    )
)
TOPICS = (MISSING, UNEQUAL)
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


def _listed(noun: str, numbers: Sequence[int]) -> str:
    return f"{noun}{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}" if numbers else ""
