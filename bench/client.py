"""What writing and reading cost through our transport and through kafka-python's own producer and consumer.

One process takes turns between both, against one broker: transactions of 30 and of 2,000 forecasts over four partitions
with the offsets of the group, then the reading of ticks. Figures are wall milliseconds and processor microseconds.

    python -m bench.client [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from bench.latency import FORECAST_BYTES
from bench.rig import PARTITIONS, Rig, machine, made_ticks, median, rig
from daemon.core.records import Message
from daemon.transport.connection import Connection
from daemon.transport.kafka_records import bring_ours
from daemon.transport.kafka_sink import KafkaSink
from daemon.transport.kafka_source import KafkaSource
from daemon.transport.port import Outgoing

TICKS = 50_000
#: Forecasts per transaction, and transactions per round.
SIZES = {30: 100, 2000: 20}

Commit = Callable[[Sequence[Message], int], None]


def committing(on: Rig) -> dict[str, Commit]:
    """Return both ways to write forecasts and one offset in a transaction, as members of the same group."""
    topics, connection = on.topics("client"), Connection(on.bootstrap)
    group = {"group_id": "client", "instance_id": "0"}
    source = KafkaSource(connection, topic=topics.ticks, **group)
    while not source.poll(0.2, 1).assigned:
        pass
    sink = KafkaSink(connection, topics={"forecasts": topics.forecasts}, ticks_topic=topics.ticks, **group)
    sink.open()
    producer = KafkaProducer(
        bootstrap_servers=on.bootstrap,
        transactional_id="client-bare",
        compression_type="lz4",
        linger_ms=100,
        batch_size=256 * 1024,
        retry_backoff_ms=2,
        metrics_enabled=False,
    )
    producer.init_transactions()

    def ours(messages: Sequence[Message], offset: int) -> None:
        sink.commit(Outgoing({"forecasts": messages}), {0: offset}, source.group_metadata())

    def bare(messages: Sequence[Message], offset: int) -> None:
        producer.begin_transaction()
        futures = [
            producer.send(topics.forecasts, message.value, message.key, partition=message.partition)
            for message in messages
        ]
        producer.flush()
        assert all(future.succeeded() for future in futures)
        positions = {TopicPartition(topics.ticks, 0): OffsetAndMetadata(offset, "", -1)}
        producer.send_offsets_to_transaction(positions, source.group_metadata())
        producer.commit_transaction()

    return {"tickcast": ours, "kafka-python": bare}


def forecasts(count: int) -> list[Message]:
    """Return messages of the size of forecasts, which compress as those do, by half."""
    rng = random.Random(1)
    half = FORECAST_BYTES // 2
    return [
        Message(n % PARTITIONS, b"INST%04d" % n, rng.randbytes(half // 2).hex().encode().ljust(FORECAST_BYTES))
        for n in range(count)
    ]


def write(commits: dict[str, Commit], count: int, transactions: int) -> dict[str, dict[str, float]]:
    """Return milliseconds a transaction and processor microseconds a record of each way."""
    messages, found = forecasts(count), {}
    for kind, commit in commits.items():
        times = []
        used = time.process_time()
        for offset in range(transactions):
            began = time.perf_counter()
            commit(messages, offset)
            times.append((time.perf_counter() - began) * 1e3)
        used = time.process_time() - used
        found[kind] = {"p50 ms": median(times), "cpu us a record": used / count / transactions * 1e6}
    return found


def reading(on: Rig, topic: str) -> dict[str, KafkaConsumer]:
    """Return a consumer of each kind, on all partitions of a topic."""
    consumers = {}
    for kind in ("tickcast", "kafka-python"):
        consumers[kind] = KafkaConsumer(
            bootstrap_servers=on.bootstrap,
            isolation_level="read_committed",
            fetch_max_wait_ms=20,
            metrics_enabled=False,
        )
        consumers[kind].assign([TopicPartition(topic, partition) for partition in range(PARTITIONS)])
    bring_ours(consumers["tickcast"])
    return consumers


def read(consumers: dict[str, KafkaConsumer]) -> dict[str, dict[str, float]]:
    """Return processor microseconds a tick of each consumer."""
    found = {}
    for kind, consumer in consumers.items():
        consumer.seek_to_beginning()
        used, count = time.process_time(), 0
        while count < TICKS:
            count += sum(map(len, consumer.poll(1000, max_records=2000).values()))
        found[kind] = {"cpu us a record": (time.process_time() - used) / count * 1e6}
    return found


def rounds_of(measure: Callable[[], dict[str, dict[str, float]]], rounds: int) -> dict[str, Any]:
    """Measure once for nothing and then in rounds; return medians, and how many times kafka-python takes as much."""
    measure()
    found = [measure() for _ in range(rounds)]
    names = list(found[0]["tickcast"])
    return {
        **{kind: {name: median([each[kind][name] for each in found]) for name in names} for kind in found[0]},
        "ratio": {
            name: median([each["kafka-python"][name] / each["tickcast"][name] for each in found]) for name in names
        },
    }


def figures(on: Rig, rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what was measured of each kind of work."""
    commits = committing(on)
    for count, transactions in SIZES.items():
        yield (
            f"transactions of {count} forecasts",
            rounds_of(lambda count=count, transactions=transactions: write(commits, count, transactions), rounds),  # type: ignore[misc]
        )
    topic = on.topics("read").ticks
    on.fill(topic, made_ticks(TICKS, 500))
    consumers = reading(on, topic)
    yield "reading of ticks", rounds_of(lambda: read(consumers), rounds)


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        print(json.dumps({"machine": machine(), **dict(figures(on, options.rounds))}, indent=2))


if __name__ == "__main__":
    main()
