"""Time from `tickcast run` to ready, and resident memory then, without TensorFlow.

python -m bench.start [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import psutil

from bench.rig import Rig, bench_bundle, machine, median, rig


def measure(on: Rig, bundle: Path, rounds: int) -> dict[str, float]:
    """Return the median seconds to ready and the largest resident set, in MB."""
    seconds, resident = [], []
    for turn in range(rounds):
        topics = on.topics(f"start-{turn}")
        started = time.perf_counter()
        daemon = on.daemon(f"start-{turn}", topics, bundle).start().wait_ready()
        seconds.append(time.perf_counter() - started)
        process = psutil.Process(daemon.process.pid)
        assert not any("tensorflow" in mapped.path for mapped in process.memory_maps()), "TensorFlow was imported"
        resident.append(process.memory_info().rss / 1e6)
        daemon.stop()
    return {"ready_seconds": median(seconds), "resident_mb": max(resident)}


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        result = measure(on, bench_bundle(Path(folder)).path, options.rounds)
    print(json.dumps({"machine": machine(), **result}, indent=2))


if __name__ == "__main__":
    main()
