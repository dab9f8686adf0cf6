"""Planned hand-over: a second instance joins, and leaves on SIGTERM, at 2,000 ticks/s and 10,000 instruments
(2 x LSTM(64)). The longest gap between committed forecasts, for the partitions that move and for those that stay,
beside the longest gap while nothing happens.

    python -m bench.handover [--instruments 10000] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from bench.feed import Feed, Mix, quotes
from bench.rig import PARTITIONS, Rig, bench_bundle, machine, median, rig, wait_for_ticks
from bench.watch import Watch
from daemon.dev.child import ChildDaemon

RATE = 2000
#: Before and after a change: each partition has had its checkpoint at the default interval.
SETTLE_SECONDS = 7.0
PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 0.05


def measure(on: Rig, bundle: Path, instruments: int, rounds: int) -> dict[str, Any]:
    """Let the second instance come and go; return the medians and the worst of the longest gaps."""
    name = "handover"
    topics = on.topics(name)
    mix = Mix(RATE, instruments)
    one, two = (on.daemon(name, topics, bundle, instance=instance) for instance in ("0", "1"))
    one.start().wait_ready()
    on.fill(topics.ticks, islice(quotes(mix), instruments))
    wait_for_ticks(one, instruments)
    kinds = ("quiet", "joins: move", "joins: stay", "leaves: move", "leaves: stay")
    gaps: dict[str, list[float]] = {kind: [] for kind in kinds}
    with Watch(on.bootstrap, topics.forecasts) as watch, Feed(on.bootstrap, topics.ticks, mix):
        for _ in range(rounds):
            time.sleep(SETTLE_SECONDS)
            begin = time.time()
            gaps["quiet"].append(max(watch.longest_gaps(begin - SETTLE_SECONDS / 2, begin)))
            two.start().wait_ready()
            wait_for_share(two, PARTITIONS // 2)
            moved = moved_to(two)
            note(gaps, "joins", watch, begin, moved)
            begin = time.time()
            two.stop()
            wait_for_share(one, PARTITIONS)
            note(gaps, "leaves", watch, begin, moved)
    one.stop()
    return {kind: {"median": median(found), "worst": max(found)} for kind, found in gaps.items()}


def note(gaps: dict[str, list[float]], change: str, watch: Watch, begin: float, moved: set[int]) -> None:
    """Note the longest gaps since `begin`, some time after the change."""
    time.sleep(SETTLE_SECONDS)
    found = watch.longest_gaps(begin, time.time())
    gaps[f"{change}: move"].append(max(found[partition] for partition in moved))
    gaps[f"{change}: stay"].append(max(found[partition] for partition in range(PARTITIONS) if partition not in moved))


def moved_to(daemon: ChildDaemon) -> set[int]:
    """Return the partitions that an instance got at its last start, from its log."""
    lines = [json.loads(line) for line in daemon.log.read_text("utf-8").splitlines() if line.startswith("{")]
    start = max(n for n, line in enumerate(lines) if line["message"] == "tickcast starts")
    return {
        partition
        for line in lines[start:]
        if line["message"] == "partitions assigned"
        for partition in line["partitions"]
    }


def wait_for_share(daemon: ChildDaemon, count: int) -> None:
    """Wait until an instance has so many partitions; a new one is ready before it has any."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while daemon.metrics()["tickcast_assigned_partitions"] != count:
        if time.monotonic() > deadline:
            raise SystemExit(f"the partitions were not shared out: {daemon.tail()}")
        time.sleep(LOOK_SECONDS)


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruments", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "rate": RATE, "instruments": options.instruments}
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        result |= measure(on, bench_bundle(Path(folder)).path, options.instruments, options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
