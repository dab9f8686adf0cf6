"""Our place in the consumer group, as the cluster sees it; no client tells that of itself.

Whichever client reads the ticks, these questions go through one admin client: they are rare, and mean the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove

from daemon.errors import Fenced
from daemon.transport.admin_client import describe_group
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection
from daemon.transport.group import owners_of
from daemon.transport.kafka_client import connect
from daemon.transport.kafka_topic import TopicIdentity, find_topic_id

REQUEST_TIMEOUT_SECONDS = 10.0
LEAVE_TIMEOUT_SECONDS = 5.0


class Place:
    """The place of a static member."""

    def __init__(self, connection: Connection, admin: AdminLine, group_id: str, instance_id: str) -> None:
        self._connection = connection
        self._admin = admin
        self._group_id = group_id
        self._instance_id = instance_id

    def ask(self, topic: TopicIdentity) -> dict[str, Any]:
        """Return kafka-python's description of the group, in 4 ms (25 ms the first time), and make sure of the topic.

        Raises
        ------
        TopicError : the topic was deleted, or deleted and created anew
        BrokerUnavailable, AccessDenied : it cannot be learned
        """

        def ask(admin: KafkaAdminClient) -> tuple[dict[str, Any], str | None]:
            return describe_group(admin, self._group_id), find_topic_id(admin, topic.name)

        doing = f"asking for group {self._group_id} and topic {topic.name}"
        group, topic_id = self._admin.ask(ask, doing, REQUEST_TIMEOUT_SECONDS)
        topic.require(topic_id)
        return group

    def require(self, group: Mapping[str, Any], member_ids: Collection[str]) -> None:
        """Raise if somebody has our place who is none of these.

        Raises
        ------
        Fenced : another process has it
        """
        for member in group["members"]:
            if member["group_instance_id"] == self._instance_id and member["member_id"] not in member_ids:
                raise Fenced(
                    f"another process runs with our [kafka] instance_id {self._instance_id!r}; give each its own"
                )

    def leave(self, member_id: str) -> None:
        """Take ourselves out of the group, which a static member's client does not do.

        By name and member id together: if a new process has taken the name over meanwhile, the broker refuses, and
        that one stays.
        """
        admin = connect(KafkaAdminClient, self._connection, LEAVE_TIMEOUT_SECONDS)
        try:
            member = MemberToRemove(member_id=member_id, group_instance_id=self._instance_id)
            admin.remove_group_members(self._group_id, [member])
        finally:
            admin.close()


def orphans(group: Mapping[str, Any], topic: str, partitions: Collection[int]) -> set[int]:
    """Return the partitions that belong to nobody although the group is at rest.

    A cooperative rebalance takes a partition from its owner first and gives it away in a second round, which the owner
    asks for. A static member that is killed in between and comes back is handed the first round's assignment, without
    a round, and knows of nothing to give up: the second round never comes (measured).
    """
    if group["group_state"] != "Stable":
        return set()
    return set(partitions) - owners_of(group, topic).keys()
