"""Run tickcast and send it a signal at one point of its n-th transaction: KILL ends it, STOP freezes it.

    strikes_at.py SIGNAL POINT KIND N run --config FILE

POINT is where: `begun` (nothing sent), `added` (the coordinator counts our partitions to the transaction, none is
written to), `written` (records at the broker), `offsets` (these too), `committed` (the process has not noted it yet).
KIND is which transactions count: `any`, or
`checkpoint` for those that hold one.
"""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from daemon.cli.main import main
from daemon.transport.kafka_producer import TransactionalProducer
from daemon.transport.kafka_sink import KafkaSink

SIGNAL, POINT, KIND, COUNT = signal.Signals["SIG" + sys.argv[1]], sys.argv[2], sys.argv[3], int(sys.argv[4])
#: Point -> step of the producer, and whether it strikes before or after it.
STEPS = {
    "begun": ("_transact", "before"),
    "added": ("_write_records", "before"),
    "written": ("_write_records", "after"),
    "offsets": ("_end", "before"),
    "committed": ("_transact", "after"),
}

seen_count = 0
armed = False


def counting(commit: Callable[..., None]) -> Callable[..., None]:
    """Arm the trap in the n-th transaction of the kind."""

    def counted(self: KafkaSink, outgoing: Any, offsets: Any, group_metadata: Any) -> None:
        global armed, seen_count
        if KIND == "any" or outgoing.messages.get("state"):
            seen_count += 1
            armed = seen_count == COUNT
        commit(self, outgoing, offsets, group_metadata)

    return counted


def trapped(step: Callable[..., Awaitable[None]], when: str) -> Callable[..., Awaitable[None]]:
    """Strike before or after a step, if the trap is armed."""

    async def take(*arguments: Any, **named: Any) -> None:
        if when == "before":
            strike()
        await step(*arguments, **named)
        if when == "after":
            strike()

    return take


def strike() -> None:
    """Send the signal, once."""
    global armed
    if armed:
        armed = False
        os.kill(os.getpid(), SIGNAL)


name, when = STEPS[POINT]
setattr(TransactionalProducer, name, trapped(getattr(TransactionalProducer, name), when))
KafkaSink.commit = counting(KafkaSink.commit)  # type: ignore[method-assign]
sys.argv = ["tickcast", *sys.argv[5:]]
main()
