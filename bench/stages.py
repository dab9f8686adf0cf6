"""The path of a recovery, stage by stage, in a process that does nothing else: where a killed instance has left off,
join its group, read the snapshots, put them back, replay the ticks. `bench.recovery` gives it beside the daemon's own.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import islice
from typing import Any

from daemon.assembly import build_engine
from daemon.cli.run import GC_THRESHOLD
from daemon.config import Settings
from daemon.core.pipeline import Pipeline
from daemon.core.records import Record
from daemon.core.snapshot import Snapshot
from daemon.restore import READ_RECORDS, READ_SECONDS
from daemon.stored import Stored
from daemon.transport.clients import make_reader, make_sink, open_source
from daemon.transport.connection import Connection
from daemon.transport.port import Readable, Reader, Sink, Source


def walk_in_stages(settings: dict[str, Any]) -> dict[str, float]:
    """Walk in a new process, as a restart does; return seconds and rates."""
    command = [sys.executable, "-m", "bench.stages", json.dumps(settings), str(time.time())]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Walk, and print one JSON object."""
    imported = time.time()
    settings, started = Settings(**json.loads(sys.argv[1])), float(sys.argv[2])
    connection = Connection.from_settings(settings.kafka)
    source, sink, assigned = join(settings, connection)
    joined = time.time()
    pipeline = build_engine(settings).pipeline
    gc.freeze()  # as the daemon does
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    built = time.time()
    reader = make_reader(connection, settings)
    stages = Stages(reader, pipeline)
    for partition in assigned:
        stages.walk(partition)
    reader.close()
    sink.close()
    source.close(leave=True)
    seconds = {
        "start of Python": imported - started,
        "client": joined - imported,
        "model and self-test": built - joined,
        **{f"{stage}, seconds": spent for stage, spent in stages.seconds.items()},
    }
    rates = {f"{stage}, a second": stages.counts[stage] / spent for stage, spent in stages.seconds.items()}
    print(json.dumps({**seconds, **stages.counts, **rates}))


def join(settings: Settings, connection: Connection) -> tuple[Source, Sink, tuple[int, ...]]:
    """Do what the client does at a start: join the group, open the producer, get partitions."""
    source, sink = open_source(connection, settings), make_sink(connection, settings)
    sink.open()
    assigned: tuple[int, ...] = ()
    while not assigned:
        assigned = source.poll(0.2, 1).assigned
    return source, sink, assigned


class Stages:
    """What each stage has taken so far."""

    def __init__(self, reader: Reader, pipeline: Pipeline) -> None:
        self._reader = reader
        self._pipeline = pipeline
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()

    def walk(self, partition: int) -> None:
        """Take one partition from its checkpoint to the end of its ticks."""
        began = time.perf_counter()
        stored = Stored()
        for records in self._read("state", partition, *self._reader.bounds("state", partition)):
            stored.add(records)
            self.counts["records read"] += len(records)
        began = self._took("records read", began)
        marker = stored.marker()
        assert marker is not None
        self._pipeline.assign(partition, marker.origin, saved_to=marker.next_offset)
        snapshots = (found for _, found in stored.taken(marker) if isinstance(found, Snapshot))
        while piece := list(islice(snapshots, READ_RECORDS)):
            self._pipeline.put_back(partition, piece)
            self.counts["snapshots put back"] += len(piece)
        self._pipeline.settle(partition)
        began = self._took("snapshots put back", began)
        for records in self._read("ticks", partition, marker.next_offset, self._reader.bounds("ticks", partition)[1]):
            self._pipeline.replay(records)
            self.counts["ticks replayed"] += len(records)
        self._took("ticks replayed", began)

    def _read(self, topic: Readable, partition: int, offset: int, end: int) -> Iterator[list[Record]]:
        while offset < end:
            records, offset = self._reader.read(topic, partition, offset, READ_SECONDS, READ_RECORDS)
            yield list(records)

    def _took(self, stage: str, began: float) -> float:
        now = time.perf_counter()
        self.seconds[stage] += now - began
        return now


if __name__ == "__main__":
    main()
