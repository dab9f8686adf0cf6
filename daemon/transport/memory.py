"""Source and sink on a log in memory: the same contract as on Kafka, for tests that need every order of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice

from daemon.core.records import InputRecord
from daemon.errors import BrokerUnavailable, Fenced, TopicError, TransactionFailed
from daemon.transport.connection import transactional_id
from daemon.transport.memory_group import InstanceFenced, Membership, Refused
from daemon.transport.memory_log import Claim, MemoryLog
from daemon.transport.port import Outgoing, Polled, Readable


class MemorySource:
    """A `Source` on a `MemoryLog`; it joins its group in the first poll."""

    def __init__(self, log: MemoryLog, *, group_id: str, instance_id: str) -> None:
        self._log = log
        self._group = log.group(group_id)
        self._instance_id = instance_id
        self._topic_id = log.topic_id("ticks")
        self._member_id: int | None = None
        self._owned: set[int] = set()
        #: Next offset of every started partition.
        self._positions: dict[int, int] = {}
        self._polls = 0

    def poll(self, timeout_seconds: float, max_records: int) -> Polled:
        """Do as `Source.poll` says, without waiting."""
        self._log.on_point("poll")
        if self._log.away:
            return Polled()
        lost: tuple[int, ...] = ()
        if self._member_id is None or not self._group.knows(self._member_id):
            lost = self.assignment()
            self._drop(lost)
            self._member_id = self._group.join(self._instance_id)
        turn = self._group.turn(self._member_id)
        self._drop(turn.revoked)
        self._owned.update(turn.assigned)
        records = [] if turn.waiting else self._fetch(max_records)
        return Polled(records, turn.revoked, lost, turn.assigned)

    @property
    def joined(self) -> bool:
        """True while we are a member of the group, with or without partitions."""
        return self._member_id is not None and self._group.knows(self._member_id)

    def assignment(self) -> tuple[int, ...]:
        """Return the partitions that are ours now, sorted."""
        return tuple(sorted(self._owned))

    def committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """Do as `Source.committed` says."""
        self._log.on_point("committed_read")
        if self._log.away:
            return {}
        settled = [p for p in partitions if not self._log.held(self._group.group_id, p)]
        return {partition: self._group.offsets.get(partition) for partition in settled}

    def bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Do as `Source.bounds` says; the end is what a `read_committed` reader may see."""
        _reach(self._log)
        return {partition: self._log.bounds("ticks", partition, "read_committed") for partition in partitions}

    def start_at(self, partition: int, offset: int) -> None:
        """Seek an assigned partition and let it deliver."""
        if partition not in self._owned:
            raise ValueError(f"partition {partition} is not ours")
        self._positions[partition] = offset

    def stop(self, partition: int) -> None:
        """Pause an assigned partition until the next `start_at`; nothing of it is delivered any more."""
        self._positions.pop(partition, None)

    def positions(self) -> dict[int, int]:
        """Return the next offset of each assigned partition that has been started, markers stepped over."""
        return dict(sorted(self._positions.items()))

    def lags(self) -> dict[int, int]:
        """Return how many offsets each started partition is behind the log's end."""
        return {p: self._log.bounds("ticks", p, "read_uncommitted")[1] - at for p, at in self.positions().items()}

    def group_metadata(self) -> object:
        """Return the membership to commit under; before the first answer of the group it is none that counts."""
        if self._member_id is None:
            return Membership(self._group.group_id, self._instance_id, -1, -1)
        return self._group.membership(self._member_id)

    def topic_id(self) -> str:
        """Return the id of the input topic; another one after a re-creation."""
        return self._log.topic_id("ticks")

    def confirm(self) -> None:
        """Do as `Source.confirm` says."""
        self._log.on_point("confirm")
        _reach(self._log)
        self._check_topic()
        if self._member_id is not None and self._group.is_replaced(self._member_id):
            raise Fenced(f"another process runs with our instance id {self._instance_id!r}")
        self._group.share_anew()

    def close(self, *, leave: bool) -> None:
        """Stop; `leave` takes us out of the group too."""
        if leave and self._member_id is not None:
            self._group.leave(self._member_id)

    def _check_topic(self) -> None:
        if self.topic_id() != self._topic_id:
            raise TopicError("the topic ticks was deleted and created anew")

    def _drop(self, partitions: Sequence[int]) -> None:
        for partition in partitions:
            self._owned.discard(partition)
            self._positions.pop(partition, None)

    def _fetch(self, max_records: int) -> list[InputRecord]:
        """Read on in every started partition, beginning with another one each time so that none starves."""
        started = sorted(self._positions)
        if started:
            self._check_topic()
        first = self._polls % max(1, len(started))
        self._polls += 1
        records: list[InputRecord] = []
        for partition in started[first:] + started[:first]:
            records += self._read_on(partition, max_records - len(records))
        return records

    def _read_on(self, partition: int, max_records: int) -> list[InputRecord]:
        position = self._positions[partition]
        records, self._positions[partition] = _read_on(self._log, "ticks", partition, position, max_records)
        return records


class MemorySink:
    """A `Sink` on a `MemoryLog`."""

    def __init__(self, log: MemoryLog, *, group_id: str, instance_id: str) -> None:
        self._log = log
        self._transactional_id = transactional_id(group_id, instance_id)
        self._claim: Claim | None = None

    def open(self) -> None:
        """Claim our transactional id: fences and aborts what an earlier holder left open."""
        try:
            self._log.on_point("open")
            self._claim = self._log.claim(self._transactional_id)
        except Refused as error:
            raise BrokerUnavailable(str(error)) from error

    def commit(self, outgoing: Outgoing, offsets: Mapping[int, int], group_metadata: object) -> None:
        """Do as `Sink.commit` says."""
        assert offsets, "a transaction without offsets is not fenced"
        assert isinstance(group_metadata, Membership)
        if self._claim is None:
            self.open()
        assert self._claim is not None
        try:
            self._write(self._claim, outgoing, offsets, group_metadata)
        except Refused as error:
            self.close()
            if isinstance(error, InstanceFenced):
                raise Fenced(str(error)) from error
            raise TransactionFailed(str(error)) from error

    def close(self) -> None:
        """Abort what is open."""
        claim, self._claim = self._claim, None
        if claim is not None:
            with suppress(Refused):  # somebody else has the id now and has aborted it, or nobody hears us
                self._log.end(claim, committed=False)

    def _write(self, claim: Claim, outgoing: Outgoing, offsets: Mapping[int, int], membership: Membership) -> None:
        log = self._log
        log.on_point("begin")
        log.begin(claim)
        for role, messages in outgoing.messages.items():
            for message in messages:
                log.on_point("send")
                log.append(claim, role, message)
        log.on_point("offsets")
        log.add_offsets(claim, membership, offsets)
        log.on_point("commit")
        log.end(claim, committed=True)
        log.on_point("committed")


class MemoryReader:
    """A `Reader` on a `MemoryLog`."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log

    def bounds(self, topic: Readable, partition: int) -> tuple[int, int]:
        """Return the first retained offset and the high watermark."""
        self._log.on_point("bounds")
        self._check(topic, partition)
        return self._log.bounds(topic, partition, "read_uncommitted")

    def read(
        self, topic: Readable, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[list[InputRecord], int]:
        """Do as `Reader.read` says, without waiting."""
        self._log.on_point("read")
        self._check(topic, partition)
        return _read_on(self._log, topic, partition, offset, max_records)

    def close(self) -> None:
        """Nothing is held open."""

    def _check(self, topic: Readable, partition: int) -> None:
        _reach(self._log)
        if partition not in range(self._log.partitions):
            raise TopicError(f"the topic {topic} has no partition {partition}")


def _reach(log: MemoryLog) -> None:
    if log.away:
        raise BrokerUnavailable("no broker answers")


def _read_on(
    log: MemoryLog, topic: Readable, partition: int, offset: int, max_records: int
) -> tuple[list[InputRecord], int]:
    """Return what a `read_committed` reader gets from `offset` on, and where it reads on, markers stepped over."""
    first, stable_end = log.bounds(topic, partition, "read_committed")
    if not first <= offset <= log.bounds(topic, partition, "read_uncommitted")[1]:
        raise TopicError(f"{topic}-{partition} does not hold the offset {offset}")
    records = list(islice(log.records(topic, partition, offset, "read_committed"), max_records))
    if len(records) == max_records:
        return records, records[-1].offset + 1 if records else offset
    return records, max(stable_end, offset)
