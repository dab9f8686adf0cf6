"""Throughput, exactly once, by each client, against a bare loop of the same client that consumes the same ticks and
produces as many records of the same size, without transactions: its rate is the ceiling of the client.

    python -m bench.throughput [--client NAME]... [--ticks FILE] [--count N] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bench.rig import (
    CLIENTS,
    PARTITIONS,
    Rig,
    bench_bundle,
    machine,
    made_ticks,
    median,
    real_ticks,
    rig,
    wait_for_ticks,
)

BATCH_TICKS = 2000
#: Share of the ticks after which the clock starts, for either side: first transactions and fetches are no steady state.
WARM_UP = 0.2

#: A bare loop: one turn, which returns how many ticks it passed on, and its end.
Bare = tuple[Callable[[], int], Callable[[], None]]


def bare_rate(on: Rig, name: str, client: str, ticks: str, count: int, payloads: list[bytes]) -> float:
    """Consume `count` ticks and produce a record for each, without transactions; return ticks per second."""
    out = on.topics(name, ticks).forecasts
    turn, close = (bare_librdkafka if client == "librdkafka" else bare_kafka_python)(on, ticks, out, cycle(payloads))
    done, warm, started = 0, 0, 0.0
    while done < count:
        done += turn()
        if not warm and done >= WARM_UP * count:
            warm, started = done, time.perf_counter()
    seconds = time.perf_counter() - started
    close()
    return (done - warm) / seconds


def bare_kafka_python(on: Rig, ticks: str, out: str, values: Iterator[bytes]) -> Bare:
    """Return the loop on kafka-python."""
    consumer = KafkaConsumer(
        bootstrap_servers=on.bootstrap, enable_auto_commit=False, fetch_max_wait_ms=20, auto_offset_reset="earliest"
    )
    consumer.assign([TopicPartition(ticks, partition) for partition in range(PARTITIONS)])
    producer = KafkaProducer(
        bootstrap_servers=on.bootstrap, compression_type="lz4", linger_ms=100, batch_size=256 * 1024, acks="all"
    )
    producer.partitions_for(out)

    def turn() -> int:
        done = 0
        for records in consumer.poll(200, max_records=BATCH_TICKS).values():
            for record in records:
                producer.send(out, next(values), record.key, partition=record.partition)
            done += len(records)
        producer.flush()
        return done

    def close() -> None:
        consumer.close()
        producer.close()

    return turn, close


def bare_librdkafka(on: Rig, ticks: str, out: str, values: Iterator[bytes]) -> Bare:
    """Return the loop on librdkafka."""
    import confluent_kafka

    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": on.bootstrap,
            "group.id": out,
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 20,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([confluent_kafka.TopicPartition(ticks, partition, 0) for partition in range(PARTITIONS)])
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": on.bootstrap,
            "compression.type": "lz4",
            "linger.ms": 1,
            "batch.size": 256 * 1024,
            "acks": "all",
            "enable.idempotence": True,
        }
    )
    producer.list_topics(out)

    def turn() -> int:
        first = consumer.poll(0.2)
        messages = [] if first is None else [first, *consumer.consume(BATCH_TICKS - 1, 0)]
        for message in messages:
            message.value()
            producer.produce(out, next(values), message.key(), message.partition())
        producer.flush()
        return len(messages)

    return turn, consumer.close


def tickcast_rate(on: Rig, name: str, client: str, ticks: str, count: int, bundle: Path) -> tuple[float, list[bytes]]:
    """Run the daemon over the ticks; return ticks per second, by the times of its records, and some payloads."""
    topics = on.topics(name, ticks)
    daemon = on.daemon(name, topics, bundle, client=client, max_batch_ticks=BATCH_TICKS).start().wait_ready()
    wait_for_ticks(daemon, count)
    daemon.stop()
    records = list(on.read(topics.forecasts))
    times = sorted(record.timestamp for record in records)
    assert len(records) == count, f"{len(records)} forecasts for {count} ticks"
    warm = times[int(WARM_UP * count) :]
    return len(warm) / ((warm[-1] - warm[0]) / 1000), [r.value for r in records[:BATCH_TICKS]]


def measure(
    on: Rig, label: str, source: Iterable[Mapping[str, Any]], bundle: Path, clients: Sequence[str], rounds: int
) -> dict[str, Any]:
    """Take turns, and return median rates and median ratios, to the bare loop and of the last client to the first."""
    on.topics(f"{label}-in")
    ticks = f"{label}-in-ticks"
    count = on.fill(ticks, source)
    ours: dict[str, list[float]] = {client: [] for client in clients}
    bare: dict[str, list[float]] = {client: [] for client in clients}
    for turn in range(rounds):
        for client in clients:
            name = f"{label}-{client}-{turn}"
            rate, payloads = tickcast_rate(on, name, client, ticks, count, bundle)
            ours[client].append(rate)
            bare[client].append(bare_rate(on, f"{name}-bare", client, ticks, count, payloads))
    found: dict[str, Any] = {"ticks": count}
    for client in clients:
        ratio = median_ratio(ours[client], bare[client])
        found[client] = {"tickcast": median(ours[client]), "bare": median(bare[client]), "ratio": ratio}
    first, last = clients[0], clients[-1]
    if first != last:
        found[f"{last} to {first}"] = median_ratio(ours[last], ours[first])
    return found


def median_ratio(some: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of the ratios, turn by turn."""
    return median([a / b for a, b in zip(some, others, strict=True)])


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=Path, help="a real tick file")
    parser.add_argument("--client", choices=CLIENTS, action="append", help="a client; all of them unless given")
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    clients = options.client or CLIENTS
    result: dict[str, object] = {"machine": machine(clients)}
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        bundle = bench_bundle(Path(folder)).path
        result["500 instruments"] = measure(on, "made", made_ticks(options.count, 500), bundle, clients, options.rounds)
        if options.ticks:
            real = real_ticks(options.ticks, options.count)
            result["real file"] = measure(on, "real", real, bundle, clients, options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
