"""Many instruments in one process, without Kafka: what each costs in memory, and what a tick costs among so many.

Every size runs in a process of its own. A few instruments tick until their states are what they will always be; these
are then put back under as many names as are wanted, as a restart does it, and tick, drawn at random. The same ticks of
1,000 instruments run in turns with them, so that the ratio does not ask what else the machine does.

    rest       resident memory an instrument after it was put back
    awake      the same after every one of them has ticked and was saved
    a tick     processor time, against that among 1,000 instruments
    longest    of what stops the loop: a batch of 2,000, a collection of garbage, a checkpoint, ...

    python -m bench.wide [--instruments 1000 10000 100000 1000000] [--partitions 1 8] [--blocks B]
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import psutil

from bench.rig import bench_bundle, machine, median
from bench.scoring import LIMITS
from daemon.cli.run import GC_THRESHOLD
from daemon.core.pipeline import Pipeline, PipelineOptions
from daemon.core.records import InputRecord
from daemon.core.sessions import Never, Rules
from daemon.core.snapshot import Snapshot, decode
from daemon.core.step import Step
from daemon.model.bundle import Bundle
from daemon.model.selftest import self_test
from daemon.watched import LOOKED_AT_MAX

FEW = 1000
NAME = "INST"
#: Ticks until all horizons have as many forecasts waiting as they ever will: beyond the longest horizon, and a stride.
SEED_INSTRUMENTS, SEED_TICKS = 200, 64
BATCH_TICKS = 2000
#: Batches of one side before the other has its turn.
BLOCK = 10
#: Snapshots put back at a time, as `daemon.restore` does.
PIECE = 500
REVISION = "bench-wide00"
EVENT_TIME_NS = 1_700_000_000 * 10**9


class Market:
    """Ticks of `count` instruments spread over partitions, with offsets and times that go on.

    Instrument i has the past of the seed i modulo the seeds, so its quotes stay near that seed's.
    """

    def __init__(self, count: int, partitions: int) -> None:
        self._count = count
        self._partitions = partitions
        self._rng = random.Random(1)
        self.offsets = [0] * partitions

    def random(self) -> Iterator[InputRecord]:
        """Yield ticks of instruments drawn at random, without end."""
        while True:
            yield self.tick(self._rng.randrange(self._count))

    def each(self) -> Iterator[InputRecord]:
        """Yield a tick of every instrument."""
        return map(self.tick, range(self._count))

    def tick(self, index: int) -> InputRecord:
        """Return the next tick of an instrument."""
        partition = index % self._partitions
        offset = self.offsets[partition]
        self.offsets[partition] = offset + 1
        name, rng = name_of(index), self._rng
        mid = (100.0 + index % SEED_INSTRUMENTS) * (1 + rng.gauss(0, 1e-4))
        value = {
            "instrument": name,
            "ts": EVENT_TIME_NS + sum(self.offsets) * 1000,
            "bid": round(mid - 0.01, 4),
            "ask": round(mid + 0.01, 4),
            "bid_size": round(rng.expovariate(1), 3),
            "ask_size": round(rng.expovariate(1), 3),
        }
        return InputRecord("ticks", partition, offset, -1, name.encode(), orjson.dumps(value))


def name_of(index: int) -> str:
    """Return an instrument's name."""
    return f"{NAME}{index:07}"


def seeds(bundle: Bundle, step: Step) -> list[bytes]:
    """Return snapshots of instruments that have ticked for long enough."""
    market, pipeline = Market(SEED_INSTRUMENTS, 1), new_pipeline(bundle, step, 1, 0)
    for _ in range(SEED_TICKS):
        pipeline.advance(list(market.each()))
    return [m.value for m in pipeline.checkpoint(0, REVISION, market.offsets[0]) if m.value is not None]


def new_pipeline(bundle: Bundle, step: Step, partitions: int, saved_to: int) -> Pipeline:
    """Return a pipeline with its partitions, and room for any number of instruments."""
    options = PipelineOptions(LIMITS, instruments_per_partition_max=10**9)
    pipeline = Pipeline(bundle.spec, step, Rules((), Never()), options)
    for partition in range(partitions):
        pipeline.assign(partition, saved_to=saved_to)
    return pipeline


class Side:
    """A pipeline with so many instruments, and what was measured of it."""

    def __init__(self, bundle: Bundle, step: Step, count: int, partitions: int) -> None:
        self.count = count
        self.partitions = partitions
        begin = SEED_TICKS * SEED_INSTRUMENTS
        self.pipeline = new_pipeline(bundle, step, partitions, begin)
        self.market = Market(count, partitions)
        self.market.offsets = [begin] * partitions
        #: What stops the loop, longest of each kind, seconds.
        self.longest: dict[str, float] = {}

    def put_back(self, snapshots: Sequence[bytes]) -> float:
        """Take all instruments from snapshots; return processor seconds."""
        began = time.process_time()
        for partition in range(self.partitions):
            mine = iter(range(partition, self.count, self.partitions))
            while piece := list(islice(mine, PIECE)):
                self.pipeline.put_back(partition, [self._clone(snapshots, index) for index in piece])
            self.timed("settle", lambda partition=partition: self.pipeline.settle(partition))
        return time.process_time() - began

    def _clone(self, snapshots: Sequence[bytes], index: int) -> Snapshot:
        return decode(name_of(index), snapshots[index % SEED_INSTRUMENTS])

    def run(self, ticks: Iterator[InputRecord], batches: int) -> float:
        """Advance so many batches; return processor seconds, without the making of the ticks."""
        spent = 0.0
        for _ in range(batches):
            records = list(islice(ticks, BATCH_TICKS))
            spent += self.timed("batch", lambda records=records: self.pipeline.advance(records))
        return spent

    def save(self) -> tuple[int, float]:
        """Make a checkpoint of every partition; return snapshots and processor seconds."""
        count, spent = 0, 0.0
        for partition in range(self.partitions):
            offset, made = self.market.offsets[partition], []
            spent += self.timed(
                "checkpoint", lambda at=partition, to=offset, made=made: made.extend(self._checkpoint(at, to))
            )
            count += len(made)
            self.pipeline.checkpointed(partition, offset)
        return count, spent

    def _checkpoint(self, partition: int, offset: int) -> Sequence[Any]:
        return self.pipeline.checkpoint(partition, REVISION, offset)

    def timed(self, what: str, work: Callable[[], object]) -> float:
        """Do something that stops the loop; return its processor seconds."""
        began = time.process_time()
        work()
        spent = time.process_time() - began
        self.longest[what] = max(self.longest.get(what, 0.0), spent)
        return spent


class Collections:
    """Listens to the collector of garbage for the longest time that it stops everything, unless it was asked to."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._began = 0.0
        self.asked = False
        gc.callbacks.append(self._heard)

    def _heard(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = time.process_time()
        elif not self.asked:
            self.longest = max(self.longest, time.process_time() - self._began)

    def resident(self) -> int:
        """Return the resident memory without garbage, bytes."""
        self.asked = True
        gc.collect()
        self.asked = False
        return int(psutil.Process().memory_info().rss)


def measure(bundle: Bundle, count: int, partitions: int, blocks: int) -> dict[str, Any]:
    """Measure one size in this process."""
    step = self_test(bundle)
    snapshots = seeds(bundle, step)
    few = Side(bundle, step, FEW, partitions)
    few.put_back(snapshots)
    few.run(few.market.each(), FEW // BATCH_TICKS + 1)
    gc.collect()
    gc.freeze()  # as the daemon does before it recovers
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    collections = Collections()
    before = collections.resident()
    many = Side(bundle, step, count, partitions)
    seconds = many.put_back(snapshots)
    rest = collections.resident() - before
    turns = -(-count // BATCH_TICKS)
    each = many.market.each()
    for _ in range(turns):
        many.run(each, 1)
    saved, save_seconds = many.save()
    awake = collections.resident() - before
    spent: dict[str, list[float]] = {"few": [], "many": []}
    sides = {"few": (few, few.market.random()), "many": (many, many.market.random())}
    for turn in range(blocks):
        for kind in ("few", "many") if turn % 2 == 0 else ("many", "few"):
            side, ticks = sides[kind]
            spent[kind].append(side.run(ticks, BLOCK))
    many.timed("look of a scrape", lambda: len(many.pipeline.instruments(LOOKED_AT_MAX)))
    peak = peak_resident()
    many.timed("drop of a partition", lambda: many.pipeline.drop(0))
    ticks = BLOCK * BATCH_TICKS
    return {
        "instruments": count,
        "partitions": partitions,
        "rest, bytes an instrument": rest / count,
        "awake, bytes an instrument": awake / count,
        "resident, MB": (before + awake) / 1e6,
        "peak, MB": peak / 1e6,
        "put back, us": 1e6 * seconds / count,
        "snapshot, us": 1e6 * save_seconds / saved,
        "snapshot, bytes": sum(map(len, snapshots)) / len(snapshots),
        "us a tick": 1e6 * median(spent["many"]) / ticks,
        "against few": median([a / b for a, b in zip(spent["many"], spent["few"], strict=True)]),
        "longest, ms": {what: 1e3 * each for what, each in many.longest.items()}
        | {"garbage": 1e3 * collections.longest},
    }


def peak_resident() -> int:
    """Return the most memory that was ever resident, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Run every size in a process of its own and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruments", type=int, nargs="+", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--blocks", type=int, default=9, help="turns of either side")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        with tempfile.TemporaryDirectory() as folder:
            bundle = bench_bundle(Path(folder))
            (count,), (partitions,) = options.instruments, options.partitions
            print(json.dumps(measure(bundle, count, partitions, options.blocks)))
        return
    found = [alone(count, each, options.blocks) for count in options.instruments for each in options.partitions]
    print(json.dumps({"machine": machine(), "sizes": found}, indent=2))


def alone(count: int, partitions: int, blocks: int) -> dict[str, Any]:
    """Measure one size in a process of its own."""
    print(f"{count:,} instruments, {partitions} partitions ...", file=sys.stderr)
    arguments = ("--instruments", count, "--partitions", partitions, "--blocks", blocks, "--here")
    command = [sys.executable, "-m", "bench.wide", *map(str, arguments)]
    found: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return found


if __name__ == "__main__":
    main()
