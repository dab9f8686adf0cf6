"""All real ticks through a real Kafka with a model trained on their first half: outcomes against ticks, order per
instrument, and the payloads of one tick a batch against two thousand, byte for byte.

    python -m bench.real_ticks FILE
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

from bench.rig import Rig, machine, real_ticks, rig, wait_for_ticks
from daemon.training import TrainingOptions, train

ONE_BY_ONE = 5000


def run(on: Rig, name: str, ticks: list[dict[str, Any]], bundle: Path, batch: int) -> tuple[int, dict[str, bytes]]:
    """Run the daemon over ticks; return the number of outcomes, and the payloads by their tick."""
    topics = on.topics(name)
    on.fill(topics.ticks, ticks)
    daemon = on.daemon(name, topics, bundle, max_batch_ticks=batch).start().wait_ready()
    wait_for_ticks(daemon, len(ticks))
    probe = daemon.metrics()["tickcast_probe_variance"]
    assert probe == 0, f"probe_variance is {probe}"
    assert daemon.stop() == 0
    dead = sum(1 for _ in on.read(topics.dead_letters))
    found: dict[str, bytes] = {}
    last: Counter[str] = Counter()
    for record in on.read(topics.forecasts):
        forecast = json.loads(record.value)
        assert forecast["ts"] >= last[forecast["instrument"]], "order of an instrument"
        last[forecast["instrument"]] = forecast["ts"]
        found[forecast["id"].removeprefix(topics.ticks)] = record.value.replace(topics.ticks.encode(), b"ticks")
    assert len(found) + dead == len(ticks), f"{len(found)} forecasts and {dead} dead letters for {len(ticks)} ticks"
    return len(found) + dead, found


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ticks", type=Path)
    options = parser.parse_args()
    ticks = list(real_ticks(options.ticks))
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        bundle = Path(folder) / "bundle"
        train(ticks[: len(ticks) // 2], TrainingOptions(minutes=2), bundle)
        outcomes, _ = run(on, "all", ticks, bundle, 2000)
        first = list(islice(ticks, ONE_BY_ONE))
        equal = run(on, "single", first, bundle, 1) == run(on, "many", first, bundle, 2000)
    result = {
        "ticks": len(ticks),
        "outcomes": outcomes,
        "one by one": len(first),
        "payloads equal": equal,
    }
    print(json.dumps({"machine": machine(), **result}, indent=2))


if __name__ == "__main__":
    main()
