"""The group's committed offsets, each partition for itself, and without waiting.

kafka-python's own `committed` fails for all partitions while a transaction holds one of them, and asks again until its
time is up. Here one request is sent once (1 ms), and each partition's answer stands alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import NotCoordinatorError, RetriableError, UnstableOffsetCommitError, for_code
from kafka.protocol.consumer import OffsetFetchRequest

#: Of OffsetFetch: the first that can ask for stable offsets only (KIP-447), and the last that kafka-python knows.
REQUEST_VERSIONS = (7, 8)


def fetch_committed(
    consumer: KafkaConsumer, group_id: str, topic: str, partitions: Sequence[int], timeout_ms: float
) -> dict[int, int | None]:
    """Return the committed offsets that are settled now, None where there is none; empty if nobody answers in time.

    Parameters
    ----------
    timeout_ms : for finding the coordinator, and again for its answer

    Raises
    ------
    KafkaError : a right is missing, or something else that asking again does not mend
    """
    net, manager, coordinator = consumer._net, consumer._manager, consumer._coordinator

    async def ask() -> dict[int, int | None]:
        if not await coordinator.ensure_coordinator_ready_async(timeout_ms=timeout_ms):
            return {}
        request = _request(group_id, topic, partitions)
        response = await manager.wait_for(manager.send(request, node_id=coordinator.coordinator()), timeout_ms)
        return _settled(response)

    try:
        answer: dict[int, int | None] = net.run(ask)
    except NotCoordinatorError as error:
        coordinator.coordinator_dead(error)  # so that the next call looks for the new one
        return {}
    except RetriableError:
        return {}
    return answer


def ask_committed(
    admin: KafkaAdminClient, group_id: str, topic: str, partitions: Sequence[int]
) -> dict[int, int | None]:
    """Do as `fetch_committed` does, through an admin client.

    Raises
    ------
    KafkaError : nobody answers, a right is missing, or the coordinator has moved
    """

    async def ask() -> dict[int, int | None]:
        coordinator = await admin._find_coordinator_id(group_id)
        return _settled(await admin._manager.send(_request(group_id, topic, partitions), node_id=coordinator))

    answer: dict[int, int | None] = admin._manager.run(ask)
    return answer


def _request(group_id: str, topic: str, partitions: Sequence[int]) -> OffsetFetchRequest:
    group_type = OffsetFetchRequest.OffsetFetchRequestGroup
    indexes = list(partitions)
    lowest, highest = REQUEST_VERSIONS
    return OffsetFetchRequest(
        group_id=group_id,
        topics=[OffsetFetchRequest.OffsetFetchRequestTopic(name=topic, partition_indexes=indexes)],
        groups=[
            group_type(
                group_id=group_id,
                topics=[group_type.OffsetFetchRequestTopics(name=topic, partition_indexes=indexes)],
            )
        ],
        require_stable=True,
        min_version=lowest,
        max_version=highest,
    )


def _settled(response: Any) -> dict[int, int | None]:
    group = response.groups[0] if response.API_VERSION >= 8 else response
    _raise(group.error_code)
    offsets: dict[int, int | None] = {}
    for topic in group.topics:
        for answer in topic.partitions:
            try:
                _raise(answer.error_code)
            except UnstableOffsetCommitError:  # a transaction holds it
                continue
            offsets[answer.partition_index] = answer.committed_offset if answer.committed_offset >= 0 else None
    return offsets


def _raise(error_code: int) -> None:
    if error_code:
        raise for_code(error_code)
