"""Whether memory grows: hours at 2,000 ticks/s, with instruments that come and go and sessions that change, resident
memory at the end against that after ten minutes (after a sixth of the time, where that is less than an hour).

Prints both and their ratio, writes them into a document's section `soak` if there is one, and exits with 1 when memory
grew by more than 3 %.

    python -m bench.soak [--hours H | --minutes M] [--document README.md]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import psutil

from bench.feed import Feed, Mix, quotes
from bench.rig import Rig, bench_bundle, machine, rig, wait_for_ticks, write_section
from daemon.dev.child import ChildDaemon

#: Every second a hundred new instruments, every twenty seconds a session.
MIX = Mix(rate=2000, instruments=8000, newcomers_per_second=100, session_seconds=20)
#: Above their share of the instruments at any time, below that of all those of the warm-up: it ends with evictions.
INSTRUMENTS_PER_PARTITION_MAX = 2500
GROWTH_MAX = 0.03
AFTER_SECONDS = 600.0
#: Before the clock starts, as fast as they go: the largest batches and fetches have happened, whatever else a busy
#: machine leads to later; and some seconds of the steady rate with their checkpoints.
WARM_UP_TICKS = 100_000
WARM_UP_SECONDS = 10.0
SAMPLE_SECONDS = 1.0
#: A figure is the least of so many samples around its time: batches that gathered while the machine was busy widen the
#: heap for a while, by some 5 %; what is never let go raises the least as well.
SAMPLES = 21


@dataclass(frozen=True)
class Soaked:
    """Resident memory over a run, and what it went through."""

    early_mb: float
    end_mb: float
    metrics: dict[str, float]

    @property
    def ratio(self) -> float:
        """The end over the early value."""
        return self.end_mb / self.early_mb


def soak(on: Rig, bundle: Path, seconds: float) -> Soaked:
    """Run a daemon for so long after its warm-up, and compare."""
    topics = on.topics("soak")
    daemon = on.daemon("soak", topics, bundle, instruments_per_partition_max=INSTRUMENTS_PER_PARTITION_MAX)
    daemon.start().wait_ready()
    on.fill(topics.ticks, islice(quotes(MIX), WARM_UP_TICKS))
    wait_for_ticks(daemon, WARM_UP_TICKS)
    with Feed(on.bootstrap, topics.ticks, MIX, begin=WARM_UP_TICKS):
        time.sleep(WARM_UP_SECONDS)
        samples = list(resident(daemon, seconds))
        metrics = daemon.metrics()
    daemon.stop()
    early = int(early_seconds(seconds) / SAMPLE_SECONDS)
    around = samples[max(0, early - SAMPLES // 2) : early + SAMPLES // 2 + 1]
    return Soaked(min(around), min(samples[-SAMPLES:]), metrics)


def early_seconds(seconds: float) -> float:
    """Return after how much of a run memory is first looked at."""
    return min(AFTER_SECONDS, seconds / 6)


def resident(daemon: ChildDaemon, seconds: float) -> Iterable[float]:
    """Yield the resident memory, in MB, once every `SAMPLE_SECONDS`."""
    process = psutil.Process(daemon.process.pid)
    begun = time.monotonic()
    for n in range(1, int(seconds / SAMPLE_SECONDS) + 1):
        time.sleep(max(0.0, begun + n * SAMPLE_SECONDS - time.monotonic()))
        if process.status() == psutil.STATUS_ZOMBIE:
            raise SystemExit(f"the daemon ended: {daemon.tail()}")
        yield process.memory_info().rss / 1e6


def sentence(found: Mapping[str, Any]) -> str:
    """Write what was found for people."""
    early_minutes = early_seconds(found["seconds"]) / 60
    early, end, growth = found["resident_mb early"], found["resident_mb end"], found["ratio"] - 1
    return (
        f"\nSoaked for {found['seconds'] / 60:g} minutes at {MIX.rate:,} ticks/s, {MIX.newcomers_per_second} new "
        f"instruments a second and a session every {MIX.session_seconds} s: {end:.1f} MB resident at the end, "
        f"{early:.1f} MB after {early_minutes:.1f} minutes ({growth:+.1%}); {found['ticks']:,.0f} forecasts, "
        f"{found['evictions']:,.0f} evictions (`python -m bench.soak`, {found['machine']}).\n\n"
    )


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--hours", type=float, default=1.0)
    length.add_argument("--minutes", type=float)
    parser.add_argument("--document", type=Path)
    options = parser.parse_args()
    seconds = 3600 * options.hours if options.minutes is None else 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        found = soak(on, bench_bundle(Path(folder)).path, seconds)
    result = {
        "machine": machine(),
        "seconds": seconds,
        "resident_mb early": found.early_mb,
        "resident_mb end": found.end_mb,
        "ratio": found.ratio,
        "ticks": found.metrics['tickcast_ticks_total{outcome="forecast"}'],
        "evictions": found.metrics["tickcast_evictions_total"],
        "restored": found.metrics["tickcast_restore_seconds_count"],
    }
    print(json.dumps(result, indent=2))
    if options.document:
        write_section(options.document, "soak", sentence(result))
    sys.exit(found.ratio > 1 + GROWTH_MAX)


if __name__ == "__main__":
    main()
