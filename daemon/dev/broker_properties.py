"""Settings of the development broker: one node that is broker and controller, bound to this machine only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

HOST = "127.0.0.1"

#: Chosen for development: quick first use on two cores and 350 MB, and the same guarantees as a cluster.
PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    # A mistyped topic must fail here as it does in production; clients cannot be told not to create it.
    "auto.create.topics.enable": "false",
    # There is one node: every internal topic has one replica. Few partitions, because each one is files to create
    # before the first group or transaction gets its answer.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # The default of 3000 holds every first start back for members that never come.
    "group.initial.rebalance.delay.ms": "0",
    # How often transactions of dead producers are looked for; with the default of 10 s a killed one blocks readers
    # for up to 18 s instead of 11.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # After a kill -9 the controller refuses the broker's next start until its old session has ended: 12 s until it
    # answers with the default of 9 s.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # The default buffer of 128 MB does not fit beside the rest into the heap.
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
}


def properties_of(port: int, controller_port: int, log_directory: Path) -> dict[str, str]:
    """Return the settings of a broker that listens on `port` and keeps its records in `log_directory`."""
    return PROPERTIES | {
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port}",
        # A static voter: its address is taken from here at every start, so the port may differ from the last one.
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "log.dirs": str(log_directory),
    }


def write_properties(file: Path, values: Mapping[str, str]) -> None:
    r"""Write a Java properties file: backslashes doubled, other than ASCII as ``\uXXXX``."""
    escaped = {key: json.dumps(value)[1:-1].replace('\\"', '"') for key, value in values.items()}
    file.write_text("".join(f"{key}={value}\n" for key, value in escaped.items()), "ascii")
