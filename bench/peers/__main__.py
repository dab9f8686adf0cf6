"""tickcast and its peers on one broker, each alone, turn by turn; and the page that says what came of it.

    python -m bench.peers run [--only KEY ...]     measures, and writes bench/peers/results/DATE.json
    python -m bench.peers report                   writes table and plots from the newest of them
    python -m bench.peers make                     makes the environments and measures nothing

The environments are made on the first run (2 GB, most of it TensorFlow) and kept in `--cache`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.peers.environments import CACHE, java_of, python_of

if TYPE_CHECKING:
    from bench.peers.contestants import Contestant

RESULTS = Path(__file__).parent / "results"
#: Not among the results, where a report would look for the newest.
QUICK_RESULT = Path(tempfile.gettempdir()) / "tickcast-peers-quick.json"


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="measure")
    running.add_argument("--quick", action="store_true", help="a smoke: few ticks, figures that mean nothing")
    running.add_argument("--only", nargs="+", metavar="KEY", help="these contestants alone")
    running.add_argument("--out", type=Path, help="the result file; by default one named by the date")
    making = commands.add_parser("make", help="make the environments")
    for each in (running, making):
        each.add_argument("--cache", type=Path, default=CACHE)
    reporting = commands.add_parser("report", help="write table and plots into the documents")
    reporting.add_argument("--results", type=Path, help="a result file; by default the newest")
    options = parser.parse_args()
    if options.command == "make":
        make(options.cache)
    elif options.command == "run":
        run(options)
    else:
        from bench.peers.report import report

        report(options.results or max(RESULTS.glob("*.json")))


def make(cache: Path) -> None:
    """Make every environment."""
    from bench.peers.contestants import PROGRAMS

    for peer in PROGRAMS:
        python_of(peer, cache)
    java_of(cache)


def run(options: argparse.Namespace) -> None:
    """Measure, and write the results as they come."""
    from bench.peers.measure import QUICK, Sizes, measure
    from bench.rig import bench_bundle, computer, rig
    from daemon.dev.broker_java import KAFKA_VERSION

    chosen = contestants(options.only)
    make(options.cache)
    out = options.out or (QUICK_RESULT if options.quick else RESULTS / f"{datetime.now(UTC).date()}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    software = f"{computer('kafka-python', 'confluent-kafka', 'numpy')}, Apache Kafka {KAFKA_VERSION}"
    found: dict[str, Any] = {"machine": f"{software}, {os.cpu_count()} cores", "quick": options.quick, "lines": []}
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        bundle = bench_bundle(Path(folder)).path
        for each in chosen:
            try:
                figures = measure(on, each, bundle, options.cache, QUICK if options.quick else Sizes())
            except (Exception, SystemExit) as error:  # the others are still worth their time
                failed.append(each.key)
                print(f"{each.key}: {error!r}", file=sys.stderr)
                continue
            print(json.dumps(figures), file=sys.stderr)
            said = {"key": each.key, "name": each.name, "guarantee": each.guarantee, "setting": each.setting}
            found["lines"].append(said | figures)
            out.write_text(json.dumps(found, indent=2), "utf-8")
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")
    print(f"written: {out}", file=sys.stderr)


def contestants(only: Sequence[str] | None) -> list[Contestant]:
    """Return those that are asked for and can take part, and say who cannot."""
    from bench.peers.contestants import CONTESTANTS

    keys = [each.key for each in CONTESTANTS]
    unknown = sorted(set(only or ()) - set(keys))
    if unknown:
        raise SystemExit(f"--only {' '.join(unknown)}: known are {', '.join(keys)}")
    chosen = [each for each in CONTESTANTS if not only or each.key in only]
    for each in chosen:
        if each.missing:
            print(f"{each.key}: left out, {each.missing}", file=sys.stderr)
    return [each for each in chosen if not each.missing]


if __name__ == "__main__":
    main()
