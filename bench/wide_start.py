"""Start-up with many instruments: a state topic full of snapshots on a real broker, and a daemon that starts on it.

The snapshots are those of instruments that have ticked for long, under as many names as are wanted; the daemon's own
pipeline and sink write them. Then a process walks the way of a recovery stage by stage (`bench.stages`), and a daemon
starts as anybody would start it.

    python -m bench.wide_start [--instruments 100000 1000000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from bench.feed import Mix, quotes
from bench.recovery import resident
from bench.rig import PARTITIONS, Rig, bench_bundle, machine, rig
from bench.stages import join, walk_in_stages
from bench.wide import NAME, SEED_INSTRUMENTS, name_of, seeds
from daemon.assembly import build_engine
from daemon.checkpoints import checkpoint
from daemon.config import Settings
from daemon.core.marker import Marker
from daemon.core.pipeline import Pipeline
from daemon.core.records import Message
from daemon.core.snapshot import Snapshot, decode
from daemon.model.bundle import Bundle
from daemon.model.selftest import self_test
from daemon.transport.connection import Connection
from daemon.transport.port import Outgoing
from schemas import ResetCause

#: Ticks in the log, and the share of them before the checkpoints: the others are to be replayed.
TICKS, SAVED = 40_000, 0.5
#: Snapshots of one transaction while the topic is filled.
PIECE = 5000
#: A prime: last ticks of neighbours are far from each other.
SPREAD = 7919
READY_SECONDS = 1200.0


def measure(on: Rig, bundle: Path, instruments: int) -> dict[str, Any]:
    """Fill a state topic, and start on it."""
    name = f"wide-start-{instruments}"
    topics = on.topics(name)
    on.fill(topics.ticks, islice(quotes(Mix(1000, 500)), TICKS))
    room = {"instruments_per_partition_max": instruments}
    settings = on.settings(name, topics, bundle, **room)
    fill_state(settings, instruments)
    stages = walk_in_stages(settings)
    daemon = on.daemon(name, topics, bundle, **room)
    began = time.monotonic()
    daemon.start().wait_ready(READY_SECONDS)
    found = {"ready_seconds": time.monotonic() - began, **resident(daemon)}
    held = daemon.metrics()["tickcast_active_instruments"]
    assert held >= instruments, f"{held:.0f} of {instruments} instruments came back"
    daemon.stop()
    return {**found, "stages": stages}


def fill_state(settings: dict[str, Any], instruments: int) -> None:
    """Write checkpoints of all partitions, in a process of its own: it must not be a member of the group any more."""
    command = [sys.executable, "-m", "bench.wide_start", "--fill", json.dumps(settings)]
    subprocess.run([*command, "--instruments", str(instruments)], check=True)


def fill(settings: Settings, instruments: int) -> None:
    """Join the group, and commit a checkpoint of every partition in the middle of its ticks."""
    source, sink, assigned = join(settings, Connection.from_settings(settings.kafka))
    assert len(assigned) == PARTITIONS
    engine = build_engine(settings)
    bundle = Bundle.load(settings.model.bundle)
    snapshots = seeds(bundle, self_test(bundle))
    ends = {partition: int(SAVED * end) for partition, (_, end) in source.bounds(assigned).items()}
    group, topic = settings.kafka.group_id, source.topic_id()
    for partition, end in ends.items():
        marker = Marker(group, topic, engine.revision, end, 0, 0, ResetCause.FIRST)
        names = map(name_of, range(partition, instruments, PARTITIONS))
        for messages in pieces(engine.pipeline, marker, partition, names, snapshots):
            source.poll(0.0, 1)  # or the group thinks that we hang
            sink.commit(Outgoing({"state": messages}), {partition: end}, source.group_metadata())
    sink.close()
    source.close(leave=True)


def pieces(
    pipeline: Pipeline, marker: Marker, partition: int, names: Iterator[str], snapshots: list[bytes]
) -> Iterator[list[Message]]:
    """Yield the checkpoint of a partition in pieces, the last of them with the marker."""
    while piece := list(islice(names, PIECE)):
        pipeline.assign(partition)
        pipeline.put_back(partition, [clone(snapshots, name, marker.next_offset) for name in piece])
        yield checkpoint(pipeline, partition, marker)[:-1]
    pipeline.assign(partition)
    yield checkpoint(pipeline, partition, marker)


def clone(snapshots: list[bytes], name: str, end: int) -> Snapshot:
    """Return the snapshot of an instrument by this name, whose last tick was some way before `end`."""
    number = int(name.removeprefix(NAME))
    snapshot = decode(name, snapshots[number % SEED_INSTRUMENTS])
    snapshot.instrument.last_offset = number * SPREAD % end
    return snapshot


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruments", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--fill", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fill:
        fill(Settings(**json.loads(options.fill)), *options.instruments)
        return
    result: dict[str, Any] = {"machine": machine()}
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        bundle = bench_bundle(Path(folder)).path
        for instruments in options.instruments:
            result[str(instruments)] = measure(on, bundle, instruments)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
