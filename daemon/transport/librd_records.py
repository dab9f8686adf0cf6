"""How we read with librdkafka, and our records of its messages: every field of theirs costs a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError

from daemon.core.records import InputRecord

#: How every consumer of ours reads: what is committed, checked, from positions that are set here, with offsets that
#: only transactions commit. Each default is wrong for us.
READING: Mapping[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "check.crcs": True,
    # The end of a partition is told: that is how we hear of markers and aborted records that were stepped over.
    "enable.partition.eof": True,
    # The broker holds a fetch this long when a partition has nothing, and so late is its end told.
    "fetch.wait.max.ms": 20,
    # Nothing is fetched for so long once a partition's queue is full: at its default of 1000 a fast reader waits.
    "fetch.queue.backoff.ms": 5,
    # The queue of each partition.
    "queued.max.messages.kbytes": 16 * 1024,
}


class Taken(NamedTuple):
    """What one look into librdkafka's queue brought."""

    records: list[InputRecord]
    #: Where each partition that brought something goes on.
    next_offsets: dict[int, int]
    errors: list[KafkaError]


def take(consumer: Consumer, topic: str, timeout_seconds: float, max_records: int) -> Taken:
    """Wait for the first message of a topic and take what else is there, up to `max_records`.

    `Consumer.consume(n, timeout)` waits for n messages or for the whole of its timeout (measured), so it is given none.
    """
    first = consumer.poll(timeout_seconds)
    messages = [] if first is None else [first, *consumer.consume(max_records - 1, 0)]
    records: list[InputRecord] = []
    next_offsets: dict[int, int] = {}
    errors: list[KafkaError] = []
    for message in messages:
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is None:
            next_offsets[partition] = offset + 1
            key, value, headers = message.key(), message.value(), message.headers() or ()
            records.append(InputRecord(topic, partition, offset, message.timestamp()[1], key, value, headers))
        elif error.code() == KafkaError._PARTITION_EOF:
            next_offsets[partition] = offset
        else:
            errors.append(error)
    return Taken(records, next_offsets, errors)
