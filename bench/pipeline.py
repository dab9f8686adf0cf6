"""Where a tick's time goes in the pipeline, without Kafka, stage by stage; beside other checkouts, turn by turn.

    python -m bench.pipeline DOCUMENT --ticks FILE [--beside ROOT...] [--rounds R]

Writes a table between the markers `pipeline` of the document. A checkout where `make compile` was run has one figure
only: nothing can be measured inside of machine code.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.rig import machine, median, write_section

ROOT = Path(__file__).parents[1]
STAGES = ("decoding", "order, session, features", "model inputs", "plan and step", "scores and intervals", "payloads")
#: Runs in a process of its own on the code of any checkout since the first release, hence by the names of its parts.
CODE = """
import gc, json, sys, tempfile, time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from bench.rig import bench_bundle, made_ticks, real_ticks
from bench.scoring import BATCH_TICKS, COVERAGE, LIMITS, records_of
from daemon.core import pipeline
from daemon.core.sessions import Never, Rules
from daemon.model.selftest import self_test

now, spent = time.process_time, defaultdict(float)

def timed(name, call):
    def run(*arguments, **options):
        began = now()
        try:
            return call(*arguments, **options)
        finally:
            spent[name] += now() - began
    return run

def watch(made, step):
    runner = made._runner
    made._decoder = SimpleNamespace(decode=timed("decode", made._decoder.decode), framed_count=0)
    made._accept, made._write = timed("accept", made._accept), timed("write", made._write)
    runner._features = SimpleNamespace(inputs=timed("inputs", runner._features.inputs))
    runner._scorer = SimpleNamespace(run=timed("scores", runner._scorer.run))
    runner.run = timed("runner", runner.run)

def stages(ticks):
    accept, rest = spent["accept"] - spent["decode"], spent["runner"] - spent["inputs"] - spent["scores"]
    parts = spent["decode"], accept, spent["inputs"], rest, spent["scores"], spent["write"]
    return [1e6 * part / ticks for part in parts]

def measure(records, bundle, step, inside):
    made = pipeline.Pipeline(bundle.spec, step, Rules((), Never()), pipeline.PipelineOptions(LIMITS, coverage=COVERAGE))
    made.assign(0)
    batches = [records[start : start + BATCH_TICKS] for start in range(0, len(records), BATCH_TICKS)]
    warm, rest = batches[: len(batches) // 5], batches[len(batches) // 5 :]
    for batch in warm:
        made.advance(batch)
    if inside:
        watch(made, step)
    spent.clear()
    began = now()
    for batch in rest:
        made.advance(batch)
    ticks = sum(map(len, rest))
    return stages(ticks) if inside else 1e6 * (now() - began) / ticks

gc.set_threshold(50_000, 20, 20)
count, file = int(sys.argv[1]), sys.argv[2]
found = {}
with tempfile.TemporaryDirectory() as folder:
    bundle = bench_bundle(Path(folder))
    step = self_test(bundle)
    sources = {"500 instruments": made_ticks(count, 500), "real file": real_ticks(Path(file), count)}
    for name, ticks in sources.items():
        records = records_of(ticks)
        gc.collect()
        gc.freeze()
        found[name] = {"total": measure(records, bundle, step, False)}
        if pipeline.__file__.endswith(".py"):
            found[name]["stages"] = measure(records, bundle, step, True)
print(json.dumps(found))
"""


def measure(root: Path, count: int, ticks: Path) -> dict[str, Any]:
    """Measure the code of one checkout."""
    environment = os.environ | {"PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE, str(count), str(ticks.absolute())]
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def name_of(root: Path) -> str:
    """Name a checkout: its commit, and whether it is compiled."""
    commit = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    said = subprocess.run(commit, stdout=subprocess.PIPE, check=False).stdout.decode().strip() or root.name
    return f"{said}, compiled" if (root / "daemon/core/compiled.json").exists() else said


def table(roots: list[Path], runs: list[list[dict[str, Any]]]) -> str:
    """Write the medians."""
    names = [name_of(root) for root in roots]
    columns = [f"{source}: {name}" for source in runs[0][0] for name in names]
    found = [[run[source] for run in each] for source in runs[0][0] for each in runs]
    rows = [["whole", *(f"{median([run['total'] for run in runs]):.1f}" for runs in found)]]
    for at, stage in enumerate(STAGES):
        figures = (
            f"{median([run['stages'][at] for run in runs]):.1f}" if "stages" in runs[0] else "" for runs in found
        )
        rows.append([stage, *figures])
    head = ["", *columns]
    lines = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    note = (
        "Microseconds of processor time a tick, without Kafka; batches of 2,000; 2 x LSTM(64), the 14 default features,"
        f" 4 horizons. Measured {machine()}; `python -m bench.pipeline` measures it again."
    )
    return "\n\n" + note + "\n\n" + "\n".join(lines) + "\n\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("--ticks", type=Path, required=True)
    parser.add_argument("--beside", type=Path, nargs="*", default=[], metavar="ROOT")
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    roots = [*(root.absolute() for root in options.beside), ROOT]
    runs: list[list[dict[str, Any]]] = [[] for _ in roots]
    for _ in range(options.rounds):
        for root, found in zip(roots, runs, strict=True):
            found.append(measure(root, options.count, options.ticks))
    write_section(options.document, "pipeline", table(roots, runs))


if __name__ == "__main__":
    main()
