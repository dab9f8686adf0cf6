"""End-to-end latency at a steady rate: from the sending of a tick to its forecast in the hands of a `read_committed`
consumer that takes messages one by one (one that gathers batches would measure itself). Sender and reader are on
librdkafka, whichever client is measured: what they take of the cores is missing to it.

Beside it, in the same run, the same through a bare relay: a loop on the same client that consumes, produces records of
the same size and commits exactly once, with nothing in between. That is the floor of the client on this machine, whose
two cores the broker, the sender and the reader share.

    python -m bench.latency [--client NAME]... [--rate 1000] [--seconds 30]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata

from bench.peers.feeder import feeding
from bench.peers.outcomes import reading
from bench.rig import CLIENTS, IDLE_SECONDS, Rig, bench_bundle, machine, median, rig
from daemon.config import TopicSettings

#: Left out at the start: first transactions create topics and caches.
WARM_UP_SECONDS = 3.0


#: Size of a forecast of four horizons, bytes.
FORECAST_BYTES = 470


def tickcast(on: Rig, name: str, client: str, bundle: Path, rate: int, seconds: float) -> dict[str, float]:
    """Measure the daemon."""
    topics = on.topics(name)
    daemon = on.daemon(name, topics, bundle, client=client).start().wait_ready()
    found = measure(on, topics, rate, seconds, partial(feeding, on.bootstrap, topics.ticks, rate))
    daemon.stop()
    return found


def bare(on: Rig, name: str, client: str, rate: int, seconds: float) -> dict[str, float]:
    """Measure the relay."""
    topics = on.topics(name)
    with relaying(on, topics, client):
        return measure(on, topics, rate, seconds, partial(feeding, on.bootstrap, topics.ticks, rate))


@contextmanager
def relaying(on: Rig, topics: TopicSettings, client: str = CLIENTS[0]) -> Iterator[None]:
    """Run the relay in a process of its own."""
    command = [sys.executable, "-m", "bench.latency", "--client", client, "--to", on.bootstrap]
    relay = subprocess.Popen([*command, "--relay", topics.ticks, topics.forecasts])
    yield
    relay.terminate()
    relay.wait()


def measure(
    on: Rig, topics: TopicSettings, rate: int, seconds: float, sending: Callable[[int], AbstractContextManager[object]]
) -> dict[str, float]:
    """Send ticks, read what comes of them, and return percentiles in milliseconds.

    Parameters
    ----------
    sending : sends so many ticks at the rate, while its block runs
    """
    consumer = reading(on.bootstrap, topics.forecasts)
    count = int(rate * (seconds + WARM_UP_SECONDS))
    latencies: list[int] = []
    with sending(count):
        while len(latencies) < count:
            # A tick is stamped as it is sent, so the time its producer takes counts too.
            record = consumer.poll(IDLE_SECONDS)
            if record is None:
                raise SystemExit(f"{topics.forecasts} stands still at {len(latencies)} of {count}")
            if record.error() is None:
                latencies.append(time.time_ns() - json.loads(record.value())["ts"])
    consumer.close()
    settled = sorted(latencies[int(rate * WARM_UP_SECONDS) :])
    return {f"p{p}": settled[int(len(settled) * p / 100)] / 1e6 for p in (50, 90, 99)}


def relay_kafka_python(bootstrap: str, ticks: str, out: str) -> None:
    """Pass ticks on, exactly once, until told to stop."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=out,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=20,
    )
    consumer.subscribe([ticks])
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        transactional_id=out,
        compression_type="lz4",
        linger_ms=100,
        batch_size=256 * 1024,
        retry_backoff_ms=2,
    )
    producer.init_transactions()
    while True:
        fetched = consumer.poll(200, max_records=2000)
        if not fetched:
            continue
        producer.begin_transaction()
        for records in fetched.values():
            for record in records:
                producer.send(out, record.value.ljust(FORECAST_BYTES), record.key, partition=record.partition)
        producer.flush()
        offsets = {place: OffsetAndMetadata(consumer.position(place), "", -1) for place in fetched}
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        producer.commit_transaction()


def relay_librdkafka(bootstrap: str, ticks: str, out: str) -> None:
    """Pass ticks on, exactly once, until told to stop."""
    import confluent_kafka

    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": out,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
        }
    )
    consumer.subscribe([ticks])
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": out,
            "compression.type": "lz4",
            "linger.ms": 1,
            "retry.backoff.ms": 2,
        }
    )
    producer.init_transactions()
    while True:
        first = consumer.poll(0.2)
        if first is None or first.error():
            continue
        producer.begin_transaction()
        offsets = {}
        for message in [first, *consumer.consume(1999, 0)]:
            partition = message.partition()
            producer.produce(out, message.value().ljust(FORECAST_BYTES), message.key(), partition)
            offsets[partition] = confluent_kafka.TopicPartition(ticks, partition, message.offset() + 1)
        producer.send_offsets_to_transaction(list(offsets.values()), consumer.consumer_group_metadata())
        producer.commit_transaction()


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=CLIENTS, action="append", help="a client; all of them unless given")
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--relay", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--to", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.relay:
        relay = relay_librdkafka if options.client == ["librdkafka"] else relay_kafka_python
        relay(options.to, *options.relay)
    else:
        found = both(options.client or CLIENTS, options.rate, options.seconds, options.rounds)
        print(json.dumps(found, indent=2))


def both(clients: Sequence[str], rate: int, seconds: float, rounds: int) -> dict[str, object]:
    """Measure the daemon and the relay in turns on one broker; return the medians of their percentiles."""
    ours: dict[str, list[dict[str, float]]] = {client: [] for client in clients}
    floor: dict[str, list[dict[str, float]]] = {client: [] for client in clients}
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        bundle = bench_bundle(Path(folder)).path
        for turn in range(rounds):
            for client in clients:
                ours[client].append(tickcast(on, f"latency-{client}-{turn}", client, bundle, rate, seconds))
                floor[client].append(bare(on, f"relay-{client}-{turn}", client, rate, seconds))
    figures = {c: {"tickcast": medians(ours[c]), "bare relay": medians(floor[c])} for c in clients}
    return {"machine": machine(clients), "rate": rate, **figures}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each percentile over the rounds."""
    return {name: median([each[name] for each in rounds]) for name in rounds[0]}


if __name__ == "__main__":
    main()
