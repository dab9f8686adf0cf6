"""What goes wrong inside a call of the transport, by the point at which it strikes.

A fault is a function of the world; it may raise what the cluster or a killed process would, or let others act.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, get_args

from daemon.errors import BrokerUnavailable
from daemon.transport.connection import transactional_id
from daemon.transport.memory_group import Refused
from daemon.transport.memory_log import Point, SinkPoint
from tests.simulation.process import GROUP, Crash

if TYPE_CHECKING:
    from tests.simulation.world import World

Fault = Callable[["World"], None]

EVERYWHERE: tuple[Point, ...] = (
    *("poll", "confirm", "committed_read", "bounds", "read"),
    *("open", "begin", "send", "offsets", "commit", "committed"),
)
IN_A_TRANSACTION: tuple[Point, ...] = ("send", "offsets", "commit")


def crash(world: World) -> None:
    """The process is killed here; what it has open stays open."""
    raise Crash


def refuse(world: World) -> None:
    """The cluster refuses a request, or, after the commit, the answer is lost."""
    raise Refused("refused")


def unanswered(world: World) -> None:
    """A look at the cluster times out."""
    raise BrokerUnavailable("no answer")


def go_away(world: World) -> None:
    """The broker is away for some requests from here on."""
    world.away_for(world.random.randint(1, 6))


def time_out(world: World) -> None:
    """The open transaction outlives its timeout here, and its coordinator aborts it."""
    world.log.expire(transactional_id(GROUP, world.acting.instance_id))


def expel(world: World) -> None:
    """Our session ends here."""
    world.expel(world.acting.instance_id)


def stall(world: World) -> None:
    """The process is paused for longer than its session, then wakes as a zombie and goes on where it was."""
    world.expel(world.acting.instance_id)
    if world.random.random() < 0.5:
        time_out(world)
    world.others_turn(world.random.randint(4, 10))


def others_act(world: World) -> None:
    """The other processes turn here."""
    world.others_turn(world.random.randint(1, 4))


def twin(world: World) -> None:
    """Somebody starts a second process under our name here."""
    world.start(world.acting.instance_id)
    world.others_turn(2)


def compact(world: World) -> None:
    """The log cleaner passes here."""
    world.compact()


#: Fault -> weight, points at which it may strike.
FAULTS: dict[Fault, tuple[float, tuple[Point, ...]]] = {
    crash: (4, EVERYWHERE),
    refuse: (4, get_args(SinkPoint)),
    unanswered: (2, ("confirm", "bounds", "read")),
    go_away: (1.5, EVERYWHERE),
    time_out: (3, IN_A_TRANSACTION),
    expel: (1, EVERYWHERE),
    stall: (2, EVERYWHERE),
    others_act: (3, EVERYWHERE),
    twin: (0.6, EVERYWHERE),
    compact: (3, EVERYWHERE),
}
#: Point -> the faults that may strike there, with their weights.
BY_POINT: dict[Point, tuple[list[Fault], list[float]]] = {
    point: (
        [fault for fault, (_, points) in FAULTS.items() if point in points],
        [weight for weight, points in FAULTS.values() if point in points],
    )
    for point in EVERYWHERE
}
