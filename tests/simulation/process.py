"""One process of the daemon, as the simulation runs it: turn by turn, until it ends or is killed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TypeVar

from prometheus_client import CollectorRegistry

from daemon.checkpoints import Checkpoints
from daemon.core.pin import Pin
from daemon.core.records import InputRecord
from daemon.errors import BundleError, TransactionFailed
from daemon.health import Health
from daemon.metrics import Metrics
from daemon.phases import Phase, Phases
from daemon.pins import PinFollower
from daemon.recovery import Recovery
from daemon.resume import Terms
from daemon.service import LoopOptions, Service
from daemon.spread import PredictionSpread
from daemon.switching import Model, Stage, Switching
from daemon.transport.memory import MemoryReader, MemorySink, MemorySource
from daemon.transport.memory_group import Membership
from daemon.transport.memory_log import MemoryLog
from daemon.transport.port import Outgoing, Polled, Readable
from daemon.watched import Watch
from tests.property.logs import SPEC
from tests.simulation.market import pipeline

GROUP = "desk"
Value = TypeVar("Value")
#: Every look at the clock moves it, so that a slice of recovery ends in the middle of the path.
LOOK_SECONDS = 0.01


class Crash(BaseException):
    """The process is killed: nothing of it runs after this."""


class Clock:
    """Time that passes only when somebody looks or waits."""

    def __init__(self) -> None:
        self.now = 1_704_207_600.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        self.now += LOOK_SECONDS
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of all processes of a seed."""

    instruments_max: int
    checkpoint_seconds: float
    checkpoint_ticks: int
    max_batch_ticks: int


class CountingSource(MemorySource):
    """Counts the changes of assignment, and how many of them strike a partition that is being restored."""

    happened: Counter[str]
    phases: Phases

    def poll(self, timeout_seconds: float, max_records: int) -> Polled:
        polled = super().poll(timeout_seconds, max_records)
        self.happened["assigned"] += len(polled.assigned)
        for kind, partitions in (("revoked", polled.revoked), ("lost", polled.lost)):
            self.happened[kind] += len(partitions)
            restoring = sum(self.phases.of(partition) is not Phase.RUNNING for partition in partitions)
            self.happened[f"{kind} in the middle of a restore"] += restoring
        return polled


class CountingSink(MemorySink):
    """Counts what becomes of transactions."""

    happened: Counter[str]

    def commit(self, outgoing: Outgoing, offsets: Mapping[int, int], group_metadata: object) -> None:
        try:
            super().commit(outgoing, offsets, group_metadata)
        except TransactionFailed:
            self.happened["transaction failed"] += 1
            raise
        roles = {role for role, messages in outgoing.messages.items() if messages}
        self.happened["checkpoint alone"] += roles == {"state"}
        self.happened["checkpoint with ticks"] += "state" in roles and len(roles) > 1
        self.happened["tombstone"] += sum(message.value is None for message in outgoing.messages.get("state", ()))


class CountingReader(MemoryReader):
    """Counts what recoveries read."""

    happened: Counter[str]

    def read(
        self, topic: Readable, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[list[InputRecord], int]:
        records, next_offset = super().read(topic, partition, offset, timeout_seconds, max_records)
        self.happened[f"{topic} read again"] += len(records)
        return records, next_offset


class Later(Future[Value]):
    """A call off the loop that is made when somebody looks for its result, and as likely as not a look later."""

    def __init__(self, call: Callable[[], Value], random: Random) -> None:
        super().__init__()
        self._call = call
        self._random = random

    def done(self) -> bool:
        if not super().done() and self._random.random() < 0.5:
            try:
                self.set_result(self._call())
            except Exception as error:
                self.set_exception(error)
        return super().done()


class Process:
    """Source, sink, reader, pipeline and loop under an instance id.

    Parameters
    ----------
    pin : the one in force; None where the model never changes
    lacks : bundles that this machine does not have, now
    """

    def __init__(
        self,
        log: MemoryLog,
        clock: Clock,
        instance_id: str,
        revision: str,
        settings: Settings,
        happened: Counter[str],
        *,
        follower: PinFollower | None = None,
        lacks: Callable[[str], bool] = lambda revision: False,
        random: Random | None = None,
    ) -> None:
        self.instance_id = instance_id
        made = pipeline(revision, settings.instruments_max)
        self._happened = happened
        self._lacks = lacks
        self._settings = settings
        self._group = log.group(GROUP)
        self.source = CountingSource(log, group_id=GROUP, instance_id=instance_id)
        self.sink = CountingSink(log, group_id=GROUP, instance_id=instance_id)
        reader = CountingReader(log)
        self.source.happened = self.sink.happened = reader.happened = happened
        terms = Terms(GROUP, self.source.topic_id(), revision)
        self.recovery = Recovery(self.source, reader, made, terms, monotonic=clock.monotonic)
        seconds, ticks = settings.checkpoint_seconds, settings.checkpoint_ticks
        self.source.phases = self.recovery.phases
        self.switching: Switching | None = None
        if follower is not None and random is not None:
            self.switching = Switching(
                revision,
                follower.look,
                self._load,
                pin=follower.pin,
                off_the_loop=lambda call: Later(call, random),
                monotonic=clock.monotonic,
            )
        self.service = Service(
            self.source,
            self.sink,
            made,
            self.recovery,
            Checkpoints(made, seconds, ticks, clock.monotonic),
            _metrics(),
            Health(60, clock.monotonic),
            LoopOptions(settings.max_batch_ticks, dead_letter_ratio_max=1.0),
            clock,
            self.switching,
        )

    def turn(self) -> None:
        """Let the loop turn, and count what becomes of models."""
        switching = self.switching
        if switching is None:
            self.service.turn()
            return
        running, refused = switching.running, switching.refused_count
        self.service.turn()
        self._happened["switched"] += switching.running != running
        self._happened["bundle refused"] += switching.refused_count - refused

    def runs(self, pin: Pin | None) -> bool:
        """Say whether what is pinned runs here."""
        return self.switching is None or pin is None or self.switching.running == pin.bundle

    @property
    def phase(self) -> str:
        """What a fault strikes at."""
        if self.recovery.busy:
            return "restoring"
        return "switching" if self.switching is not None and self.switching.stage is Stage.WARMING else "running"

    def _load(self, revision: str) -> Model:
        if self._lacks(revision):
            raise BundleError(f"there is no bundle {revision}")
        watch = Watch(PredictionSpread(len(SPEC.outputs), 5))
        return Model(revision, revision, pipeline(revision, self._settings.instruments_max), watch)

    @property
    def replaced(self) -> bool:
        """True where a newer process has our name in the group, which we may not have heard yet."""
        membership = self.source.group_metadata()
        assert isinstance(membership, Membership)
        return self._group.is_replaced(membership.member_id)

    def open(self) -> None:
        """Do what `Service.run` does before its first turn."""
        self.sink.open()

    def stop(self, *, leave: bool) -> None:
        """Stop as on SIGTERM."""
        self.service.stop()
        self.service.run()
        self.close(leave=leave)

    def close(self, *, leave: bool) -> None:
        """Close as the process does however its loop ended."""
        self.source.close(leave=leave)
        self.sink.close()


class SharedMetrics(Metrics):
    """The metrics of all processes: they are not looked at here, and cost more to make than all the rest."""

    def restoring(self, remaining_ticks: int, replayed_count: int) -> None:
        """Do not follow a count that is of one process."""

    def bundles_refused(self, count: int) -> None:
        """Do not follow a count that is of one process."""


@cache
def _metrics() -> SharedMetrics:
    return SharedMetrics(CollectorRegistry(), Watch(PredictionSpread(len(SPEC.outputs), 5)))
