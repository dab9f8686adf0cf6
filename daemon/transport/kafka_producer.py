"""A producer of whole transactions on kafka-python's connections: written, checked and ended in three round trips.

    add the partitions | add the group's offsets      to the transaction; its coordinator answers in order
    write the records  | write the offsets            at the same time
    end the transaction                               when every answer of the four was good

`KafkaProducer` of kafka-python 3.0.12 takes one of the five steps after the other, each handed from our thread to its
own and back: 9.5 ms for 30 records, 5.2 here. And it takes records one by one, see `record_batch`. A broker that has
both the records' and the offsets' partition looks the transaction up for one at a time and may refuse the other, which
is tried again: in half of all transactions, and no dearer than to write one after the other (measured).

Every step may be taken twice: sequence numbers make a batch that is written twice count once. So what can be tried
again is, see `kafka_nodes`, and a broker that is away for a moment fails no transaction. A producer that has failed
once must not be used again: what became of the transaction is settled by the next one that claims the same id.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.errors import (
    DuplicateSequenceNumberError,
    InvalidMetadataError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    RetriableError,
    TopicAuthorizationFailedError,
    for_code,
)
from kafka.net.compat import KafkaNetClient
from kafka.protocol.metadata import CoordinatorType
from kafka.protocol.producer import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    InitProducerIdRequest,
    ProduceRequest,
    TxnOffsetCommitRequest,
)
from kafka.structs import ConsumerGroupMetadata

from daemon.core.records import Message
from daemon.transport.kafka_nodes import Nodes, Patience, own_code
from daemon.transport.record_batch import encode_batch, next_sequence, split

#: One batch of each partition goes into a request, and a broker takes no request above 100 MB by default.
REQUEST_BYTES = 32 * 1024 * 1024
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


class TransactionalProducer:
    """Writes transactions under one transactional id, after `claim`.

    Parameters
    ----------
    batch_bytes : most of keys and values in one batch; what a topic takes is up to it
    kafka_client : builds the connections out of `options`

    Raises
    ------
    KafkaTimeoutError : no broker answered within `bootstrap_timeout_ms`
    """

    def __init__(
        self,
        *,
        transactional_id: str,
        transaction_timeout_ms: int,
        request_timeout_ms: int,
        batch_bytes: int,
        bootstrap_timeout_ms: float,
        kafka_client: Callable[..., KafkaNetClient],
        **options: Any,
    ) -> None:
        self._transactional_id = transactional_id
        self._transaction_timeout_ms = transaction_timeout_ms
        self._request_timeout_ms = request_timeout_ms
        self._batch_bytes = batch_bytes
        self._nodes = Nodes(kafka_client(request_timeout_ms=request_timeout_ms, **options), bootstrap_timeout_ms)
        self._cluster = self._nodes.cluster
        self._producer_id = self._epoch = -1
        #: The next sequence number of each partition written to; the others begin at 0.
        self._sequences: dict[TopicPartition, int] = {}

    def claim(self, seconds: float) -> None:
        """Fence whoever held the transactional id before, and wait until what it left open is ended.

        Raises
        ------
        KafkaError : it was refused
        BrokerUnavailable : no answer in time; so do all methods below
        """
        self._nodes.run(self._claim, seconds)

    def learn(self, topics: Iterable[str], seconds: float) -> None:
        """Ask where the partitions of the topics are.

        Raises
        ------
        TopicAuthorizationFailedError : no right to see one
        """
        self._cluster.set_topics(topics)
        self._nodes.run(self._nodes.refresh, seconds)
        if self._cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(sorted(self._cluster.unauthorized_topics))

    def partitions_of(self, topic: str) -> frozenset[int]:
        """Return the partitions of a topic, as they were when it was asked for; none where there is no such topic."""
        return frozenset(self._cluster.partitions_for_topic(topic) or ())

    def transact(
        self,
        messages: Mapping[str, Sequence[Message]],
        offsets: Mapping[TopicPartition, int],
        group: ConsumerGroupMetadata,
        seconds: float,
    ) -> None:
        """Write messages by topic, and offsets of the group, all or nothing.

        Raises
        ------
        KafkaError : a step was refused; the transaction is still to be aborted
        """
        batches = dict(self._encode(messages))
        self._nodes.run(lambda patience: self._transact(batches, offsets, group, patience), seconds)

    def abort(self, seconds: float) -> None:
        """Abort the transaction that has failed.

        Raises
        ------
        KafkaError : there is none any more
        """
        self._nodes.run(lambda patience: self._end(patience, committed=False), seconds)

    def close(self) -> None:
        """Close the connections; sends nothing."""
        self._nodes.close()

    async def _claim(self, patience: Patience) -> None:
        answer = await self._ask_ours(
            lambda: InitProducerIdRequest(
                transactional_id=self._transactional_id,
                transaction_timeout_ms=self._transaction_timeout_ms,
                producer_id=-1,
                producer_epoch=-1,
                max_version=4,
            ),
            patience,
        )
        self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch

    async def _transact(
        self,
        batches: Mapping[TopicPartition, Sequence[_Batch]],
        offsets: Mapping[TopicPartition, int],
        group: ConsumerGroupMetadata,
        patience: Patience,
    ) -> None:
        adding = self._add_partitions(batches, patience), self._add_group(group, patience)
        await self._nodes.together(*adding)
        writing = self._write_records(batches, patience), self._write_offsets(offsets, group, patience)
        await self._nodes.together(*writing)
        await self._end(patience, committed=True)

    async def _end(self, patience: Patience, *, committed: bool) -> None:
        await self._ask_ours(lambda: EndTxnRequest(**self._identity, committed=committed, max_version=3), patience)

    async def _add_group(self, group: ConsumerGroupMetadata, patience: Patience) -> None:
        await self._ask_ours(
            lambda: AddOffsetsToTxnRequest(**self._identity, group_id=group.group_id, max_version=3), patience
        )

    async def _write_offsets(
        self, offsets: Mapping[TopicPartition, int], group: ConsumerGroupMetadata, patience: Patience
    ) -> None:
        Topic = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
        Partition = Topic.TxnOffsetCommitRequestPartition

        def of(topic: str, number: int) -> Any:
            offset = offsets[TopicPartition(topic, number)]
            return Partition(
                partition_index=number, committed_offset=offset, committed_leader_epoch=-1, committed_metadata=""
            )

        await self._nodes.ask_coordinator(
            CoordinatorType.GROUP,
            group.group_id,
            lambda: TxnOffsetCommitRequest(
                **self._identity,
                group_id=group.group_id,
                generation_id=group.generation_id,
                member_id=group.member_id,
                group_instance_id=group.group_instance_id,
                topics=[
                    Topic(name=topic, partitions=[of(topic, number) for number in numbers])
                    for topic, numbers in _by_topic(offsets)
                ],
                max_version=3,
            ),
            lambda answer: [code for _, partitions in answer.topics for _, code in partitions],
            patience,
        )

    async def _add_partitions(self, partitions: Collection[TopicPartition], patience: Patience) -> None:
        if not partitions:
            return  # a transaction of offsets alone
        Topic = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic
        await self._ask_ours(
            lambda: AddPartitionsToTxnRequest(
                **{f"v3_and_below_{name}": value for name, value in self._identity.items()},
                v3_and_below_topics=[Topic(name=topic, partitions=each) for topic, each in _by_topic(partitions)],
                max_version=3,
            ),
            patience,
            lambda answer: [code for _, results in answer.results_by_topic_v3_and_below for _, code in results],
        )

    async def _write_records(self, batches: Mapping[TopicPartition, Sequence[_Batch]], patience: Patience) -> None:
        """Write the batches of each partition one after the other, all partitions at the same time."""
        waiting = {place: deque(each) for place, each in batches.items()}
        while waiting:
            await self._nodes.persistently(lambda: self._write_next(waiting, patience), patience)

    async def _write_next(self, waiting: dict[TopicPartition, deque[_Batch]], patience: Patience) -> None:
        """Write the next batch of each partition, and take those that were written away.

        Raises
        ------
        RetriableError : one of them was not written and can be tried again
        KafkaError : one was refused for good
        """
        asked = [
            self._nodes.start(self._nodes.ask(leader, self._produce_request(waiting, places), patience))
            for leader, places in self._by_leader(waiting).items()
        ]
        failure: RetriableError | None = None if asked else LeaderNotAvailableError()
        for answer in asked:
            try:
                topics = (await answer).responses
            except RetriableError as error:
                failure = error
                continue
            for topic in topics:
                for partition in topic.partition_responses:
                    failure = self._settle(TopicPartition(topic.name, partition.index), partition, waiting) or failure
        if failure is not None:
            if isinstance(failure, InvalidMetadataError):
                self._cluster.request_update()
            raise failure

    def _settle(
        self, place: TopicPartition, answer: Any, waiting: dict[TopicPartition, deque[_Batch]]
    ) -> RetriableError | None:
        """Follow the answer to one batch; return why it is to be written again, None where it is not."""
        batches = waiting[place]
        error = for_code(answer.error_code)
        if not answer.error_code or error is DuplicateSequenceNumberError:  # its first answer was lost
            batches.popleft()
            if not batches:
                del waiting[place]
            return None
        if error in TOO_LARGE and len(batches[0].messages) > 1:
            batches.extendleft(reversed(self._halves(batches.popleft())))
            return None
        failure: Exception = error(f"{place.topic}-{place.partition}: {answer.error_message or error.description}")
        if isinstance(failure, RetriableError):
            return failure
        raise failure

    def _by_leader(self, waiting: Mapping[TopicPartition, deque[_Batch]]) -> dict[int, list[TopicPartition]]:
        """Group the partitions by who leads them now, those without a leader left out, to requests of bounded size."""
        leaders: dict[int, list[TopicPartition]] = {}
        sizes: dict[int, int] = {}
        for place, batches in waiting.items():
            leader = self._cluster.leader_for_partition(place)
            if leader is None or self._cluster.broker_metadata(leader) is None:
                self._cluster.request_update()
                continue
            size = sizes.get(leader, 0) + len(batches[0].data)
            if leader not in leaders or size <= REQUEST_BYTES:
                leaders.setdefault(leader, []).append(place)
                sizes[leader] = size
        return leaders

    def _produce_request(
        self, waiting: Mapping[TopicPartition, deque[_Batch]], places: Iterable[TopicPartition]
    ) -> ProduceRequest:
        Topic = ProduceRequest.TopicProduceData
        Partition = Topic.PartitionProduceData
        return ProduceRequest(
            transactional_id=self._transactional_id,
            acks=-1,
            timeout_ms=self._request_timeout_ms,
            topic_data=[
                Topic(
                    name=topic,
                    partition_data=[
                        Partition(index=number, records=waiting[TopicPartition(topic, number)][0].data)
                        for number in numbers
                    ],
                )
                for topic, numbers in _by_topic(places)
            ],
            min_version=3,
            max_version=9,
        )

    def _encode(self, messages: Mapping[str, Sequence[Message]]) -> Iterator[tuple[TopicPartition, list[_Batch]]]:
        for topic, each in messages.items():
            by_partition: dict[int, list[Message]] = {}
            for message in each:
                by_partition.setdefault(message.partition, []).append(message)
            for partition, own in by_partition.items():
                place = TopicPartition(topic, partition)
                batches = []
                for run in split(own, self._batch_bytes):
                    sequence = self._sequences.get(place, 0)
                    batches.append(self._batch(run, sequence))
                    self._sequences[place] = next_sequence(sequence, len(run))
                yield place, batches

    def _halves(self, batch: _Batch) -> list[_Batch]:
        """Return a batch that the topic found too large as two; their records keep their sequence numbers."""
        middle = len(batch.messages) // 2
        first, second = batch.messages[:middle], batch.messages[middle:]
        return [self._batch(first, batch.sequence), self._batch(second, next_sequence(batch.sequence, middle))]

    def _batch(self, messages: Sequence[Message], sequence: int) -> _Batch:
        data = encode_batch(messages, time.time_ns() // 1_000_000, self._producer_id, self._epoch, sequence)
        return _Batch(messages, sequence, data)

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            "transactional_id": self._transactional_id,
            "producer_id": self._producer_id,
            "producer_epoch": self._epoch,
        }

    async def _ask_ours(
        self, request: Callable[[], Any], patience: Patience, codes: Callable[[Any], Sequence[int]] = own_code
    ) -> Any:
        """Ask the coordinator of our transactions."""
        kind, key = CoordinatorType.TRANSACTION, self._transactional_id
        return await self._nodes.ask_coordinator(kind, key, request, codes, patience)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Messages of one partition, as they are written."""

    messages: Sequence[Message]
    #: Number of the first of them.
    sequence: int
    data: bytes


def _by_topic(places: Iterable[TopicPartition]) -> Iterator[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for place in places:
        topics.setdefault(place.topic, []).append(place.partition)
    yield from topics.items()
