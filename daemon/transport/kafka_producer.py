"""A producer of whole transactions on kafka-python's connections: written, checked and ended in three round trips.

    add the partitions | add the group's offsets      to the transaction; its coordinator answers in order
    write the records  | write the offsets            at the same time
    end the transaction                               when every answer of the four was good

`KafkaProducer` of kafka-python 3.0.12 takes one of the five steps after the other, each handed from our thread to its
own and back: 9.5 ms for 30 records, 5.2 here. And it takes records one by one, see `record_batch`. Nothing here runs
between two calls: the caller's thread drives the connections while it waits.

What is worth trying again is, while there is time: an answer that was lost, a leader or coordinator that moved, the
transaction before that is still being completed. Sequence numbers make a batch that is written twice count once, and
all other steps may be taken twice. A producer that has failed once must not be used again: what became of the
transaction is settled by the next one that claims the same id.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kafka import TopicPartition
from kafka.errors import (
    CoordinatorNotAvailableError,
    DuplicateSequenceNumberError,
    InvalidMetadataError,
    KafkaConnectionError,
    KafkaTimeoutError,
    LeaderNotAvailableError,
    MessageSizeTooLargeError,
    NotCoordinatorError,
    OperationNotAttemptedError,
    RecordListTooLargeError,
    RequestTimedOutError,
    RetriableError,
    TopicAuthorizationFailedError,
    for_code,
)
from kafka.future import Future
from kafka.net.compat import KafkaNetClient
from kafka.protocol.metadata import CoordinatorType, FindCoordinatorRequest
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
from daemon.errors import BrokerUnavailable
from daemon.transport.record_batch import encode_batch, next_sequence, split

#: Between two attempts, doubled up to the bound. Often what is waited for is that the markers of the transaction before
#: are written: 1-2 ms when small batches follow each other.
PAUSE_SECONDS = (0.001, 0.1)
#: One batch of each partition goes into a request, and a broker takes no request above 100 MB by default.
REQUEST_BYTES = 32 * 1024 * 1024
#: Another node may be the coordinator now.
COORDINATOR_MOVED = (KafkaConnectionError, NotCoordinatorError, CoordinatorNotAvailableError, RequestTimedOutError)
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

Answer = TypeVar("Answer")
Step = Coroutine[Any, Any, Answer]


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
        self._client = kafka_client(request_timeout_ms=request_timeout_ms, **options)
        self._manager = self._client._manager
        self._net = self._client._net
        self._cluster = self._client.cluster
        self._cluster.config["allow_auto_create_topics"] = False
        self._manager.bootstrap(bootstrap_timeout_ms)
        self._producer_id = self._epoch = -1
        #: The next sequence number of each partition written to; the others begin at 0.
        self._sequences: dict[TopicPartition, int] = {}
        self._coordinators: dict[CoordinatorType, str] = {}

    def claim(self, seconds: float) -> None:
        """Fence whoever held the transactional id before, and wait until what it left open is ended.

        Raises
        ------
        KafkaError : it was refused
        BrokerUnavailable : no answer in time; so do all methods below
        """
        self._run(self._claim, seconds)

    def learn(self, topics: Iterable[str], seconds: float) -> None:
        """Ask where the partitions of the topics are.

        Raises
        ------
        TopicAuthorizationFailedError : no right to see one
        """
        self._cluster.set_topics(topics)
        self._run(self._learn, seconds)
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
        self._run(lambda patience: self._transact(batches, offsets, group, patience), seconds)

    def abort(self, seconds: float) -> None:
        """Abort the transaction that has failed.

        Raises
        ------
        KafkaError : there is none any more
        """
        self._run(lambda patience: self._end(patience, committed=False), seconds)

    def close(self) -> None:
        """Close the connections; sends nothing."""
        self._client.close()

    def _run(self, work: Callable[[_Patience], Step[None]], seconds: float) -> None:
        """Drive the connections until the work is done or the time is up; nothing of it is tried again after that."""
        patience = _Patience(seconds)
        try:
            done = self._start(work(patience))
            self._net.poll(timeout_ms=seconds * 1000, future=done)
            if not done.is_done:
                raise BrokerUnavailable(f"no answer within {seconds:.1f} s")
            if done.exception is not None:
                raise done.exception
        finally:
            patience.end()

    async def _claim(self, patience: _Patience) -> None:
        answer = await self._of_coordinator(
            CoordinatorType.TRANSACTION,
            lambda: InitProducerIdRequest(
                transactional_id=self._transactional_id,
                transaction_timeout_ms=self._transaction_timeout_ms,
                producer_id=-1,
                producer_epoch=-1,
                max_version=4,
            ),
            _own_code,
            patience,
        )
        self._producer_id, self._epoch = answer.producer_id, answer.producer_epoch

    async def _learn(self, patience: _Patience) -> None:
        async def ask() -> None:
            node = self._manager.least_loaded_node()
            await self._manager.get_connection(node)
            await self._cluster.refresh_metadata(node)

        await self._persistently(ask, patience)

    async def _transact(
        self,
        batches: Mapping[TopicPartition, Sequence[_Batch]],
        offsets: Mapping[TopicPartition, int],
        group: ConsumerGroupMetadata,
        patience: _Patience,
    ) -> None:
        async def records() -> None:
            await self._add_partitions(batches, patience)
            await self._write_records(batches, patience)

        async def positions() -> None:
            await self._add_group(group, patience)
            await self._write_offsets(offsets, group, patience)

        await self._together(*([records()] if batches else []), positions())
        await self._end(patience, committed=True)

    async def _end(self, patience: _Patience, *, committed: bool) -> None:
        await self._of_coordinator(
            CoordinatorType.TRANSACTION,
            lambda: EndTxnRequest(**self._identity, committed=committed, max_version=3),
            _own_code,
            patience,
        )

    async def _add_group(self, group: ConsumerGroupMetadata, patience: _Patience) -> None:
        await self._of_coordinator(
            CoordinatorType.TRANSACTION,
            lambda: AddOffsetsToTxnRequest(**self._identity, group_id=group.group_id, max_version=3),
            _own_code,
            patience,
        )

    async def _write_offsets(
        self, offsets: Mapping[TopicPartition, int], group: ConsumerGroupMetadata, patience: _Patience
    ) -> None:
        Topic = TxnOffsetCommitRequest.TxnOffsetCommitRequestTopic
        Partition = Topic.TxnOffsetCommitRequestPartition

        def of(topic: str, number: int) -> Any:
            offset = offsets[TopicPartition(topic, number)]
            return Partition(
                partition_index=number, committed_offset=offset, committed_leader_epoch=-1, committed_metadata=""
            )

        await self._of_coordinator(
            CoordinatorType.GROUP,
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
            group.group_id,
        )

    async def _add_partitions(self, partitions: Iterable[TopicPartition], patience: _Patience) -> None:
        Topic = AddPartitionsToTxnRequest.AddPartitionsToTxnTopic
        await self._of_coordinator(
            CoordinatorType.TRANSACTION,
            lambda: AddPartitionsToTxnRequest(
                **{f"v3_and_below_{name}": value for name, value in self._identity.items()},
                v3_and_below_topics=[Topic(name=topic, partitions=each) for topic, each in _by_topic(partitions)],
                max_version=3,
            ),
            lambda answer: [code for _, results in answer.results_by_topic_v3_and_below for _, code in results],
            patience,
        )

    async def _write_records(self, batches: Mapping[TopicPartition, Sequence[_Batch]], patience: _Patience) -> None:
        """Write the batches of each partition one after the other, all partitions at the same time."""
        waiting = {place: deque(each) for place, each in batches.items()}
        while waiting:
            await self._persistently(lambda: self._write_next(waiting, patience), patience)

    async def _write_next(self, waiting: dict[TopicPartition, deque[_Batch]], patience: _Patience) -> None:
        """Write the next batch of each partition, and take those that were written away.

        Raises
        ------
        RetriableError : one of them was not written and can be tried again
        KafkaError : one was refused for good
        """
        asked = [
            self._start(self._ask(leader, self._produce_request(waiting, places), patience))
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

    async def _of_coordinator(
        self,
        kind: CoordinatorType,
        request: Callable[[], Any],
        codes: Callable[[Any], Sequence[int]],
        patience: _Patience,
        group_id: str = "",
    ) -> Any:
        """Ask a coordinator until it has done what it was asked for, and return its answer."""
        key = self._transactional_id if kind is CoordinatorType.TRANSACTION else group_id

        async def ask() -> Any:
            try:
                answer = await self._ask(await self._coordinator(kind, key, patience), request(), patience)
                _check(codes(answer))
            except COORDINATOR_MOVED:
                self._coordinators.pop(kind, None)
                raise
            return answer

        return await self._persistently(ask, patience)

    async def _coordinator(self, kind: CoordinatorType, key: str, patience: _Patience) -> str:
        """Return the node of a coordinator, which has a connection of its own."""
        if kind not in self._coordinators:
            request = FindCoordinatorRequest(key=key, key_type=kind.value, coordinator_keys=[key])
            answer = await self._ask(self._manager.least_loaded_node(), request, patience)
            found = answer.coordinators[0] if answer.coordinators else answer
            _check(_own_code(found))
            self._coordinators[kind] = self._cluster.add_coordinator(found, kind, key)
        return self._coordinators[kind]

    async def _ask(self, node: int | str, request: Any, patience: _Patience) -> Any:
        """Ask a node; without time nothing is asked: what was given up must not go on when its broker is back."""
        if patience.over:
            raise KafkaTimeoutError("no time is left")
        await self._manager.get_connection(node)
        return await self._manager.send(request, node)

    async def _persistently(self, attempt: Callable[[], Awaitable[Answer]], patience: _Patience) -> Answer:
        """Return what an attempt returns; where it can be tried again it is, while there is time."""
        pause, longest = PAUSE_SECONDS
        while True:
            try:
                return await attempt()
            except RetriableError:
                if patience.over:
                    raise
            await self._net.sleep(pause)
            pause = min(2 * pause, longest)

    async def _together(self, *steps: Step[None]) -> None:
        """Take steps at the same time, and wait for all of them: none may go on after another has failed."""
        failures = []
        for done in [self._start(step) for step in steps]:
            try:
                await done
            except Exception as error:
                failures.append(error)
        if failures:
            raise failures[0]

    def _start(self, step: Step[Any]) -> Future:
        """Begin a step beside others; kafka-python's `call_soon_with_future` wakes a thread up that we do not have."""
        done = Future()

        async def take() -> None:
            try:
                done.success(await step)
            except BaseException as error:  # handed to who waits for it, whatever it is
                done.failure(error)

        self._net.call_soon(take)
        return done


@dataclass(frozen=True, slots=True)
class _Batch:
    """Messages of one partition, as they are written."""

    messages: Sequence[Message]
    #: Number of the first of them.
    sequence: int
    data: bytes


class _Patience:
    """How long something may be tried again."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until

    def end(self) -> None:
        """Have it run out now."""
        self._until = 0.0


def _by_topic(places: Iterable[TopicPartition]) -> Iterator[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for place in places:
        topics.setdefault(place.topic, []).append(place.partition)
    yield from topics.items()


def _own_code(answer: Any) -> Sequence[int]:
    return (answer.error_code,)


def _check(codes: Iterable[int]) -> None:
    """Raise the first error; that a step was not tried only says that another failed."""
    failed = [for_code(code) for code in codes if code]
    if failed:
        raise next((error for error in failed if error is not OperationNotAttemptedError), failed[0])
