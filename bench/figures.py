"""Runs every benchmark and writes their figures into the README, between its markers.

python -m bench.figures README.md --ticks FILE
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures -->\n", "<!-- /figures -->"


def run(module: str, *arguments: str) -> dict[str, Any]:
    """Run one benchmark as its own process, and return what it prints."""
    print(f"{module} ...", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(ticks: Path) -> str:
    """Measure everything and write the section."""
    through = run("bench.throughput", "--ticks", str(ticks))
    latency = run("bench.latency")
    start = run("bench.start")
    real = run("bench.real_ticks", str(ticks))
    made, on_file = through["500 instruments"], through["real file"]
    equal = "equal" if real["payloads equal"] else "NOT equal"
    rows = [
        (
            "throughput, exactly once, of a bare kafka-python loop's: 500 instruments",
            f"{made['ratio']:.0%} ({made['tickcast']:,.0f} of {made['bare']:,.0f} ticks/s)",
            "python -m bench.throughput",
        ),
        (
            "the same on the real file, six instruments",
            f"{on_file['ratio']:.0%} ({on_file['tickcast']:,.0f} of {on_file['bare']:,.0f} ticks/s)",
            "python -m bench.throughput --ticks FILE",
        ),
        (
            f"end to end at {latency['rate']:,} ticks/s, committed: p50, p90, p99",
            percentiles(latency["tickcast"]),
            "python -m bench.latency",
        ),
        (
            "the same through a bare exactly-once relay in kafka-python, the floor of client and machine",
            percentiles(latency["bare relay"]),
            "python -m bench.latency",
        ),
        (
            "`tickcast run`: ready after, resident memory",
            f"{start['ready_seconds']:.1f} s, {start['resident_mb']:.0f} MB",
            "python -m bench.start",
        ),
        (
            "real ticks through Kafka, a model trained on their first half: outcomes of ticks",
            f"{real['outcomes']:,} of {real['ticks']:,}",
            "python -m bench.real_ticks FILE",
        ),
        (
            f"payloads of the first {real['one by one']:,}, one tick a batch against 2,000",
            f"{equal}, byte for byte",
            "python -m bench.real_ticks FILE",
        ),
    ]
    lines = [f"| {what} | {figure} | `{command}` |" for what, figure, command in rows]
    note = (
        "2 x LSTM(64), the 14 default features, 4 horizons; one process, one broker, 2 cores shared by all of it. The"
        " ratio is what carries over to other machines: the bare loop consumes the same ticks and produces as many"
        " records as large"
        f", without transactions. Measured {through['machine']}; `python -m bench.figures README.md --ticks FILE`"
        " measures all of it again."
    )
    return "\n".join(["\n## Figures\n", note, "\n| what | figure | command |\n|---|---|---|", *lines, "\n"])


def percentiles(found: dict[str, float]) -> str:
    """Write p50, p90 and p99."""
    return ", ".join(f"{found[p]:.1f}" for p in ("p50", "p90", "p99")) + " ms"


def main() -> None:
    """Write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("--ticks", type=Path, required=True)
    options = parser.parse_args()
    head, _, rest = options.document.read_text("utf-8").partition(BEGIN)
    _, _, tail = rest.partition(END)
    options.document.write_text(head + BEGIN + table(options.ticks) + END + tail, "utf-8")


if __name__ == "__main__":
    main()
