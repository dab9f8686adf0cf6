"""Recovery: from `kill -9` in the middle of a transaction, and an immediate restart under the same instance id, to the
first new committed forecast; at 2,000 ticks/s, for 10,000 and 100,000 instruments (2 x LSTM(64)).

The process is frozen until the cluster says that its transaction is open, then killed; the clock starts when it was
frozen. What the restart's time went into is read from its log. Beside it the same path stage by stage in a process that
does nothing else: start of Python, the client alone (it joins the group and opens the producer), the reading of
snapshots, putting them into the pipeline, the replay. Resident memory includes its peak, which recovery makes.

    python -m bench.recovery [--instruments 10000 100000] [--rounds R]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import tempfile
import time
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import psutil
from kafka.admin import KafkaAdminClient

from bench.feed import Feed, Mix, quotes
from bench.rig import CLIENTS, Rig, bench_bundle, machine, median, rig, wait_for_ticks
from bench.stages import walk_in_stages
from bench.watch import Watch
from daemon.dev.child import ChildDaemon
from daemon.transport.connection import transactional_id

RATE = 2000
#: Between a restart and the next kill: each partition's checkpoint of everything, then one at the default interval.
SETTLE_SECONDS = 12.0
#: The moment of a kill within the interval between two checkpoints is drawn.
SPREAD_SECONDS = 5.0
#: How long a frozen process is looked at, and let go on when it was not inside a transaction.
THAW_SECONDS = 0.02
#: Lines of the log that tell how far a partition is.
PATH = ("partitions assigned", "partition goes on", "partition recovered")


def measure(on: Rig, bundle: Path, instruments: int, client: str, rounds: int) -> dict[str, Any]:
    """Kill and restart a daemon under load; return medians over the rounds, and the stages."""
    name = f"recovery-{instruments}"
    topics = on.topics(name)
    mix = Mix(RATE, instruments)
    daemon = on.daemon(name, topics, bundle, client=client).start().wait_ready()
    on.fill(topics.ticks, islice(quotes(mix), instruments))
    wait_for_ticks(daemon, instruments)
    rng = random.Random(instruments)
    found = []
    with Watch(on.bootstrap, topics.forecasts) as watch, Feed(on.bootstrap, topics.ticks, mix):
        for _ in range(rounds):
            time.sleep(SETTLE_SECONDS + rng.uniform(0, SPREAD_SECONDS))
            found.append(kill_and_restart(on, name, daemon, watch))
        time.sleep(SETTLE_SECONDS)
        memory = resident(daemon)
        kill_in_transaction(on, name, daemon)
    walked = walk_in_stages(on.settings(name, topics, bundle, client=client))
    result = {key: median([each[key] for each in found]) for key in found[0]}
    return {"rounds": rounds, **result, **memory, "stages": walked}


def kill_and_restart(on: Rig, name: str, daemon: ChildDaemon, watch: Watch) -> dict[str, float]:
    """Return the seconds of one recovery."""
    killed = kill_in_transaction(on, name, daemon)
    started, seen = time.time(), daemon.log.stat().st_size
    daemon.start()
    firsts = sorted(at - killed for at in watch.firsts_after(started))
    daemon.wait_ready()
    replayed = daemon.metrics()['tickcast_ticks_total{outcome="catch_up"}']
    return {
        "from the kill": firsts[0],
        "from the restart": firsts[0] - (started - killed),
        **{f"from the kill, partition {n}": at for n, at in enumerate(firsts, 1)},
        **phases(daemon.log.read_bytes()[seen:], started),
        "replayed ticks": replayed,
    }


def kill_in_transaction(on: Rig, name: str, daemon: ChildDaemon) -> float:
    """Freeze the daemon inside a transaction, then kill it; return when it was frozen, Unix time."""
    admin = KafkaAdminClient(bootstrap_servers=on.bootstrap)
    ours = transactional_id(name, "0")
    try:
        while True:
            os.kill(daemon.process.pid, signal.SIGSTOP)
            frozen = time.time()
            time.sleep(THAW_SECONDS)  # what it has sent arrives
            if admin.describe_transactions([ours])[ours].state == "Ongoing":
                daemon.kill()
                return frozen
            os.kill(daemon.process.pid, signal.SIGCONT)
            time.sleep(THAW_SECONDS)
    finally:
        admin.close()


def phases(log: bytes, started: float) -> dict[str, float]:
    """Read from the log of a restart what its time went into, seconds."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith(b"{")]
    moments = [(line["message"], datetime.fromisoformat(line["time"]).timestamp()) for line in lines]
    first = dict(reversed(moments))
    path = [(message, at) for message, at in moments if message in PATH]
    # Partitions go their way one after the other; the first to have arrived takes a share of what follows.
    spent = dict.fromkeys(PATH, 0.0)
    for (_, before), (message, after) in pairwise(path):
        spent[message] += after - before
    assigned, decided, recovered = PATH
    return {
        "start of Python, model, self-test": first["tickcast starts"] - started,
        "client": first[assigned] - first["tickcast starts"],
        "reading states, all partitions": spent[decided],
        "putting back and replay, all partitions": spent[recovered],
        "all partitions recovered": path[-1][1] - started,
    }


def resident(daemon: ChildDaemon) -> dict[str, float]:
    """Return the resident memory now and at its peak, in MB."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return {
        "resident_mb": psutil.Process(daemon.process.pid).memory_info().rss / 1e6,
        "peak_resident_mb": peak * 1024 / 1e6,
    }


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instruments", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", choices=CLIENTS, default=CLIENTS[0])
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine([options.client]), "rate": RATE}
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as on:
        bundle = bench_bundle(Path(folder)).path
        for instruments in options.instruments:
            result[str(instruments)] = measure(on, bundle, instruments, options.client, options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
