"""Throughput, exactly once, against a bare kafka-python loop that consumes the same ticks and produces as many records
of the same size: its rate is the ceiling of the client.

    python -m bench.throughput [--ticks FILE] [--count N] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import cycle
from pathlib import Path

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bench.rig import PARTITIONS, Rig, bench_bundle, machine, made_ticks, median, real_ticks, rig, wait_for_ticks

BATCH_TICKS = 2000
#: Share of the ticks after which the clock starts, for either side: first transactions and fetches are no steady state.
WARM_UP = 0.2


def bare_rate(on: Rig, name: str, ticks: str, count: int, payloads: list[bytes]) -> float:
    """Consume `count` ticks and produce a record for each, without transactions; return ticks per second."""
    out = on.topics(name, ticks).forecasts
    consumer = KafkaConsumer(
        bootstrap_servers=on.bootstrap, enable_auto_commit=False, fetch_max_wait_ms=20, auto_offset_reset="earliest"
    )
    consumer.assign([TopicPartition(ticks, partition) for partition in range(PARTITIONS)])
    producer = KafkaProducer(
        bootstrap_servers=on.bootstrap, compression_type="lz4", linger_ms=100, batch_size=256 * 1024, acks="all"
    )
    producer.partitions_for(out)
    values, done, warm, started = cycle(payloads), 0, 0, 0.0
    while done < count:
        for records in consumer.poll(200, max_records=BATCH_TICKS).values():
            for record in records:
                producer.send(out, next(values), record.key, partition=record.partition)
            done += len(records)
        producer.flush()
        if not warm and done >= WARM_UP * count:
            warm, started = done, time.perf_counter()
    seconds = time.perf_counter() - started
    consumer.close()
    producer.close()
    return (done - warm) / seconds


def tickcast_rate(on: Rig, name: str, ticks: str, count: int, bundle: Path) -> tuple[float, list[bytes]]:
    """Run the daemon over the ticks; return ticks per second, by the times of its records, and some payloads."""
    topics = on.topics(name, ticks)
    daemon = on.daemon(name, topics, bundle, max_batch_ticks=BATCH_TICKS).start().wait_ready()
    wait_for_ticks(daemon, count)
    daemon.stop()
    records = list(on.read(topics.forecasts))
    times = sorted(record.timestamp for record in records)
    assert len(records) == count, f"{len(records)} forecasts for {count} ticks"
    warm = times[int(WARM_UP * count) :]
    return len(warm) / ((warm[-1] - warm[0]) / 1000), [r.value for r in records[:BATCH_TICKS]]


def measure(on: Rig, label: str, source: object, bundle: Path, rounds: int) -> dict[str, float]:
    """Take turns, and return median rates and the median ratio."""
    on.topics(f"{label}-in")
    ticks = f"{label}-in-ticks"
    count = on.fill(ticks, source)  # type: ignore[arg-type]
    bare, ours = [], []
    for turn in range(rounds):
        rate, payloads = tickcast_rate(on, f"{label}-tickcast-{turn}", ticks, count, bundle)
        ours.append(rate)
        bare.append(bare_rate(on, f"{label}-bare-{turn}", ticks, count, payloads))
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    return {"ticks": count, "tickcast": median(ours), "bare": median(bare), "ratio": median(ratios)}


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=Path, help="a real tick file")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result: dict[str, object] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        bundle = bench_bundle(Path(folder)).path
        result["500 instruments"] = measure(on, "made", made_ticks(options.count, 500), bundle, options.rounds)
        if options.ticks:
            real = real_ticks(options.ticks, options.count)
            result["real file"] = measure(on, "real", real, bundle, options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
