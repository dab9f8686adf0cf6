"""A consumer group as the cluster sees it: who owns which partition, and how far behind the group is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.protocol.consumer import IsolationLevel

from daemon.errors import TopicError
from daemon.transport.admin_client import WAIT_SECONDS, admin_client, coordinated, describe_group
from daemon.transport.connection import Connection

#: The states of a group in which partitions are on their way between members.
REBALANCING = ("PreparingRebalance", "CompletingRebalance")


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition of the input topic; None is what cannot be known from outside."""

    partition: int
    #: The member's instance id, or its client id and host where it has none.
    owner: str | None
    #: assigned, unassigned or rebalancing; what an owner does with the partition only the owner knows.
    phase: str
    #: The next offset to be answered.
    committed: int | None
    #: The last stable offset: what a `read_committed` reader can get.
    end: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group."""

    #: Its instance id, or its client id and host where it has none.
    name: str
    #: True where it has an instance id, as every instance of ours.
    static: bool
    #: What it subscribes to; empty while the group rebalances.
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """A group and the partitions of its input topic."""

    group_id: str
    #: Kafka's word: Stable, Empty, PreparingRebalance, CompletingRebalance; Dead also where it never existed.
    state: str
    topic: str
    partitions: tuple[PartitionStatus, ...]
    members: tuple[Member, ...] = ()


def read_group(connection: Connection, group_id: str, topic: str, *, wait_seconds: float = WAIT_SECONDS) -> GroupStatus:
    """Ask the cluster about a group and its input topic.

    Raises
    ------
    TopicError : there is no such topic
    BrokerUnavailable, AccessDenied
    """
    with admin_client(connection, wait_seconds) as admin:
        return ask_group(admin, group_id, topic, _partitions(admin, topic))


def ask_group(admin: KafkaAdminClient, group_id: str, topic: str, numbers: Sequence[int]) -> GroupStatus:
    """Ask the cluster about a group and these partitions of its input topic; all of them need a leader."""
    partitions = [TopicPartition(topic, number) for number in numbers]
    group = describe_group(admin, group_id)
    committed = coordinated(lambda: admin.list_group_offsets({group_id: partitions}))[group_id]
    ends = admin.list_partition_offsets(
        dict.fromkeys(partitions, OffsetSpec.LATEST), isolation_level=IsolationLevel.READ_COMMITTED
    )
    owners = owners_of(group, topic)
    state = group["group_state"]
    offsets = {tp: committed[tp].offset if tp in committed and committed[tp].offset >= 0 else None for tp in partitions}
    rows = (
        _row(tp.partition, owners.get(tp.partition), state, offsets[tp], ends[tp].offset) for tp in sorted(partitions)
    )
    return GroupStatus(group_id, state, topic, tuple(rows), tuple(map(_member, group["members"])))


def _row(partition: int, owner: str | None, state: str, committed: int | None, end: int) -> PartitionStatus:
    phase = "rebalancing" if state in REBALANCING else "assigned" if owner else "unassigned"
    return PartitionStatus(partition, owner, phase, committed, end, None if committed is None else end - committed)


def _partitions(admin: KafkaAdminClient, topic: str) -> list[int]:
    (described,) = admin.describe_topics([topic])
    if described["error_code"]:
        raise TopicError(f"topic {topic} cannot be read; `tickcast topics check` says why")
    return [partition["partition_index"] for partition in described["partitions"]]


def owners_of(group: Mapping[str, Any], topic: str) -> dict[int, str]:
    """Return partition -> member, from the assignments that the group's leader handed out."""
    owners = {}
    for member in group["members"]:
        for assigned in (member["member_assignment"] or {}).get("assigned_partitions", ()):
            if assigned["topic"] == topic:
                owners.update(dict.fromkeys(assigned["partitions"], _name(member)))
    return owners


def _member(member: Mapping[str, Any]) -> Member:
    subscribed = (member["member_metadata"] or {}).get("topics", ())
    return Member(_name(member), member["group_instance_id"] is not None, tuple(subscribed))


def _name(member: Mapping[str, Any]) -> str:
    return str(member["group_instance_id"] or f"{member['client_id']}@{member['client_host'].lstrip('/')}")
