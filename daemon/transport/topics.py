"""What our topics must look like, and what is wrong with those found. Pure: no client, no network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from daemon.config import TopicSettings
from daemon.errors import AccessDenied, TickcastError, TopicError

ROLES = ("ticks", "forecasts", "state", "dead_letters", "scores")
#: The settings may leave this one out.
OPTIONAL = "scores"

#: A dead letter is its tick and headers that tell where it came from; 64 KiB hold those many times over.
DEAD_LETTER_EXTRA_BYTES = 64 * 1024
#: Kafka's own default, for brokers that do not let us read topic settings.
DEFAULT_MESSAGE_BYTES = 1_048_588
#: A restore that starts before a tombstone and ends after its removal would bring an evicted instrument back.
TOMBSTONE_MS_MIN = 3_600_000

STATE_CONFIG = {
    "cleanup.policy": "compact",
    # What is not compacted yet is read in vain by every restore, the newest segment always. At 16 MiB one of 10,000
    # instruments read 72,308 records, at 4 MiB 34,726 (2,000 ticks/s).
    "segment.bytes": str(4 * 1024 * 1024),
    "segment.ms": "600000",
    "min.cleanable.dirty.ratio": "0.1",
    "delete.retention.ms": "86400000",
}

#: Rights beyond describing; a transactional producer writes, a recovery reads the state back.
RIGHTS = {
    "ticks": frozenset({"READ"}),
    "forecasts": frozenset({"WRITE"}),
    "state": frozenset({"READ", "WRITE"}),
    "dead_letters": frozenset({"WRITE"}),
    "scores": frozenset({"WRITE"}),
}

#: A tick may only appear in a new partition when there is a place for everything that it leads to.
GROWTH_ORDER = ("state", "scores", "forecasts", "dead_letters", "ticks")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one partition lies."""

    partition: int
    #: None: nobody serves it now.
    leader: int | None
    #: Ids of the brokers that shall hold a copy, and of those whose copy is complete.
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What the cluster says about one topic."""

    name: str
    #: None: there is no such topic.
    partitions: int | None
    #: Empty where we may not read them; then nothing about them is known, and nothing is wrong with them.
    config: Mapping[str, str]
    #: What we may do with it; None: the cluster does not say.
    rights: frozenset[str] | None
    #: Given by the cluster with the creation; another one means another topic of the same name.
    id: str = ""
    places: tuple[Place, ...] = ()

    @property
    def led(self) -> list[int]:
        """The partitions that somebody leads: the others answer no question."""
        return [place.partition for place in self.places if place.leader is not None]

    @property
    def message_bytes_max(self) -> int | None:
        """The largest record batch it takes, or None where that cannot be read."""
        value = self.config.get("max.message.bytes")
        return None if value is None else int(value)


def creation_config(role: str, ticks: TopicFacts) -> dict[str, str]:
    """Return the topic settings to create the topic of `role` with."""
    if role == "state":
        return dict(STATE_CONFIG)
    if role == "dead_letters":
        return {"max.message.bytes": str((ticks.message_bytes_max or DEFAULT_MESSAGE_BYTES) + DEAD_LETTER_EXTRA_BYTES)}
    return {}


def names_by_role(topics: TopicSettings) -> dict[str, str]:
    """Return the topic name of each role that the settings name one for."""
    return {role: getattr(topics, role) for role in ROLES if role != OPTIONAL or topics.scores}


def find_problems(facts: Mapping[str, TopicFacts]) -> list[TickcastError]:
    """Return all that would break a promise, the most basic first.

    Parameters
    ----------
    facts : role -> what the cluster says about its topic
    """
    finders = (_denied, _missing, _unequal_partitions, _small_dead_letters, _forgetful_state)
    return [problem for finder in finders for problem in finder(facts)]


def _denied(facts: Mapping[str, TopicFacts]) -> Iterator[TickcastError]:
    for role, topic in facts.items():
        lacking = frozenset() if topic.rights is None else RIGHTS[role] - topic.rights
        if lacking:
            rights = " and ".join(sorted(lacking))
            yield AccessDenied(f"no right to {rights} topic {topic.name}; grant our user {rights} on it")


def _missing(facts: Mapping[str, TopicFacts]) -> Iterator[TickcastError]:
    for role, topic in facts.items():
        if topic.partitions is None and topic.rights != frozenset():
            yield TopicError(
                f"topic {topic.name} does not exist; create it with `tickcast topics create`, "
                f"or set [topics] {role} to the right name"
            )


def _unequal_partitions(facts: Mapping[str, TopicFacts]) -> Iterator[TickcastError]:
    ticks = facts["ticks"]
    for role in ("forecasts", "state", *([OPTIONAL] if OPTIONAL in facts else [])):
        topic = facts[role]
        if ticks.partitions and topic.partitions and topic.partitions != ticks.partitions:
            yield TopicError(
                f"topic {topic.name} has {_count(topic.partitions)}, but {ticks.name} has {ticks.partitions}: what a "
                f"tick leads to keeps its partition; {_remedy(role, topic, ticks.partitions)}"
            )
    letters = facts["dead_letters"]
    if ticks.partitions and letters.partitions and letters.partitions < ticks.partitions:
        yield TopicError(
            f"topic {letters.name} has {_count(letters.partitions)}, but {ticks.name} has {ticks.partitions}: a dead "
            f"letter keeps its partition; {_remedy('dead_letters', letters, ticks.partitions)}"
        )


def find_growth_problems(facts: Mapping[str, TopicFacts], partitions: int) -> list[TickcastError]:
    """Return why the topics cannot have `partitions` partitions.

    Parameters
    ----------
    facts : role -> what the cluster says about its topic
    """
    return list(_denied(facts)) + list(_missing(facts)) + list(_larger(facts, partitions))


def _larger(facts: Mapping[str, TopicFacts], partitions: int) -> Iterator[TickcastError]:
    for role, topic in facts.items():
        if topic.partitions and topic.partitions > partitions and role != "dead_letters":
            yield TopicError(
                f"topic {topic.name} has {_count(topic.partitions)} already, and Kafka takes none away; "
                f"ask for {topic.partitions} or more"
            )


def _remedy(role: str, topic: TopicFacts, partitions: int) -> str:
    """Say how `topic` gets as many partitions as the ticks have; Kafka adds partitions, but takes none away."""
    if topic.partitions and topic.partitions < partitions:
        return f"run `tickcast topics grow --partitions {partitions}`"
    return f"delete {topic.name} and run `tickcast topics create`, or set [topics] {role} to a new name"


def _small_dead_letters(facts: Mapping[str, TopicFacts]) -> Iterator[TickcastError]:
    limit, needed = facts["dead_letters"].message_bytes_max, facts["ticks"].message_bytes_max
    if limit is not None and needed is not None and limit < needed:
        yield TopicError(
            f"topic {facts['dead_letters'].name} takes {limit} bytes a message, but {facts['ticks'].name} takes "
            f"{needed}: a large bad tick could not be kept; "
            f"set its max.message.bytes to {needed + DEAD_LETTER_EXTRA_BYTES}"
        )


def _forgetful_state(facts: Mapping[str, TopicFacts]) -> Iterator[TickcastError]:
    state = facts["state"]
    policy = state.config.get("cleanup.policy", "compact")
    if policy != "compact":
        yield TopicError(
            f"topic {state.name} has cleanup.policy={policy}, so checkpoints would be deleted by age; set it to compact"
        )
    tombstone_ms = int(state.config.get("delete.retention.ms", TOMBSTONE_MS_MIN))
    if tombstone_ms < TOMBSTONE_MS_MIN:
        yield TopicError(
            f"topic {state.name} has delete.retention.ms={tombstone_ms}, so a slow restore could bring evicted "
            f"instruments back; set it to {TOMBSTONE_MS_MIN} or more"
        )


def _count(partitions: int) -> str:
    return f"{partitions} partition" + ("s" if partitions != 1 else "")
