"""Record batches in Kafka's format 2, made of a partition's messages all at once.

kafka-python's producer takes records one by one, each with a lock, a future and several checks: 16 us for a forecast of
470 bytes, the half of what a tick cost. Here the messages of a transaction are known before the first is written, and
one answer counts for all, so what is left are the bytes: `python -m bench.client` measures both.

References
----------
Kafka protocol, "Record Batch": https://kafka.apache.org/43/documentation.html#recordbatch
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache

from kafka.codec import lz4_encode
from kafka.record.util import calc_crc32c

from daemon.core.records import Headers, Message

#: What stands before the checksum: base offset and leader's epoch (set by the broker), length, format.
_HEAD = struct.Struct(">qiibI")
#: What the checksum is of, before the records: attributes, last offset, first and last timestamp, producer, its epoch,
#: first sequence number, number of records.
_TAIL = struct.Struct(">hiqqqhii")
#: Base offset and the length itself.
_NOT_IN_LENGTH = 12
_FORMAT = 2
_LZ4, _TRANSACTIONAL = 3, 0x10
#: Sequence numbers are 32-bit integers that begin anew behind the largest.
_SEQUENCES = 2**31


def encode_batch(
    messages: Sequence[Message], timestamp_ms: int, producer_id: int, producer_epoch: int, sequence: int
) -> bytes:
    """Return messages as one batch of a transaction, compressed where that makes it smaller.

    Parameters
    ----------
    timestamp_ms : of every record
    sequence : number of the first record among all that the producer wrote to the partition
    """
    records = b"".join(_records(messages))
    compressed = lz4_encode(records)
    attributes = _TRANSACTIONAL
    if len(compressed) < len(records):
        records = compressed
        attributes |= _LZ4
    count = len(messages)
    tail = _TAIL.pack(attributes, count - 1, timestamp_ms, timestamp_ms, producer_id, producer_epoch, sequence, count)
    checked = tail + records
    return _HEAD.pack(0, _HEAD.size - _NOT_IN_LENGTH + len(checked), 0, _FORMAT, calc_crc32c(checked)) + checked


def next_sequence(sequence: int, count: int) -> int:
    """Return the sequence number `count` records on."""
    return (sequence + count) % _SEQUENCES


def split(messages: Sequence[Message], bytes_max: int) -> Iterator[Sequence[Message]]:
    """Yield runs of messages whose keys and values have at most `bytes_max` together, or which are alone."""
    first = size = 0
    for index, (_, key, value, _) in enumerate(messages):
        more = len(key or b"") + len(value or b"")
        if size + more > bytes_max and index > first:
            yield messages[first:index]
            first, size = index, 0
        size += more
    if first < len(messages):
        yield messages[first:]


def _records(messages: Sequence[Message]) -> Iterator[bytes]:
    """Yield each record after its length: attributes and time (0 and as the first), place in the batch, the message."""
    join = b"".join
    for index, (_, key, value, headers) in enumerate(messages):
        if value is None and key is None:
            value = b""  # kafka-python refuses to write a record with neither; other clients write them
        record = join(
            (
                b"\0\0",
                varint(index),
                _NONE if key is None else varint(len(key)) + key,
                _NONE if value is None else varint(len(value)),
                value or b"",
                _headers(headers) if headers else b"\0",
            )
        )
        yield varint(len(record))
        yield record


def _headers(headers: Headers) -> bytes:
    parts = [varint(len(headers))]
    for name, value in headers:
        encoded = name.encode()
        parts += (varint(len(encoded)), encoded, varint(len(value)), value)
    return b"".join(parts)


@lru_cache(maxsize=2**14)
def varint(number: int) -> bytes:
    """Return a number in Kafka's variable length: 7 bits a byte, the sign in the lowest bit."""
    rest = number << 1 ^ number >> 63
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


#: The length of what is not there.
_NONE = varint(-1)
