"""What a tick and a snapshot cost the daemon, processor time, with one client; and what they take in the log.

The same ticks through a daemon that makes no checkpoint and one that makes many; the difference is what snapshots cost.
Instruments have ticked often before the clock starts, so that their snapshots are as large as they become.

    python -m bench.client_costs [--client kafka-python] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from bench.checkpoints import NONE, batch_end
from bench.feed import Mix, quotes
from bench.recovery import resident
from bench.rig import CLIENTS, PARTITIONS, Rig, bench_bundle, machine, median, rig
from daemon.dev.child import ChildDaemon

INSTRUMENTS = 5000
WARM_TICKS, STEADY_TICKS = 64 * INSTRUMENTS, 100_000
#: Share of the steady ticks after which the clock stops: the last batches are smaller.
UNTIL = 0.8
#: Every transaction holds the checkpoint of a partition: more than half a snapshot a tick.
MANY: dict[str, Any] = {"checkpoint_ticks": 1}


def measure(on: Rig, bundle: Path, client: str, rounds: int) -> dict[str, float]:
    """Take turns; return medians."""
    on.topics("costs-in")
    on.fill("costs-in-ticks", islice(quotes(Mix(1000, INSTRUMENTS)), WARM_TICKS + STEADY_TICKS))
    found: dict[str, list[float]] = {"tick_us": [], "snapshot_us": [], "forecast_bytes": [], "process_mb": []}
    for turn in range(rounds):
        plain = run(on, f"costs-none-{turn}", bundle, client, NONE)
        saving = run(on, f"costs-many-{turn}", bundle, client, MANY)
        found["tick_us"].append(plain["us a tick"])
        found["snapshot_us"].append((saving["us a tick"] - plain["us a tick"]) / saving["snapshots a tick"])
        found["forecast_bytes"].append(plain["bytes a forecast"])
        found["process_mb"].append(plain["started, MB"])
    tick_bytes = log_bytes(on, "costs-in-ticks") / (WARM_TICKS + STEADY_TICKS)
    return {"tick_bytes": tick_bytes, **{what: median(values) for what, values in found.items()}}


def run(on: Rig, name: str, bundle: Path, client: str, pipeline: dict[str, Any]) -> dict[str, float]:
    """Run a daemon over the ticks and measure the last of them."""
    topics = on.topics(name, "costs-in-ticks")
    daemon = on.daemon(name, topics, bundle, client=client, **pipeline).start().wait_ready()
    started = resident(daemon)["resident_mb"]
    begin = look(daemon, WARM_TICKS)
    end = look(daemon, WARM_TICKS + int(UNTIL * STEADY_TICKS))
    ticks, seconds, snapshots = (after - before for before, after in zip(begin, end, strict=True))
    forecasts = log_bytes(on, topics.forecasts) / end[0]
    daemon.kill()  # its last checkpoint is no part of this
    return {
        "us a tick": 1e6 * seconds / ticks,
        "snapshots a tick": snapshots / ticks,
        "bytes a forecast": forecasts,
        "started, MB": started,
    }


def look(daemon: ChildDaemon, count: int) -> tuple[float, float, float]:
    """Wait for the end of a batch after so many ticks; return ticks, processor seconds and snapshots so far."""
    _, ticks = batch_end(daemon, count)
    seconds = sum(psutil.Process(daemon.process.pid).cpu_times()[:2])
    return ticks, seconds, daemon.metrics()["tickcast_snapshots_total"]


def log_bytes(on: Rig, topic: str) -> int:
    """Return what a topic takes on the broker's disk."""
    folders = (folder for p in range(PARTITIONS) for folder in on.directory.rglob(f"{topic}-{p}"))
    return sum(segment.stat().st_size for folder in folders for segment in folder.glob("*.log"))


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=CLIENTS, default=CLIENTS[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        found = measure(on, bench_bundle(Path(folder)).path, options.client, options.rounds)
    print(json.dumps({"machine": machine(), "client": options.client, **found}, indent=2))


if __name__ == "__main__":
    main()
