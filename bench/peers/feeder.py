"""Ticks for contestants: a stock to work off, or a steady rate from a process of its own.

On librdkafka, whichever client is measured: what the sender takes of two cores is missing to everybody alike.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from confluent_kafka import Producer

from bench.feed import EARLY_SECONDS
from bench.rig import PARTITIONS, made_ticks
from daemon.dev.replay import partition_of

INSTRUMENTS = 500
#: Idempotent, because a retry would else put later ticks before earlier ones; a queue that holds any stock.
SETTINGS = {"linger.ms": 1, "enable.idempotence": True, "queue.buffering.max.messages": 1_000_000, "log_level": 3}


def send(bootstrap: str, topic: str, ticks: Iterable[Mapping[str, Any]], rate: int | None = None) -> None:
    """Send ticks, at a rate if there is one; those are stamped as they are sent."""
    producer = Producer({"bootstrap.servers": bootstrap, **SETTINGS})
    partitions: dict[str, int] = {}
    started = time.perf_counter()
    for n, tick in enumerate(ticks):
        if rate is not None:
            wait = started + n / rate - time.perf_counter()
            if wait > EARLY_SECONDS:
                time.sleep(wait)
            tick = {**tick, "ts": time.time_ns()}
        name = tick["instrument"]
        if name not in partitions:
            partitions[name] = partition_of(name, PARTITIONS)
        producer.produce(topic, orjson.dumps(tick), name, partitions[name])
        producer.poll(0)
    producer.flush()


def feeding(bootstrap: str, topic: str, rate: int, count: int) -> subprocess.Popen[bytes]:
    """Send so many ticks at a rate from a process of its own; as a context manager it is waited for."""
    arguments = ["--bootstrap", bootstrap, "--topic", topic, "--rate", str(rate), "--count", str(count)]
    return subprocess.Popen([sys.executable, "-m", "bench.peers.feeder", *arguments])


def main() -> None:
    """Send ticks at a rate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    ticks = made_ticks(options.count, INSTRUMENTS, seed=options.rate)
    send(options.bootstrap, options.topic, ticks, options.rate)


if __name__ == "__main__":
    main()
