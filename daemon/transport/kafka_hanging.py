"""Transactions that Kafka forgot to end: found before anything is written again, and ended as it was decided.

A coordinator ends a transaction by a marker in each of its partitions. Kafka 4 leaves those out that have no leader at
that moment, since it takes them for deleted, and calls the transaction complete all the same
(`KRaftMetadataCache.getPartitionLeaderEndpoint` has one answer for both). It takes a partition of which no replica is
up: a single broker that was killed, or that stood still for longer than its session, did it in two of three trials
(4.3.1). Such records stay open. Readers of `read_committed` wait behind them, and the next transaction of the same
producer ends them with its own commit: forecasts appear that were aborted, and offsets count as answered that never
were (both seen).

So the cluster is asked whenever a producer is opened. A transaction hangs where a partition holds it open, its
coordinator does not count the partition among those it has still to end, and the partition holds it open still.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import AbortTransactionSpec
from kafka.errors import (
    ClusterAuthorizationFailedError,
    RetriableError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailedError,
    TransactionalIdNotFoundError,
    UnknownBrokerIdError,
    UnknownTopicOrPartitionError,
    UnsupportedVersionError,
)

from daemon.errors import AccessDenied, TopicError
from daemon.transport.admin_client import coordinated, describe_group, patiently
from daemon.transport.connection import transactional_id

_log = logging.getLogger(__name__)

#: Where groups keep their offsets; a transaction that commits offsets has a part in it.
OFFSETS_TOPIC = "__consumer_offsets"
#: How long a partition may be without a leader; a broker that comes back needs some seconds.
LEADER_SECONDS = 10.0
#: The second: kafka-python looks for broker -1.
LEADERLESS = (RetriableError, UnknownBrokerIdError)

#: No right, not there, or a broker that cannot tell.
UNSEEN = (TopicAuthorizationFailedError, UnknownTopicOrPartitionError, UnsupportedVersionError)

COMMITTED = ("PrepareCommit", "CompleteCommit")
ABORTED = ("CompleteAbort",)
#: Whoever claims the id has these aborted.
UNFINISHED = ("Ongoing", "PrepareAbort", "PrepareEpochFence")


class Last(NamedTuple):
    """What a coordinator says of the last transaction under an id."""

    state: str
    #: Those it has still to end.
    partitions: Collection[TopicPartition] = ()


class Hanging(NamedTuple):
    """What a transaction has left open in one partition."""

    transactional_id: str
    partition: TopicPartition
    producer_id: int
    producer_epoch: int
    coordinator_epoch: int
    start_offset: int


def read_last(admin: KafkaAdminClient, id_: str) -> Last:
    """Return what the coordinator says of the last transaction under an id."""
    try:
        found = coordinated(lambda: admin.describe_transactions([id_]))[id_]
    except (TransactionalIdNotFoundError, TransactionalIdAuthorizationFailedError):
        return Last("Unknown")
    return Last(found.state.value, found.topic_partitions)


def end_hanging(admin: KafkaAdminClient, group_id: str, instance_id: str, topics: Collection[str], last: Last) -> None:
    """End what hangs in these topics, and in the offsets of groups, of our own transactions and of absent instances.

    Parameters
    ----------
    last : what `read_last` said of our id before it was claimed

    Raises
    ------
    AccessDenied : something hangs, and we have no right to end it
    TopicError : something of ours hangs, and nobody can tell whether it was committed
    """
    hanging = patiently(lambda: find_hanging(admin, group_id, topics), LEADERLESS, LEADER_SECONDS)
    ours = [part for part in hanging if part.transactional_id == transactional_id(group_id, instance_id)]
    for part in ours:
        _end(admin, part, committed=_was_committed(last, part, ours))
    others = {part.transactional_id for part in hanging} - {part.transactional_id for part in ours}
    if not others:
        return
    # Who is there ends his own: he may be writing, and to end what he writes now would be wrong.
    there = {transactional_id(group_id, m["group_instance_id"]) for m in describe_group(admin, group_id)["members"]}
    finals = {other: read_last(admin, other).state for other in sorted(others - there)}
    for part in hanging:
        final = finals.get(part.transactional_id)
        if final in COMMITTED + ABORTED:
            _end(admin, part, committed=final in COMMITTED)


def find_hanging(admin: KafkaAdminClient, group_id: str, topics: Collection[str]) -> list[Hanging]:
    """Return what hangs of a group's instances, without what the cluster gives us no right to see."""
    places = _places(admin, group_id, topics)
    open_before = dict(_open_transactions(admin, places))
    if not open_before:
        return []
    listed = admin.list_transactions(producer_id_filters=sorted({producer for _, producer in open_before}))
    owners = {each.producer_id: each.transactional_id for found in listed.values() for each in found}
    ours = {producer: id_ for producer, id_ in owners.items() if id_.startswith(transactional_id(group_id, ""))}
    if not ours:
        return []
    described = coordinated(lambda: admin.describe_transactions(sorted(ours.values())))
    open_after = dict(_open_transactions(admin, places))
    return [
        Hanging(
            ours[producer],
            tp,
            producer,
            before.producer_epoch,
            before.coordinator_epoch,
            before.current_transaction_start_offset,
        )
        for (tp, producer), before in sorted(open_before.items())
        if producer in ours
        and tp not in described[ours[producer]].topic_partitions
        and (after := open_after.get((tp, producer))) is not None
        and after.current_transaction_start_offset == before.current_transaction_start_offset
    ]


def _places(admin: KafkaAdminClient, group_id: str, topics: Collection[str]) -> list[list[TopicPartition]]:
    """Return the partitions that the transactions of a group write to, topic by topic."""
    places = []
    for topic in admin.describe_topics([*topics, OFFSETS_TOPIC]):
        indexes = [each["partition_index"] for each in topic["partitions"]]
        if topic["name"] == OFFSETS_TOPIC and indexes:
            indexes = [offsets_partition(group_id, len(indexes))]
        places.append([TopicPartition(topic["name"], index) for index in indexes])
    return places


def offsets_partition(group_id: str, count: int) -> int:
    """Return where a group keeps its offsets: the magnitude of Java's hash of its name, modulo the partitions."""
    code = 0
    for character in group_id:
        code = (31 * code + ord(character)) & 0xFFFFFFFF
    magnitude = code if code < 2**31 else 2**32 - code
    return magnitude % 2**31 % count  # Java has no magnitude of its least number, and Kafka takes 0


def _open_transactions(
    admin: KafkaAdminClient, places: Collection[Collection[TopicPartition]]
) -> Iterator[tuple[tuple[TopicPartition, int], Any]]:
    for partitions in places:
        try:
            yield from held_open(admin, partitions)
        except UNSEEN as error:
            _log.debug("the producers of %s cannot be seen: %s", partitions, type(error).__name__)


def held_open(
    admin: KafkaAdminClient, partitions: Collection[TopicPartition]
) -> Iterator[tuple[tuple[TopicPartition, int], Any]]:
    """Yield what the partitions' leaders hold open, as (partition, producer id) and kafka-python's description."""
    for tp, state in admin.describe_producers(partitions).items():
        for producer in state.active_producers:
            if producer.current_transaction_start_offset >= 0:
                yield (tp, producer.producer_id), producer


def _was_committed(last: Last, part: Hanging, parts: Collection[Hanging]) -> bool:
    if last.state in COMMITTED:
        return True
    if last.state in ABORTED:
        return False
    if last.state in UNFINISHED:
        # What hung before it has been committed: after an abort this is done before anything else.
        return part.partition not in last.partitions
    if any(each.partition.topic == OFFSETS_TOPIC for each in parts):
        return False  # its offsets hang too, so it has not counted so far
    raise TopicError(
        f"Kafka has left a transaction of {part.transactional_id} open, {_place(part)}, and cannot tell any more "
        "whether it was committed; look whether the committed offsets are beyond it, then end it with "
        "`kafka-transactions.sh abort`"
    )


def _end(admin: KafkaAdminClient, part: Hanging, *, committed: bool) -> None:
    """Write the marker that is missing."""
    outcome = "committed" if committed else "aborted"
    try:
        patiently(lambda: admin._manager.run(_write_marker, admin, part, committed), LEADERLESS, LEADER_SECONDS)
    except ClusterAuthorizationFailedError as error:
        raise AccessDenied(
            f"Kafka has left a transaction of {part.transactional_id} open, {_place(part)}; grant our user "
            f"CLUSTER_ACTION on the cluster, or have it ended: it was {outcome}"
        ) from error
    _log.warning(
        "Kafka had left a transaction of %s open, %s; it is %s now", part.transactional_id, _place(part), outcome
    )


async def _write_marker(admin: KafkaAdminClient, part: Hanging, committed: bool) -> None:
    spec = AbortTransactionSpec(part.partition, part.producer_id, part.producer_epoch, part.coordinator_epoch)
    request = admin._abort_transaction_request(spec)
    request.markers[0].transaction_result = committed
    (leader,) = await admin._async_get_leader_for_partitions([part.partition])
    response = await admin._manager.send(request, node_id=leader)
    admin._abort_transaction_process_response(response, spec)


def _place(part: Hanging) -> str:
    return f"{part.partition.topic}-{part.partition.partition} from offset {part.start_offset}"
