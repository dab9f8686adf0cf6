"""Whether the input topic is still the one that was there at start.

A topic that is deleted and created anew keeps its name, and its offsets mean other records from then on. Kafka gives
each creation an id, but kafka-python 3.0.12 fetches by name: it takes the new topic for the old one and reads on, or
reads it from the start after a rebalance, without a word (measured). What helps is that it hears of the deletion
first: the fetch that waits at the broker fails, that makes it ask for metadata, and those carry the id. So nothing is
delivered while that question is open.
"""

from __future__ import annotations

import threading
import time

from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.cluster import ClusterMetadata
from kafka.errors import UnknownTopicOrPartitionError, for_code

from daemon.errors import TopicError
from daemon.transport.admin_line import AdminLine

#: How often the client asks for metadata of itself; new partitions are noticed that late. One question is 0.2 ms of
#: work.
METADATA_MAX_AGE_SECONDS = 5.0
#: A process that was stopped, or cut off from its brokers, knows nothing newer than this.
STALE_SECONDS = 3 * METADATA_MAX_AGE_SECONDS
#: A question takes 1 ms, but kafka-python leaves 100 ms between two of them.
REFRESH_SECONDS = 1.0
ASK_SECONDS = 10.0


class TopicWatch:
    """Says whether the topic that `consumer` reads is still the one that it was when the watch began."""

    def __init__(self, consumer: KafkaConsumer, topic: str, admin: AdminLine) -> None:
        self._cluster: ClusterMetadata = consumer._cluster
        self._topic = topic
        self._admin = admin
        self._id = self._cluster.topic_id(topic)

    @property
    def topic_id(self) -> str:
        """The id, in its text form."""
        return str(self._id)

    def check(self, *, delivering: bool) -> None:
        """Raise if the client has learned that the topic is another one; costs microseconds while nothing changes.

        Parameters
        ----------
        delivering : records are about to be handed on, so what the client knows must be up to date

        Raises
        ------
        TopicError : the topic was deleted, or deleted and created anew
        BrokerUnavailable, AccessDenied : which of both it is cannot be asked
        """
        if delivering and self._is_uncertain():
            refresh(self._cluster, REFRESH_SECONDS)
        if self._cluster.topic_id(self._topic) != self._id:
            self.ask()

    def ask(self) -> None:
        """Ask the cluster itself, and raise as `check` does."""
        found = self._admin.ask(
            lambda admin: find_topic_id(admin, self._topic), f"asking for the topic {self._topic}", ASK_SECONDS
        )
        self.require(found)

    def require(self, found: str | None) -> None:
        """Raise unless the id found is the one known."""
        if found is None:
            raise TopicError(
                f"the topic {self._topic} was deleted; create it with `tickcast topics create` and start again with "
                "a new [kafka] group_id and a new [topics] state"
            )
        if found != self.topic_id:
            raise TopicError(
                f"the topic {self._topic} was deleted and created anew, so our offsets mean other ticks: start again "
                "with a new [kafka] group_id and a new [topics] state, or delete the group's offsets and the state"
            )

    def _is_uncertain(self) -> bool:
        """Whether something made the client doubt what it knows, or it has not been able to ask for long."""
        age_seconds = time.monotonic() - self._cluster._last_successful_refresh_ms / 1000
        return bool(self._cluster.need_update) or age_seconds > STALE_SECONDS


def find_topic_id(admin: KafkaAdminClient, topic: str) -> str | None:
    """Return the id of the topic of that name; None where there is none."""
    (described,) = admin.describe_topics([topic])
    error = for_code(described["error_code"])
    if error is UnknownTopicOrPartitionError:
        return None
    if described["error_code"]:
        raise error(f"topic {topic}")
    return str(described["topic_id"])


def refresh(cluster: ClusterMetadata, timeout_seconds: float) -> bool:
    """Have a client ask for metadata now; return whether the question ended in time, with an answer or without."""
    answered = threading.Event()
    cluster.request_update().add_both(lambda *_: answered.set())
    return answered.wait(timeout_seconds)
