"""What a fetch brings, as records of ours: kafka-python's own way from its bytes costs more than twice as much.

Of the 5.3 us that kafka-python 3.0.12 takes for a tick of 100 bytes, 3.1 go into objects that nobody asks for: a record
behind properties, then a second one with thirteen fields. An `InputRecord` takes 2.2 us. What a `read_committed`
reader may see is decided as kafka-python does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.legacy_records import LegacyRecordBatch
from kafka.record.util import decode_varint

from daemon.core.records import Headers, InputRecord


def bring_ours(consumer: KafkaConsumer) -> None:
    """Let a consumer without deserialisers return `InputRecord`s."""
    consumer._fetcher.PartitionRecords = _PartitionRecords


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition in one answer."""

    #: Where to go on after what was taken.
    next_fetch_offset: int

    def _unpack_records(
        self, tp: TopicPartition, records: MemoryRecords, *deserialisers: object
    ) -> Iterator[InputRecord]:
        """Yield what may be seen; `next_fetch_offset` says at any time where to go on, and `drain` that all was taken.

        Raises
        ------
        CorruptRecordError : a checksum is wrong, or the bytes make no sense
        """
        assert deserialisers == (None, None)
        while (batch := records.next_batch()) is not None:
            if not batch.validate_crc():
                raise CorruptRecordError(f"a batch of {tp.topic}-{tp.partition} from {self.next_fetch_offset} on")
            if not isinstance(batch, DefaultRecordBatch):
                yield from self._of_old_format(batch, tp)
                continue
            self.leader_epoch = batch.leader_epoch
            if self._may_see(batch):
                for record in _records(batch, tp):
                    self.next_fetch_offset = record.offset + 1
                    yield record
            self.next_fetch_offset = batch.next_offset  # compaction may have removed the last records
        self.drain()

    def _may_see(self, batch: DefaultRecordBatch) -> bool:
        """Return whether records of a batch are to be delivered; keep account of the transactions that were aborted."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return False
        return not batch.is_control_batch

    def _of_old_format(self, batch: LegacyRecordBatch, tp: TopicPartition) -> Iterator[InputRecord]:
        """Yield records that were written before Kafka 0.11, or by a client of that time."""
        for record in batch:
            if not record.validate_crc():
                raise CorruptRecordError(f"{tp.topic}-{tp.partition} at {record.offset}")
            self.next_fetch_offset = record.offset + 1
            timestamp = -1 if record.timestamp is None else record.timestamp
            yield InputRecord(tp.topic, tp.partition, record.offset, timestamp, record.key, record.value, ())


def _records(batch: DefaultRecordBatch, tp: TopicPartition) -> Iterator[InputRecord]:
    """Yield the records of a batch of format 2; `record_batch` says how they are written."""
    batch._maybe_uncompress()
    data, at = bytes(batch._buffer), batch._pos
    topic, partition = tp
    base_offset, base_timestamp = batch.base_offset, batch.first_timestamp
    appended = batch.max_timestamp if batch.timestamp_type == DefaultRecordBatch.LOG_APPEND_TIME else None
    try:
        for _ in range(batch.records_count):
            length, at = decode_varint(data, at)
            end = at + length
            delay, at = decode_varint(data, at + 1)  # a byte of attributes, none in use
            index, at = decode_varint(data, at)
            key, at = _bytes(data, at)
            value, at = _bytes(data, at)
            count, at = decode_varint(data, at)
            headers: Headers = ()
            if count:
                headers, at = _headers(data, at, count)
            if at != end:
                raise CorruptRecordError(f"{topic}-{partition} at {base_offset + index}: its length is wrong")
            timestamp = base_timestamp + delay if appended is None else appended
            yield InputRecord(topic, partition, base_offset + index, timestamp, key, value, headers)
    except (IndexError, ValueError) as error:
        raise CorruptRecordError(f"{topic}-{partition} from {base_offset} on: {error}") from error
    if at != len(data):
        raise CorruptRecordError(f"{topic}-{partition} from {base_offset} on: more bytes than records")


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    length, at = decode_varint(data, at)
    return (None, at) if length < 0 else (data[at : at + length], at + length)


def _headers(data: bytes, at: int, count: int) -> tuple[Headers, int]:
    found = []
    for _ in range(count):
        name, at = _bytes(data, at)
        value, at = _bytes(data, at)
        found.append(((name or b"").decode(), value))
    return cast(Headers, found), at  # anybody may write a null; who looks at headers has to expect it
