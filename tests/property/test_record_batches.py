"""Our way with record batches against kafka-python's own: both read the same out of any bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from kafka.record.legacy_records import LegacyRecordBatchBuilder
from kafka.record.util import calc_crc32c, decode_varint

from daemon.core.records import Message
from daemon.transport.kafka_records import _PartitionRecords
from daemon.transport.record_batch import encode_batch, next_sequence, split, varint

PLACE = TopicPartition("ticks", 3)
NOW_MS = 1_790_000_000_000
BOTH = (_PartitionRecords, Fetcher.PartitionRecords)

data = st.none() | st.binary(max_size=150)
headers = st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=99)), max_size=3)
messages = st.lists(st.builds(Message, st.just(3), data, data, headers), min_size=1, max_size=12)


@given(st.integers(-(2**62), 2**62))
def test_a_number_of_variable_length_is_read_as_it_was_written(number: int) -> None:
    assert decode_varint(varint(number), 0) == (number, len(varint(number)))


@given(messages, st.integers(0, 2**31 - 1))
def test_kafka_python_reads_what_we_write(sent: list[Message], sequence: int) -> None:
    batch = DefaultRecordBatch(encode_batch(sent, NOW_MS, 77, 5, sequence))
    assert batch.validate_crc()
    assert batch.size_in_bytes == len(batch._buffer)
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (77, 5, sequence)
    assert batch.is_transactional
    assert not batch.is_control_batch
    assert batch.last_offset_delta == len(sent) - 1
    found = [(r.offset, r.timestamp, r.key, r.value, r.headers) for r in batch]
    assert found == [
        (n, NOW_MS, key, b"" if key is value is None else value, list(own))
        for n, (_, key, value, own) in enumerate(sent)
    ]


@given(messages, st.integers(1, 900))
def test_runs_are_as_large_as_allowed_and_leave_nothing_out(sent: list[Message], bytes_max: int) -> None:
    runs = list(split(sent, bytes_max))
    assert [message for run in runs for message in run] == sent
    sizes = [sum(len(m.key or b"") + len(m.value or b"") for m in run) for run in runs]
    assert all(size <= bytes_max or len(run) == 1 for size, run in zip(sizes, runs, strict=True))


def test_sequence_numbers_begin_anew_behind_the_largest() -> None:
    assert next_sequence(2**31 - 1, 1) == 0
    assert next_sequence(2**31 - 2, 5) == 3


class Written(NamedTuple):
    """A batch in a log, and how the transaction that it belongs to ended."""

    messages: list[Message]
    codec: int
    #: None outside any transaction.
    producer_id: int | None
    ends: bool
    committed: bool
    #: Records at its end that compaction has removed.
    removed: int
    appended: bool


logs = st.lists(
    st.builds(
        Written,
        messages,
        st.sampled_from([0, 1, 2, 3, 4]),
        st.none() | st.integers(1, 3),
        st.booleans(),
        st.booleans(),
        st.integers(0, 3),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def written(log: list[Written]) -> tuple[bytes, list[Any]]:
    """Return the bytes of a log, and which transactions in it were aborted, as a broker lists them."""
    parts, aborted = [], []
    offset, begun = 0, dict[int, int]()
    for batch in log:
        kept = batch.messages[: max(1, len(batch.messages) - batch.removed)]
        parts.append(stamped(built(batch, kept), offset, len(batch.messages) - 1, appended=batch.appended))
        if batch.producer_id is not None:
            begun.setdefault(batch.producer_id, offset)
        offset += len(batch.messages)
        if batch.ends and batch.producer_id is not None:
            first = begun.pop(batch.producer_id)
            if not batch.committed:
                aborted.append(Aborted(batch.producer_id, first))
            parts.append(stamped(marker(batch.producer_id, committed=batch.committed), offset, 0, control=True))
            offset += 1
    return b"".join(parts), aborted


class Aborted(NamedTuple):
    producer_id: int
    first_offset: int


def built(batch: Written, kept: Sequence[Message]) -> bytearray:
    owner = -1 if batch.producer_id is None else batch.producer_id
    epoch = sequence = -1 if owner < 0 else 0
    builder = DefaultRecordBatchBuilder(2, batch.codec, owner >= 0, owner, epoch, sequence, 1 << 20)
    for n, (_, key, value, own) in enumerate(kept):
        builder.append(n, NOW_MS + n * n - 5, key, value, list(own))
    return builder.build()


def marker(producer_id: int, *, committed: bool) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, 0, True, producer_id, 0, 0, 1 << 20)
    builder.append(0, NOW_MS, struct.pack(">hh", 0, int(committed)), b"\0" * 6, [])
    return builder.build()


def stamped(batch: bytearray, offset: int, last_delta: int, *, appended: bool = False, control: bool = False) -> bytes:
    """Do with a batch as a broker does: its offset, its last one, its flags."""
    struct.pack_into(">q", batch, 0, offset)
    batch[22] |= 0x08 * appended | 0x20 * control
    struct.pack_into(">i", batch, 23, last_delta)
    struct.pack_into(">I", batch, 17, calc_crc32c(memoryview(batch)[21:]))
    return bytes(batch)


def taken(kind: Callable[..., Any], log: bytes, aborted: list[Any], begin: int, sizes: Sequence[int]) -> list[Any]:
    """Take records in portions; return what came, where to go on after each, and how it ended."""
    drained: list[bool] = []
    found: list[Any] = []
    part = kind(
        begin,
        PLACE,
        MemoryRecords(log),
        isolation_level=IsolationLevel.READ_COMMITTED,
        aborted_transactions=aborted,
        on_drain=lambda _: drained.append(True),
    )
    for size in (*sizes, 10_000):
        try:
            records = part.take(size) if part else []
        except CorruptRecordError:
            found.append("corrupt")
            break
        found.append([(r.topic, r.partition, r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in records])
        found.append((part.next_fetch_offset, part.leader_epoch))
    return [*found, drained]


portions = st.lists(st.integers(1, 30), max_size=4)


@given(logs, st.integers(0, 50), portions)
def test_we_read_what_kafka_python_reads(log: list[Written], begin: int, sizes: list[int]) -> None:
    stored, aborted = written(log)
    ours, theirs = (
        taken(each, stored, aborted, begin, sizes) for each in (_PartitionRecords, Fetcher.PartitionRecords)
    )
    assert ours == theirs


@given(logs, st.integers(0), st.integers(1, 255), portions)
def test_we_find_corrupt_what_kafka_python_finds_corrupt(
    log: list[Written], at: int, change: int, sizes: list[int]
) -> None:
    stored, aborted = written([log[0]._replace(ends=False)])
    broken = bytearray(stored)
    # Behind the lengths and the format, which decide what is a batch at all: the CRC, and everything that it covers.
    where = 17 + at % (len(broken) - 17)
    broken[where] ^= change
    ours, theirs = (taken(each, bytes(broken), aborted, 0, sizes) for each in BOTH)
    assert ours == theirs
    assert "corrupt" in ours


@given(logs, st.data())
def test_bytes_that_only_their_checksum_vouches_for_end_in_our_error(log: list[Written], draw: st.DataObject) -> None:
    batch = bytearray(stamped(built(log[0]._replace(codec=0, producer_id=None), log[0].messages), 0, 0))
    for _ in range(draw.draw(st.integers(1, 4))):
        batch[draw.draw(st.integers(61, len(batch) - 1))] = draw.draw(st.integers(0, 255))
    log_bytes = stamped(batch, 0, len(log[0].messages) - 1)
    assert taken(_PartitionRecords, log_bytes, [], 0, ())  # anything but another error


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("codec", [0, 1])
def test_formats_of_before_kafka_0_11_are_read(magic: int, codec: int) -> None:
    builder = LegacyRecordBatchBuilder(magic, codec, 1 << 20)
    for n in range(5):
        builder.append(n, NOW_MS + n, b"key", b"%d" % n)
    found, *_ = taken(_PartitionRecords, bytes(builder.build()), [], 0, ())
    assert [(offset, timestamp, value) for _, _, offset, timestamp, _, value, _ in found] == [
        (n, NOW_MS + n if magic else -1, b"%d" % n) for n in range(5)
    ]
