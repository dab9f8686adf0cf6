"""Topics and rights on the cluster: create, examine, refuse to start on what could not keep our promises.

Consumer and producer hide such faults (a denied topic looks idle, a mistyped one is created by the broker's default),
so everything is asked here, once, before the first poll.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import (
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from daemon.config import KafkaSettings, Settings, TopicSettings
from daemon.errors import AccessDenied, BrokerUnavailable, TickcastError, TopicError
from daemon.transport.admin_client import WAIT_SECONDS, admin_client
from daemon.transport.connection import Connection, transactional_id
from daemon.transport.kafka_rights import may_join, may_write_as
from daemon.transport.topics import (
    GROWTH_ORDER,
    Place,
    TopicFacts,
    creation_config,
    find_growth_problems,
    find_problems,
    names_by_role,
)

PARTITIONS_DEFAULT = 4
#: How long the brokers may take to make new partitions; 0.1 s was seen.
READY_SECONDS = 30.0


def create_topics(
    connection: Connection,
    topics: TopicSettings,
    partitions: int | None = None,
    replication: int | None = None,
    *,
    wait_seconds: float = WAIT_SECONDS,
) -> list[str]:
    """Create those of the topics that are missing; they are ready for use on return.

    Parameters
    ----------
    partitions : of every topic; None takes those of an existing ticks topic, else `PARTITIONS_DEFAULT`
    replication : copies of each partition; None leaves it to the cluster

    Returns
    -------
    names : the topics created now

    Raises
    ------
    TopicError : one could not be created, or those there already do not fit together
    BrokerUnavailable, AccessDenied
    """
    with admin_client(connection, wait_seconds) as admin:
        facts = read_topics(admin, topics)
        ticks = facts["ticks"]
        count = partitions or ticks.partitions or PARTITIONS_DEFAULT
        wanted = {
            topic.name: {
                "num_partitions": count,
                "replication_factor": replication or -1,
                "configs": creation_config(role, ticks),
            }
            for role, topic in facts.items()
            if topic.partitions is None
        }
        created = _create(admin, wanted) if wanted else []
        _raise_first(find_problems(read_topics(admin, topics)))
    return created


def grow_topics(
    connection: Connection, topics: TopicSettings, partitions: int, *, wait_seconds: float = WAIT_SECONDS
) -> Iterator[str]:
    """Give all topics `partitions` partitions, one after the other; each line returned says what was done.

    The ticks come last: a partition of theirs may only appear where everything that its ticks lead to has its place.
    Running daemons notice within seconds and share the new partitions out; called again after a failure, it goes on
    with what is left.

    Notes
    -----
    Instruments whose ticks now go to another partition begin there with a fresh state.

    Raises
    ------
    TopicError : a topic does not exist, has more partitions already, or cannot grow; nothing is done in the first cases
    BrokerUnavailable, AccessDenied
    """
    with admin_client(connection, wait_seconds) as admin:
        facts = read_topics(admin, topics)
        _raise_first(find_growth_problems(facts, partitions))
        for role in (role for role in GROWTH_ORDER if role in facts):
            topic = facts[role]
            if (topic.partitions or 0) >= partitions:
                yield f"{topic.name} has {topic.partitions} partitions already"
                continue
            _grow(admin, topic.name, partitions)
            yield f"{topic.name} grew from {topic.partitions} to {partitions} partitions"


def examine(
    connection: Connection, settings: Settings, *, wait_seconds: float = WAIT_SECONDS
) -> tuple[dict[str, TopicFacts], list[TickcastError]]:
    """Ask the cluster about our topics and rights.

    Returns
    -------
    facts : role -> what the cluster says about its topic
    problems : all that would break a promise, the most basic first

    Raises
    ------
    BrokerUnavailable, AccessDenied : nothing could be asked
    """
    with admin_client(connection, wait_seconds) as admin:
        problems = list(_denied(admin, settings.kafka))
        facts = read_topics(admin, settings.topics)
    return facts, problems + find_problems(facts)


def preflight(connection: Connection, settings: Settings) -> dict[str, TopicFacts]:
    """Refuse to start on a cluster that could not keep our promises.

    Returns
    -------
    facts : role -> what the cluster says about its topic

    Raises
    ------
    BrokerUnavailable : no broker within `[kafka] broker_timeout_seconds`
    AccessDenied : a login or right is missing
    TopicError : a topic is missing or set up wrongly
    """
    facts, problems = examine(connection, settings, wait_seconds=settings.kafka.broker_timeout_seconds)
    _raise_first(problems)
    return facts


def _raise_first(problems: list[TickcastError]) -> None:
    if problems:
        first, more = problems[0], len(problems) - 1
        raise type(first)(f"{first}" + (f" (and {more} more: `tickcast topics check` lists them)" if more else ""))


def read_topics(admin: KafkaAdminClient, topics: TopicSettings) -> dict[str, TopicFacts]:
    """Return what the cluster says about the topic of each role."""
    names = names_by_role(topics)
    described = {topic["name"]: topic for topic in admin.describe_topics(list(names.values()))}
    there = [name for name, topic in described.items() if not topic["error_code"]]
    configs = _read_configs(admin, there)
    return {role: _facts(described[name], configs.get(name, {})) for role, name in names.items()}


def _facts(topic: Mapping[str, Any], config: Mapping[str, str]) -> TopicFacts:
    error = for_code(topic["error_code"])
    if error is TopicAuthorizationFailedError:
        return TopicFacts(topic["name"], None, {}, frozenset())
    if error is UnknownTopicOrPartitionError:
        return TopicFacts(topic["name"], None, {}, None)
    if topic["error_code"]:
        raise error(f"topic {topic['name']}")
    rights, places = topic.get("authorized_operations"), tuple(places_of(topic))
    known = frozenset(rights) if rights else None
    return TopicFacts(topic["name"], len(places), config, known, str(topic["topic_id"]), places)


def places_of(topic: Mapping[str, Any]) -> Iterator[Place]:
    """Yield where the partitions of a topic lie, from kafka-python's description of it."""
    for partition in sorted(topic["partitions"], key=lambda each: each["partition_index"]):
        leader = partition["leader_id"]
        yield Place(
            partition["partition_index"],
            leader if leader >= 0 else None,
            tuple(partition["replica_nodes"]),
            tuple(partition["isr_nodes"]),
        )


def _read_configs(admin: KafkaAdminClient, names: Iterable[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    if not resources:
        return {}
    found = admin.describe_configs(resources, config_filter="all").get("topic", {})
    return {name: {key: entry["value"] for key, entry in values.items()} for name, values in found.items()}


def _create(admin: KafkaAdminClient, wanted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    created = []
    for answer in admin.create_topics(wanted, raise_errors=False)["topics"]:
        error = for_code(answer["error_code"])
        if error is TopicAuthorizationFailedError:
            raise AccessDenied(
                f"no right to create topic {answer['name']}; grant our user CREATE, or create it yourself"
            )
        if answer["error_code"] and error is not TopicAlreadyExistsError:  # somebody else may create them as well
            raise TopicError(f"cannot create topic {answer['name']}: {answer['error_message'] or error.__name__}")
        if not answer["error_code"]:
            created.append(answer["name"])
    admin.wait_for_topics(list(wanted), timeout_ms=READY_SECONDS * 1000)
    return created


def _grow(admin: KafkaAdminClient, name: str, partitions: int) -> None:
    (result,) = admin.create_partitions({name: partitions}, raise_errors=False).results
    error = for_code(result.error_code)
    if error is TopicAuthorizationFailedError:
        raise AccessDenied(f"no right to ALTER topic {name}; grant our user ALTER on it, or let it grow yourself")
    if result.error_code:
        raise TopicError(f"cannot grow topic {name}: {result.error_message or error.__name__}")
    deadline = time.monotonic() + READY_SECONDS
    while not _has_leaders(admin, name, partitions):
        if time.monotonic() > deadline:
            raise BrokerUnavailable(f"the new partitions of {name} got no leader; look at the brokers, then try again")
        time.sleep(0.05)


def _has_leaders(admin: KafkaAdminClient, name: str, partitions: int) -> bool:
    """Whether the broker that answers knows of all partitions and who leads them; it can lag behind the controller."""
    (topic,) = admin.describe_topics([name])
    return len(topic["partitions"]) == partitions and all(p["leader_id"] >= 0 for p in topic["partitions"])


def _denied(admin: KafkaAdminClient, kafka: KafkaSettings) -> Iterator[TickcastError]:
    group_id, writer = kafka.group_id, transactional_id(kafka.group_id, kafka.instance_id)
    if not may_join(admin, group_id):
        yield AccessDenied(f"no right to READ group {group_id}; grant our user READ on it")
    if not may_write_as(admin, writer, group_id):
        yield AccessDenied(f"no right to WRITE transactional id {writer}; grant our user WRITE on it")
