"""The cluster from outside: questions that change nothing, each bounded in time and answered for itself.

For the doctor, also beside a daemon that runs. No group is joined, no offset committed, no record written; where a
right is missing, the one question fails that needs it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

import kafka.codec
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec, TransactionDescription
from kafka.errors import (
    RetriableError,
    TransactionalIdAuthorizationFailedError,
    TransactionalIdNotFoundError,
    UnsupportedCodecError,
)
from kafka.protocol.api_key import ApiKey
from kafka.protocol.consumer import IsolationLevel

from daemon.config import TopicSettings
from daemon.errors import AccessDenied, BrokerUnavailable, TickcastError
from daemon.transport.admin import places_of, read_topics
from daemon.transport.admin_client import admin_client, coordinated, patiently
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection
from daemon.transport.group import GroupStatus, ask_group
from daemon.transport.kafka_hanging import held_open
from daemon.transport.kafka_rights import may_join, may_write_as
from daemon.transport.knock import knock
from daemon.transport.topics import Place, TopicFacts

#: How long one server is knocked at: enough for one that is busy, and a list of dead ones does not take for ever.
KNOCK_SECONDS = 5.0
#: One question may take so long. A cluster that has just been made creates its coordinators meanwhile: 1-2 s were seen.
ASK_SECONDS = 10.0
#: How long a question is asked again where a broker is down: the client first has to find that out.
PATIENCE_SECONDS = 3.0
#: Where groups keep their offsets and transactions their state: without these nothing is committed.
INTERNAL_TOPICS = ("__consumer_offsets", "__transaction_state")
CODECS: Mapping[str, Callable[[], bool]] = {
    "gzip": kafka.codec.has_gzip,
    "snappy": kafka.codec.has_snappy,
    "lz4": kafka.codec.has_lz4,
    "zstd": kafka.codec.has_zstd,
}

Answer = TypeVar("Answer")


class Broker(NamedTuple):
    """A broker, and the address that it gives to clients."""

    id: int
    address: str


@dataclass(frozen=True, slots=True)
class Contact:
    """What one bootstrap server said."""

    server: str
    #: The brokers of the cluster as it knows them; none where it did not answer.
    brokers: tuple[Broker, ...] = ()
    #: Why it did not answer.
    error: TickcastError | None = None
    #: How long that took.
    seconds: float = 0.0


class Bounds(NamedTuple):
    """The ends of a partition: first retained offset, last stable offset, high watermark."""

    first: int
    stable: int
    end: int


class OpenTransaction(NamedTuple):
    """A transaction that a partition holds open."""

    partition: int
    producer_id: int
    #: Empty where we may not see whose it is.
    transactional_id: str
    start_offset: int
    #: When it began, or was written to last; ms since the epoch.
    since_ms: int
    #: True where its coordinator has ended it without this partition.
    forgotten: bool


def ask_servers(connection: Connection, seconds: float = KNOCK_SECONDS) -> list[Contact]:
    """Ask each bootstrap server by itself, with our login, for the brokers of the cluster."""
    return [_ask_server(replace(connection, bootstrap_servers=server), seconds) for server in connection.servers]


class ClusterView:
    """Asks the cluster; what goes wrong with a question is one of our errors."""

    def __init__(self, connection: Connection) -> None:
        self._line = AdminLine(connection)

    def close(self) -> None:
        """Let the connection go."""
        self._line.close()

    def brokers(self) -> dict[Broker, bool]:
        """Return the registered brokers, and of each whether the cluster has lost it: it is fenced."""

        def ask(admin: KafkaAdminClient) -> dict[Broker, bool]:
            # Releases before 4.0 leave out those that are fenced.
            described = admin.describe_cluster()["brokers"]
            return {
                Broker(each["broker_id"], f"{each['host']}:{each['port']}"): bool(each.get("is_fenced"))
                for each in described
            }

        return self._ask(ask, "asking for the brokers")

    def requests(self, broker: Broker) -> dict[str, int]:
        """Return the requests that a broker knows, each with its highest version; it has to answer for that."""

        def ask(admin: KafkaAdminClient) -> dict[str, int]:
            known = admin.get_broker_version_data(broker.id).api_versions
            names = {key.value: key.name for key in ApiKey}
            return {names[key]: highest for key, (_, highest) in known.items() if key in names}

        return self._line.ask(ask, f"asking broker {broker.id} at {broker.address}", KNOCK_SECONDS)

    def release(self) -> str:
        """Return the release of Kafka that the brokers' requests are of, e.g. 4.3."""
        return self._ask(lambda admin: ".".join(map(str, admin._manager.broker_version)), "asking for the release")

    def cluster_id(self) -> str:
        """Return the id of the cluster."""
        return self._ask(lambda admin: str(admin.describe_cluster()["cluster_id"]), "asking for the cluster")

    def broker_settings(self, broker: Broker) -> dict[str, str]:
        """Return the settings of a broker.

        Raises
        ------
        AccessDenied : it shows us none
        """

        def ask(admin: KafkaAdminClient) -> dict[str, str]:
            resource = ConfigResource(ConfigResourceType.BROKER, str(broker.id))
            found = admin.describe_configs([resource], config_filter="all").get("broker", {})
            return {name: entry["value"] for name, entry in found.get(str(broker.id), {}).items()}

        settings = self._ask(ask, f"asking for the settings of broker {broker.id}")
        if not settings:
            raise AccessDenied("no right to DESCRIBE_CONFIGS the cluster, so the brokers show no settings")
        return settings

    def topics(self, topics: TopicSettings) -> dict[str, TopicFacts]:
        """Return what the cluster says about the topic of each role."""
        return self._ask(lambda admin: read_topics(admin, topics), "asking for the topics")

    def internal_places(self) -> dict[str, tuple[Place, ...]]:
        """Return where the partitions of Kafka's own topics lie; those are left out that we may not see."""

        def ask(admin: KafkaAdminClient) -> dict[str, tuple[Place, ...]]:
            described = admin.describe_topics(list(INTERNAL_TOPICS))
            return {each["name"]: tuple(places_of(each)) for each in described if not each["error_code"]}

        return self._ask(ask, "asking for Kafka's own topics")

    def may_join(self, group_id: str) -> bool:
        """Whether we may READ a group."""
        return self._ask(lambda admin: may_join(admin, group_id), f"asking for our right on group {group_id}")

    def may_write_as(self, transactional_id: str, group_id: str) -> bool:
        """Whether we may WRITE a transactional id."""
        doing = f"asking for our right on transactional id {transactional_id}"
        return self._ask(lambda admin: may_write_as(admin, transactional_id, group_id), doing)

    def group(self, group_id: str, topic: str, partitions: Sequence[int]) -> GroupStatus:
        """Return a group and these partitions of its input topic."""
        return self._ask(lambda admin: ask_group(admin, group_id, topic, partitions), f"asking for group {group_id}")

    def bounds(self, topic: str, partitions: Sequence[int]) -> dict[int, Bounds]:
        """Return the ends of these partitions of a topic; all of them need a leader."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        ends = (
            (OffsetSpec.EARLIEST, IsolationLevel.READ_UNCOMMITTED),
            (OffsetSpec.LATEST, IsolationLevel.READ_COMMITTED),
            (OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED),
        )

        def ask(admin: KafkaAdminClient) -> dict[int, Bounds]:
            found = [
                admin.list_partition_offsets(dict.fromkeys(places, spec), isolation_level=isolation)
                for spec, isolation in ends
            ]
            return {place.partition: Bounds(*(each[place].offset for each in found)) for place in places}

        return self._ask(ask, f"asking for the ends of {topic}")

    def open_transactions(self, topic: str, partitions: Sequence[int]) -> list[OpenTransaction]:
        """Return the transactions that these partitions of a topic hold open; takes READ on it."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        return self._ask(lambda admin: _open_transactions(admin, places), f"asking for transactions in {topic}")

    def _ask(self, question: Callable[[KafkaAdminClient], Answer], doing: str) -> Answer:
        """Ask any broker: one that is down is tried only once, while the client remembers."""
        return self._line.ask(
            lambda admin: patiently(lambda: question(admin), (RetriableError,), PATIENCE_SECONDS), doing, ASK_SECONDS
        )


def missing_codecs() -> list[str]:
    """Return the codecs that this installation cannot read; the producer of a record chooses."""
    return [name for name, is_there in CODECS.items() if not is_there()]


def is_missing_codec(error: TickcastError) -> bool:
    """Whether records could not be read because their codec is not installed here."""
    return isinstance(error.__cause__, UnsupportedCodecError)


def _ask_server(connection: Connection, seconds: float) -> Contact:
    server, began, brokers, failure = connection.bootstrap_servers, time.monotonic(), [], None
    try:
        if not knock(connection, seconds):
            raise BrokerUnavailable(
                f"no Kafka broker answers at {server}; is it running, and is [kafka] bootstrap_servers right?"
            )
        with admin_client(connection, seconds) as admin:
            found = admin._manager.cluster.brokers()
            brokers = sorted(Broker(each.node_id, f"{each.host}:{each.port}") for each in found)
    except TickcastError as error:
        failure = error
    return Contact(server, tuple(brokers), failure, time.monotonic() - began)


def _open_transactions(admin: KafkaAdminClient, places: Sequence[TopicPartition]) -> list[OpenTransaction]:
    before = dict(held_open(admin, places))
    if not before:
        return []
    listed = admin.list_transactions(producer_id_filters=sorted({producer for _, producer in before}))
    owners = {each.producer_id: each.transactional_id for found in listed.values() for each in found}
    described = {owner: _describe(admin, owner) for owner in sorted(owners.values())}
    after = dict(held_open(admin, places))
    found = []
    for (place, producer), state in sorted(before.items()):
        start, later = state.current_transaction_start_offset, after.get((place, producer))
        if later is None or later.current_transaction_start_offset != start:
            continue
        owner = owners.get(producer, "")
        told = described.get(owner)
        forgotten = told is not None and place not in told.topic_partitions
        began = told.transaction_start_time_ms if told is not None and not forgotten else -1
        since = began if began >= 0 else state.last_timestamp
        found.append(OpenTransaction(place.partition, producer, owner, start, since, forgotten))
    return found


def _describe(admin: KafkaAdminClient, transactional_id: str) -> TransactionDescription | None:
    try:
        return coordinated(lambda: admin.describe_transactions([transactional_id]))[transactional_id]
    except (TransactionalIdNotFoundError, TransactionalIdAuthorizationFailedError):
        return None
