"""Whether the input topic is still the one that was there at start.

A topic that is deleted and created anew keeps its name, and its offsets mean other records from then on. kafka-python
3.0.12 fetches by name: it takes the new topic for the old one and reads on, or reads it from the start after a
rebalance, without a word (measured). Kafka gives each creation an id, so here the fetches name the id instead, and a
broker answers them from no other topic. What is left is to say what has happened.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.cluster import ClusterMetadata
from kafka.errors import UnknownTopicOrPartitionError, for_code

from daemon.errors import BrokerUnavailable, TopicError
from daemon.transport.admin_line import AdminLine

#: How often the client asks for metadata of itself: new partitions are noticed that late.
METADATA_MAX_AGE_SECONDS = 5.0
ASK_SECONDS = 10.0
#: In the middle of a poll.
SHORT_SECONDS = 2.0
#: The first version of the fetch request that names topics by id (KIP-516, Kafka 3.1); kafka-python asks for 12.
FETCH_BY_ID_VERSION = 13


class TopicIdentity:
    """The topic that was there at start, and whether the cluster still has it."""

    def __init__(self, name: str, topic_id: str, admin: AdminLine) -> None:
        self.name = name
        #: In its text form.
        self.topic_id = topic_id
        self._admin = admin

    def ask(self, timeout_seconds: float = ASK_SECONDS) -> None:
        """Ask the cluster itself.

        Raises
        ------
        TopicError : the topic was deleted, or deleted and created anew
        BrokerUnavailable, AccessDenied : it cannot be asked
        """
        found = self._admin.ask(
            lambda admin: find_topic_id(admin, self.name), f"asking for the topic {self.name}", timeout_seconds
        )
        self.require(found)

    def require(self, found: str | None) -> None:
        """Raise unless the id found is the one known."""
        if found is None:
            raise TopicError(
                f"the topic {self.name} was deleted; create it with `tickcast topics create` and start again with "
                "a new [kafka] group_id and a new [topics] state"
            )
        if found != self.topic_id:
            raise TopicError(
                f"the topic {self.name} was deleted and created anew, so our offsets mean other ticks: start again "
                "with a new [kafka] group_id and a new [topics] state, or delete the group's offsets and the state"
            )


class TopicWatch(TopicIdentity):
    """Says whether the topic that `consumer` reads is still the one that it was when the watch began."""

    def __init__(self, consumer: KafkaConsumer, topic: str, admin: AdminLine) -> None:
        self._cluster: ClusterMetadata = consumer._cluster
        self._id: uuid.UUID | None = self._cluster.topic_id(topic)
        super().__init__(topic, str(self._id), admin)
        if self._id is not None:
            _fetch_by_id(consumer, topic, self._id)

    def check(self) -> None:
        """Raise if the client has learned that the topic is another one; costs microseconds while nothing changes.

        Raises
        ------
        TopicError : the topic was deleted, or deleted and created anew
        AccessDenied : which of both it is cannot be asked
        """
        if self._cluster.topic_id(self.name) != self._id:
            with suppress(BrokerUnavailable):  # a cluster that starts forgets topics for a moment; ask again later
                self.ask(SHORT_SECONDS)


def find_topic_id(admin: KafkaAdminClient, topic: str) -> str | None:
    """Return the id of the topic of that name; None where there is none."""
    (described,) = admin.describe_topics([topic])
    error = for_code(described["error_code"])
    if error is UnknownTopicOrPartitionError:
        return None
    if described["error_code"]:
        raise error(f"topic {topic}")
    return str(described["topic_id"])


def _fetch_by_id(consumer: KafkaConsumer, topic: str, topic_id: uuid.UUID) -> None:
    """Make a consumer of one topic fetch by the topic's id, where the broker can; else it fetches by name as before."""
    fetcher = consumer._fetcher
    create, handle = fetcher._create_fetch_requests, fetcher._handle_fetch_response

    def create_by_id() -> Any:
        requests = create()
        for request, _ in requests.values():
            request._max_version = FETCH_BY_ID_VERSION
            for asked in (*request.topics, *request.forgotten_topics_data):
                asked.topic_id = topic_id
        return requests

    def handle_by_id(node_id: int, fetch_offsets: object, send_time: float, response: Any) -> None:
        if response.API_VERSION >= FETCH_BY_ID_VERSION:
            for answer in response.responses:
                answer.topic = topic
        handle(node_id, fetch_offsets, send_time, response)

    fetcher._create_fetch_requests, fetcher._handle_fetch_response = create_by_id, handle_by_id
