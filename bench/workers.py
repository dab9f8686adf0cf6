"""Throughput, exactly once, against the number of worker processes: `tickcast run --workers N` on the same backlog.

Broker, workers and all else share the cores of one machine, so the rate stops growing where these are used up. What
carries over is the processor time a tick: as long as that stays, another core is another share of the ticks.

    python -m bench.workers [--workers 1 2 3] [--count N] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from kafka.admin import KafkaAdminClient
from kafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError

from bench.rig import Rig, bench_bundle, machine, made_ticks, median, rig
from bench.throughput import WARM_UP
from daemon.config import TopicSettings
from daemon.dev.child import to_toml

INSTRUMENTS = 500
PATIENCE_SECONDS = 300.0
LOOK_SECONDS = 0.5
#: A new cluster makes the topic of its offsets when it is first asked.
NOT_YET = (CoordinatorNotAvailableError, CoordinatorLoadInProgressError)


def measure(on: Rig, bundle: Path, counts: list[int], ticks: int, rounds: int) -> dict[str, Any]:
    """Take turns; return the median rate and processor time a tick of every number of workers."""
    on.topics("workers-in")
    on.fill("workers-in-ticks", made_ticks(ticks, INSTRUMENTS))
    found: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for turn in range(rounds):
        for count in counts if turn % 2 == 0 else reversed(counts):
            name = f"workers-{count}-{turn}"
            topics = on.topics(name, "workers-in-ticks")
            found[count].append(run(on, name, topics, bundle, count, ticks))
    first = counts[0]
    return {
        "cores": os.cpu_count(),
        "ticks": ticks,
        **{
            str(count): {
                "ticks/s": median([rate for rate, _ in each]),
                "against": median([rate / base for (rate, _), (base, _) in zip(each, found[first], strict=True)]),
                "cpu us a tick": 1e6 * median([cpu for _, cpu in each]),
            }
            for count, each in found.items()
        },
    }


def run(on: Rig, name: str, topics: TopicSettings, bundle: Path, workers: int, ticks: int) -> tuple[float, float]:
    """Run so many workers over the backlog; return ticks per second, and the processor seconds of all a tick."""
    settings = on.settings(name, topics, bundle) | {"metrics": {"port": 0}}
    config = on.directory / f"{name}.toml"
    config.write_text(to_toml(settings), "utf-8")
    command = [sys.executable, "-m", "daemon.cli.main", "run", "--config", str(config), "--workers", str(workers)]
    with (on.directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        used = await_answers(on, name, ticks, process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    times = sorted(record.timestamp for record in on.read(topics.forecasts))
    assert len(times) == ticks, f"{len(times)} forecasts for {ticks} ticks"
    warm = times[int(WARM_UP * ticks) :]
    return len(warm) / ((warm[-1] - warm[0]) / 1000), used / ticks


def await_answers(on: Rig, group: str, count: int, process: subprocess.Popen[bytes]) -> float:
    """Wait until so many ticks are answered; return the processor seconds that all take, the start left out."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    first, before = 0, 0.0
    admin = KafkaAdminClient(bootstrap_servers=on.bootstrap)
    while (answered := answered_count(admin, group)) < count:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the workers stopped at {answered} of {count} ticks")
        if not first and answered >= WARM_UP * count:
            first, before = answered, processor_seconds(process.pid)
        time.sleep(LOOK_SECONDS)
    admin.close()
    return (processor_seconds(process.pid) - before) * count / (count - first)


def answered_count(admin: KafkaAdminClient, group: str) -> int:
    """Return how many ticks a group has committed; no transaction stands between them in their topic."""
    try:
        committed = admin.list_group_offsets({group: None})[group]
    except NOT_YET:
        return 0
    return sum(max(0, each.offset) for each in committed.values())


def processor_seconds(pid: int) -> float:
    """Return what a process and its children have used."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return sum(sum(each.cpu_times()[:2]) for each in family)


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        bundle = bench_bundle(Path(folder)).path
        found = measure(on, bundle, options.workers, options.count, options.rounds)
    print(json.dumps({"machine": machine(), **found}, indent=2))


if __name__ == "__main__":
    main()
