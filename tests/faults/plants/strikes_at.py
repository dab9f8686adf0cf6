"""Run tickcast and send it a signal at one point of its n-th transaction: KILL ends it, STOP freezes it.

    strikes_at.py SIGNAL POINT KIND N run --config FILE

POINT is where: `begun` (nothing sent), `added` (the coordinator counts our partitions to the transaction, none is
written to), `written` (records at the broker), `offsets` (these too), `committed` (the process has not noted it yet).
librdkafka adds and writes in one go, and after the offsets unless it is told to: the trap tells it. KIND is which
transactions count: `any`, or `checkpoint` for those that hold one.
"""

import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from daemon.cli.main import main
from daemon.config import load_settings
from daemon.transport.kafka_producer import TransactionalProducer
from daemon.transport.kafka_sink import KafkaSink

SIGNAL, POINT, KIND, COUNT = signal.Signals["SIG" + sys.argv[1]], sys.argv[2], sys.argv[3], int(sys.argv[4])
#: Client -> point -> method of the producer, and when it strikes, see `trapped`.
METHODS = {
    "kafka-python": {
        "begun": ("_transact", "before"),
        "added": ("_write_records", "before"),
        "written": ("_write_records", "after"),
        "offsets": ("_end", "before"),
        "committed": ("_transact", "after"),
    },
    "librdkafka": {
        "begun": ("begin_transaction", "after"),
        "added": ("send_offsets_to_transaction", "flushed"),
        "written": ("send_offsets_to_transaction", "flushed"),
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


def trapped_step(step: Callable[..., Awaitable[None]], when: str) -> Callable[..., Awaitable[None]]:
    """Strike before or after a step of our producer, if the trap is armed."""

    async def take(*arguments: Any, **named: Any) -> None:
        if when == "before":
            strike()
        await step(*arguments, **named)
        if when == "after":
            strike()

    return take


def trapped(method: Callable[..., Any], when: str) -> Callable[..., Any]:
    """Strike after a method of librdkafka's, or before it when the records have been flushed, if the trap is armed."""

    def call(*arguments: Any, **named: Any) -> Any:
        if when == "flushed":
            arguments[0].flush()
            strike()
        result = method(*arguments, **named)
        if when == "after":
            strike()
        return result

    return call


def strike() -> None:
    """Send the signal, once; to this thread, which would else run on until another one is scheduled to take it."""
    global armed
    if armed:
        armed = False
        signal.pthread_kill(threading.get_ident(), SIGNAL)


def plant(client: str) -> None:
    """Set the trap for the sinks of one client."""
    name, when = METHODS[client][POINT]
    if client == "librdkafka":
        from daemon.transport import librd_sink

        method = trapped(getattr(librd_sink.Producer, name), when)
        librd_sink.Producer = type("Trapped", (librd_sink.Producer,), {name: method})
        librd_sink.LibrdSink.commit = counting(librd_sink.LibrdSink.commit)  # type: ignore[method-assign]
    else:
        setattr(TransactionalProducer, name, trapped_step(getattr(TransactionalProducer, name), when))
        KafkaSink.commit = counting(KafkaSink.commit)  # type: ignore[method-assign]


sys.argv = ["tickcast", *sys.argv[5:]]
plant(load_settings(Path(sys.argv[-1])).kafka.client)
main()
