"""Another model takes over at 2,000 ticks/s and 10,000 instruments (2 x LSTM(64)): the longest gap between committed
forecasts from the promotion until all partitions run it, how long that took, and the longest gap while nothing happens.

    python -m bench.switching [--rate 2000] [--instruments 10000] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from bench.feed import Feed, Mix, quotes
from bench.rig import COLUMNS, OUTPUTS, Rig, machine, median, rig, wait_for_ticks
from bench.watch import Watch
from daemon.dev.child import ChildDaemon, to_toml
from tests.bundles import tiny_bundle

#: Before and after a change: each partition has had its checkpoint at the default interval.
SETTLE_SECONDS = 7.0


def measure(on: Rig, folder: Path, rate: int, instruments: int, rounds: int) -> dict[str, Any]:
    """Let two models take turns; return the medians and the worst of the longest gaps."""
    name = "switching"
    topics, mix = on.topics(name), Mix(rate, instruments)
    bundles = [
        tiny_bundle(folder, units=64, layers=2, columns=COLUMNS, outputs=OUTPUTS, seed=n, name=f"bundle-{n}").path
        for n in range(2)
    ]
    settings = on.settings(name, topics, bundles[0])
    settings["model"]["bundles"] = str(folder / "bundles")
    config = folder / "switching.toml"
    config.write_text(to_toml(settings), "utf-8")
    daemon = ChildDaemon(on.directory, settings, name=name).start().wait_ready()
    on.fill(topics.ticks, islice(quotes(mix), instruments))
    wait_for_ticks(daemon, instruments)
    gaps: dict[str, list[float]] = {kind: [] for kind in ("quiet", "switch")}
    took = []
    with Watch(on.bootstrap, topics.forecasts) as watch, Feed(on.bootstrap, topics.ticks, mix):
        for n in range(rounds):
            time.sleep(SETTLE_SECONDS)
            begin = time.time()
            gaps["quiet"].append(max(watch.longest_gaps(begin - SETTLE_SECONDS / 2, begin)))
            promote(bundles[(n + 1) % 2], config)
            took.append(time.time() - begin)
            time.sleep(SETTLE_SECONDS)
            gaps["switch"].append(max(watch.longest_gaps(begin, time.time())))
    daemon.stop()
    found = {f"longest gap, {kind}": {"median": median(each), "worst": max(each)} for kind, each in gaps.items()}
    return found | {"promoted to taken over": {"median": median(took), "worst": max(took)}}


def promote(bundle: Path, config: Path) -> None:
    """Promote a bundle and wait until it runs."""
    command = [sys.executable, "-m", "daemon.cli.main", "bundle", "promote", str(bundle), "--config", str(config)]
    subprocess.run([*command, "--wait", "300"], check=True, stdout=sys.stderr)


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=2000)
    parser.add_argument("--instruments", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "rate": options.rate, "instruments": options.instruments}
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        result |= measure(on, Path(folder), options.rate, options.instruments, options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
