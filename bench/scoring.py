"""What scoring and intervals cost: the pipeline with them against the same without, turn by turn in one process.

    python -m bench.scoring [--ticks FILE] [--count N] [--rounds R]

"Fixed" publishes intervals that never move, as a bundle's own residual quantiles give them: what intervals cost without
any scoring. "Without" publishes none.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from bench.rig import bench_bundle, machine, made_ticks, median, real_ticks
from daemon.cli.run import GC_THRESHOLD
from daemon.core.forecast import Forecaster, Levels, Outlook
from daemon.core.intake import OrderLimits
from daemon.core.pipeline import Pipeline, PipelineOptions
from daemon.core.records import InputRecord
from daemon.core.scores import WIDTH, Scorer
from daemon.core.sessions import Never, Rules
from daemon.model.bundle import Bundle
from daemon.model.selftest import self_test

BATCH_TICKS = 2000
LIMITS = OrderLimits(future_skew_ns=2**62, max_lateness_ns=0, seq_restart_ns=300 * 10**9)
COVERAGE = 0.9


class Fixed(Scorer):
    """Gives every row the corrections that an instrument starts with."""

    def run(self, rows: Sequence[Any], outlook: Outlook, broken: Any) -> tuple[Levels, list[Any]]:
        scores = self.start()
        self.look(scores)
        corrections = np.repeat(np.array(scores.corrections).reshape(1, -1, WIDTH), len(rows), axis=0)
        return self._forecaster.levels(outlook, corrections), []


class Without(Scorer):
    """Gives no row an interval."""

    def run(self, rows: Sequence[Any], outlook: Outlook, broken: Any) -> tuple[Levels, list[Any]]:
        mean = outlook.mean
        return Levels(mean, mean, mean, mean, np.zeros(len(rows), np.bool_), outlook.price), []


KINDS: dict[str, type[Scorer]] = {"scored": Scorer, "fixed": Fixed, "without": Without}


def records_of(ticks: Iterable[Mapping[str, Any]]) -> list[InputRecord]:
    """Return the ticks as one partition of a topic."""
    return [
        InputRecord("ticks", 0, offset, -1, str(tick["instrument"]).encode(), orjson.dumps(tick))
        for offset, tick in enumerate(ticks)
    ]


def measure(bundle: Bundle, records: Sequence[InputRecord], rounds: int) -> dict[str, float]:
    """Take turns batch by batch, so that what else the machine does meets all alike; return microseconds and ratios."""
    step = self_test(bundle)
    batches = [records[start : start + BATCH_TICKS] for start in range(0, len(records), BATCH_TICKS)]
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        pipelines = {}
        for kind, scorer in KINDS.items():
            made = Pipeline(bundle.spec, step, Rules((), Never()), PipelineOptions(LIMITS, coverage=COVERAGE))
            made.assign(0)
            made._runner._scorer = scorer(Forecaster(bundle.spec, COVERAGE))
            pipelines[kind] = made
        spent = dict.fromkeys(KINDS, 0.0)
        for batch in batches:
            for kind, made in pipelines.items():
                began = time.process_time()
                made.advance(batch)
                spent[kind] += time.process_time() - began
        for kind in KINDS:
            seconds[kind].append(spent[kind])
    ratios = {kind: median([a / b for a, b in zip(seconds["scored"], seconds[kind], strict=True)]) for kind in KINDS}
    return {
        "ticks": len(records),
        **{f"{kind}, us a tick": 1e6 * median(seconds[kind]) / len(records) for kind in KINDS},
        "throughput against fixed": 1 / ratios["fixed"],
        "throughput against without": 1 / ratios["without"],
    }


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=Path, help="a real tick file")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    gc.set_threshold(GC_THRESHOLD, 20, 20)  # as the daemon does
    result: dict[str, object] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder:
        bundle = bench_bundle(Path(folder))
        result["500 instruments"] = measure(bundle, records_of(made_ticks(options.count, 500)), options.rounds)
        if options.ticks:
            real = records_of(real_ticks(options.ticks, options.count))
            result["real file"] = measure(bundle, real, options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
