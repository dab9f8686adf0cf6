"""Run tickcast and send it a signal at one point of its n-th transaction: KILL ends it, STOP freezes it.

    strikes_at.py SIGNAL POINT KIND N run --config FILE

POINT is where: `begun` (nothing sent), `sent` (records handed to the client), `flushed` (records at the broker),
`offsets` (these too), `committed` (the process has not noted it yet). KIND is which transactions count: `any`, or
`checkpoint` for those that hold one. By librdkafka the records are flushed in the commit, after the offsets: the trap
flushes them sooner.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from daemon.cli.main import main
from daemon.config import load_settings
from daemon.transport.kafka_sink import KafkaSink

SIGNAL, POINT, KIND, COUNT = signal.Signals["SIG" + sys.argv[1]], sys.argv[2], sys.argv[3], int(sys.argv[4])
#: Point -> method of the producer, and when it strikes, see `trapped`.
METHODS = {
    "kafka-python": {
        "begun": ("begin_transaction", "after"),
        "sent": ("flush", "before"),
        "flushed": ("flush", "after"),
        "offsets": ("send_offsets_to_transaction", "after"),
        "committed": ("commit_transaction", "after"),
    },
    "librdkafka": {
        "begun": ("begin_transaction", "after"),
        "sent": ("send_offsets_to_transaction", "before"),
        "flushed": ("send_offsets_to_transaction", "flushed"),
        "offsets": ("commit_transaction", "flushed"),
        "committed": ("commit_transaction", "after"),
    },
}

seen_count = 0
armed = False


def counting(commit: Callable[..., None]) -> Callable[..., None]:
    """Arm the trap in the n-th transaction of the kind."""

    def counted(self: Any, outgoing: Any, offsets: Any, group_metadata: Any) -> None:
        global armed, seen_count
        if KIND == "any" or outgoing.messages.get("state"):
            seen_count += 1
            armed = seen_count == COUNT
        commit(self, outgoing, offsets, group_metadata)

    return counted


def trapped(method: Callable[..., Any], when: str) -> Callable[..., Any]:
    """Strike before or after a method, or before it when the records have been flushed, if the trap is armed."""

    def call(*arguments: Any, **named: Any) -> Any:
        if when == "flushed":
            arguments[0].flush()
        if when != "after":
            strike()
        result = method(*arguments, **named)
        if when == "after":
            strike()
        return result

    return call


def strike() -> None:
    """Send the signal, once."""
    global armed
    if armed:
        armed = False
        os.kill(os.getpid(), SIGNAL)


def plant(client: str) -> None:
    """Set the trap for the sinks of one client."""
    name, when = METHODS[client][POINT]
    if client == "librdkafka":
        from daemon.transport import librd_sink

        method = trapped(getattr(librd_sink.Producer, name), when)
        librd_sink.Producer = type("Trapped", (librd_sink.Producer,), {name: method})
        librd_sink.LibrdSink.commit = counting(librd_sink.LibrdSink.commit)  # type: ignore[method-assign]
    else:
        setattr(KafkaProducer, name, trapped(getattr(KafkaProducer, name), when))
        KafkaSink.commit = counting(KafkaSink.commit)  # type: ignore[method-assign]


sys.argv = ["tickcast", *sys.argv[5:]]
plant(load_settings(Path(sys.argv[-1])).kafka.client)
main()
