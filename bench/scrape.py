"""What a scrape costs with many instruments: time, series, bytes; the daemon's own registry, no Kafka.

python -m bench.scrape [--instruments N ...]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from bench.rig import bench_bundle, computer, made_ticks, median
from daemon.assembly import Engine, build_engine
from daemon.config import Settings
from daemon.core.records import InputRecord

#: Enough that the first thousand instruments have full rings of forecasts.
TICKS_PER_INSTRUMENT = 40
BATCH = 2000
ROUNDS = 30


def fill(engine: Engine, instruments: int) -> None:
    """Let the engine answer ticks of so many instruments, batch by batch, as the loop does."""
    engine.pipeline.assign(0)
    records = [
        InputRecord("ticks", 0, offset, -1, None, orjson.dumps(tick))
        for offset, tick in enumerate(made_ticks(instruments * TICKS_PER_INSTRUMENT, instruments))
    ]
    for at in range(0, len(records), BATCH):
        batch = engine.pipeline.advance(records[at : at + BATCH])
        batch.timestamps = [round(time.time() * 1000)] * len(batch.timestamps)
        engine.metrics.committed(batch, time.time())


def measure(bundle: Path, instruments: int) -> dict[str, Any]:
    """Return what a scrape of a daemon with so many instruments costs."""
    engine = build_engine(Settings(model={"bundle": bundle}))  # type: ignore[arg-type]
    fill(engine, instruments)
    taken, exposition = {}, b""
    for name, generate in (("text", generate_latest), ("openmetrics", generate_openmetrics)):
        times, began = [], time.thread_time()
        for _ in range(ROUNDS):
            started = time.perf_counter()
            exposition = generate(engine.registry)
            times.append(time.perf_counter() - started)
        seconds = {
            "median": median(times),
            "worst": max(times),
            "processor_time": (time.thread_time() - began) / ROUNDS,
        }
        taken[name] = {f"{key}_ms": round(1000 * value, 1) for key, value in seconds.items()}
    series = sum(not line.startswith(b"#") for line in exposition.splitlines())
    return {"instruments": instruments, "series": series, "bytes": len(exposition), **taken}


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruments", type=int, nargs="+", default=[10, 5000])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = bench_bundle(Path(folder)).path
        found = [measure(bundle, instruments) for instruments in options.instruments]
    print(json.dumps({"machine": computer("numpy", "prometheus-client"), "scrapes": found}, indent=2))


if __name__ == "__main__":
    main()
