"""What checkpoints cost: the daemon at their default interval against one that makes none, in turns on the same ticks.

Throughput with few and with many instruments (2 x LSTM(64)); the instruments take turns, so a checkpoint holds as many
snapshots as it can. Beside the rates the daemon's processor time a tick, which other load on the machine moves less.
End-to-end latency with 1,000 touched instruments a partition, beside a bare exactly-once relay.

    python -m bench.checkpoints [--instruments 1000 10000 100000] [--rounds R] [--seconds S] [--no-latency]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from bench.feed import Feed, Mix, quotes
from bench.latency import measure as measure_latency
from bench.latency import medians, relaying
from bench.rig import PARTITIONS, Rig, bench_bundle, machine, median, outcomes, rig
from daemon.config import TopicSettings
from daemon.dev.child import ChildDaemon

#: Settings under which no checkpoint falls into a run.
NONE: dict[str, Any] = {"checkpoint_seconds": 1e6, "checkpoint_ticks": 10**9}
#: Two checkpoints of each partition at the default interval, at some 15,000 ticks/s.
STEADY_TICKS = 150_000
#: Share of the steady ticks after which the clock stops: the last batches are smaller.
UNTIL = 0.8
#: Between two looks at the daemon's count, before it is where we want it and then. A look takes it some milliseconds.
FAR_SECONDS, NEAR_SECONDS = 0.3, 0.005
PATIENCE_SECONDS = 120.0
LATENCY_RATE = 1000
INSTRUMENTS_PER_PARTITION = 1000


def throughput(on: Rig, bundle: Path, instruments: int, rounds: int) -> dict[str, Any]:
    """Take turns; return median rates, processor times a tick, and what checkpoints cost of either."""
    name = f"checkpoints-{instruments}"
    on.topics(f"{name}-in")
    ticks = f"{name}-in-ticks"
    # Every instrument once, and what the first transactions take, before the clock starts.
    warm = max(instruments, STEADY_TICKS // 5)
    on.fill(ticks, islice(quotes(Mix(1000, instruments)), warm + STEADY_TICKS))
    rates: dict[str, list[float]] = {"with": [], "without": []}
    cpu_us: dict[str, list[float]] = {"with": [], "without": []}
    snapshots = []
    for turn in range(rounds):
        for kind in ("with", "without") if turn % 2 == 0 else ("without", "with"):
            settings = NONE if kind == "without" else {}
            run = f"{name}-{kind}-{turn}"
            daemon = on.daemon(run, on.topics(run, ticks), bundle, **settings).start().wait_ready()
            rate, cpu = measure(daemon, warm, warm + int(UNTIL * STEADY_TICKS))
            rates[kind].append(rate)
            cpu_us[kind].append(cpu * 1e6)
            if kind == "with":
                snapshots.append(daemon.metrics()["tickcast_snapshots_total"])
            daemon.kill()  # its last checkpoint is no part of this
    return {
        **{kind: median(values) for kind, values in rates.items()},
        "cost": 1 - median([a / b for a, b in zip(rates["with"], rates["without"], strict=True)]),
        "costs": [1 - a / b for a, b in zip(rates["with"], rates["without"], strict=True)],
        "cpu us a tick": {kind: median(values) for kind, values in cpu_us.items()},
        "cpu cost": 1 - median([b / a for a, b in zip(cpu_us["with"], cpu_us["without"], strict=True)]),
        "snapshots": median(snapshots),
    }


def measure(daemon: ChildDaemon, low: int, high: int) -> tuple[float, float]:
    """Return ticks per second, and processor seconds a tick, between two ends of batches after so many outcomes."""
    process = psutil.Process(daemon.process.pid)
    begun, first = batch_end(daemon, low)
    used = sum(process.cpu_times()[:2])
    ended, last = batch_end(daemon, high)
    used = sum(process.cpu_times()[:2]) - used
    return (last - first) / (ended - begun), used / (last - first)


def batch_end(daemon: ChildDaemon, count: int) -> tuple[float, float]:
    """Wait for so many outcomes, then for the end of the batch in work; return when that was, and the outcomes."""
    seen = look_until(daemon, lambda now: now >= count, FAR_SECONDS)
    now = look_until(daemon, lambda now: now > seen, NEAR_SECONDS)
    return time.perf_counter(), now


def look_until(daemon: ChildDaemon, enough: Callable[[float], bool], pause_seconds: float) -> float:
    """Look at the daemon's count of outcomes until it is enough, and return it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not enough(now := outcomes(daemon)):
        if time.monotonic() > deadline:
            raise SystemExit(f"the daemon stands at {now:.0f} ticks: {daemon.tail()}")
        time.sleep(pause_seconds)
    return now


def latency(on: Rig, bundle: Path, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure the daemon with and without checkpoints and the relay, in turns; return medians of their percentiles."""
    found: dict[str, list[dict[str, float]]] = {"with": [], "without": [], "bare relay": []}
    for turn in range(rounds):
        for kind, measured in found.items():
            topics = on.topics(f"latency-{kind.replace(' ', '-')}-{turn}")
            with answering(on, kind, topics, bundle):
                measured.append(measure_latency(on, topics, LATENCY_RATE, seconds, partial(feed, on, topics)))
    return {"rate": LATENCY_RATE, **{kind: medians(measured) for kind, measured in found.items()}}


@contextmanager
def answering(on: Rig, kind: str, topics: TopicSettings, bundle: Path) -> Iterator[None]:
    """Run what turns ticks into forecasts: the daemon or, as a floor, the relay."""
    if kind == "bare relay":
        with relaying(on, topics):
            yield
    else:
        settings = NONE if kind == "without" else {}
        daemon = on.daemon(topics.ticks, topics, bundle, **settings).start().wait_ready()
        yield
        daemon.stop()


def feed(on: Rig, topics: TopicSettings, count: int) -> Feed:
    """Send so many ticks of as many instruments as are to be touched."""
    mix = Mix(LATENCY_RATE, PARTITIONS * INSTRUMENTS_PER_PARTITION)
    return Feed(on.bootstrap, topics.ticks, mix, tick_count=count)


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruments", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement of latency")
    parser.add_argument("--no-latency", action="store_true")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        bundle = bench_bundle(Path(folder)).path
        for instruments in options.instruments:
            result[str(instruments)] = throughput(on, bundle, instruments, options.rounds)
        if not options.no_latency:
            result["latency"] = latency(on, bundle, options.seconds, options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
