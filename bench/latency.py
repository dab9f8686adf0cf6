"""End-to-end latency at a steady rate: from a tick's Kafka timestamp to its forecast in the hands of a `read_committed`
consumer that takes messages one by one (one that gathers batches would measure itself).

    python -m bench.latency [--rate 1000] [--seconds 30]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bench.rig import PARTITIONS, Rig, bench_bundle, machine, made_ticks, rig
from daemon.dev.replay import partition_of

#: Left out at the start: first transactions create topics and caches.
WARM_UP_SECONDS = 3.0


def measure(on: Rig, bundle: Path, rate: int, seconds: float) -> dict[str, float]:
    """Return percentiles in milliseconds."""
    topics = on.topics("latency")
    daemon = on.daemon("latency", topics, bundle).start().wait_ready()
    consumer = KafkaConsumer(
        bootstrap_servers=on.bootstrap, isolation_level="read_committed", enable_auto_commit=False, fetch_max_wait_ms=20
    )
    consumer.assign([TopicPartition(topics.forecasts, partition) for partition in range(PARTITIONS)])
    consumer.seek_to_beginning()
    count = int(rate * (seconds + WARM_UP_SECONDS))
    command = [sys.executable, "-m", "bench.latency", "--produce", topics.ticks, "--to", on.bootstrap]
    producer = subprocess.Popen([*command, "--rate", str(rate), "--count", str(count)])
    latencies = []
    while len(latencies) < count:
        # A tick is stamped as it is sent, so the time its producer takes counts too.
        record = next(consumer)
        latencies.append(time.time_ns() - json.loads(record.value)["ts"])
    producer.wait()
    daemon.stop()
    consumer.close()
    settled = sorted(latencies[int(rate * WARM_UP_SECONDS) :])
    return {
        "ticks": len(settled),
        "rate": rate,
        **{f"p{p}": settled[int(len(settled) * p / 100)] / 1e6 for p in (50, 90, 99)},
    }


def produce(bootstrap: str, topic: str, rate: int, count: int) -> None:
    """Send ticks at a steady rate, each stamped as it is sent."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=2, acks=1, enable_idempotence=False)
    started = time.perf_counter()
    for n, tick in enumerate(made_ticks(count, 500)):
        wait = started + n / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        tick["ts"] = time.time_ns()
        key = tick["instrument"].encode()
        producer.send(topic, json.dumps(tick).encode(), key, partition=partition_of(tick["instrument"], PARTITIONS))
    producer.flush()


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--produce", help=argparse.SUPPRESS)
    parser.add_argument("--to", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.produce:
        produce(options.to, options.produce, options.rate, options.count)
        return
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        result = measure(on, bench_bundle(Path(folder)).path, options.rate, options.seconds)
    print(json.dumps({"machine": machine(), **result}, indent=2))


if __name__ == "__main__":
    main()
