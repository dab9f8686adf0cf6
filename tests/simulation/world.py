"""A cluster, its market, the processes of one group and everything that befalls them, all drawn from one seed.

One step is one turn of one process, or something that others do between turns; `faults` strike inside a turn. When the
ticks are written and the steps are over, the faults end too, and whoever is left has to come to rest on its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.core.pin import Pin
from daemon.core.records import Message
from daemon.errors import BrokerUnavailable, Fenced, TopicError
from daemon.pins import PinFollower
from daemon.transport.connection import transactional_id
from daemon.transport.memory import MemoryReader
from daemon.transport.memory_log import MemoryLog, Point
from daemon.transport.memory_partition import Topic, Transaction
from tests.simulation import faults
from tests.simulation.market import PARTITIONS, REVISIONS, Market
from tests.simulation.process import GROUP, Clock, Crash, Process, Settings

#: Processes that may run at the same time, twins not counted.
INSTANCES = ("0", "1", "2")
#: Under which name operators pin bundles.
OPERATOR = "operator"
#: Rounds in which all processes turn before a world without faults must be at rest.
PATIENCE_ROUNDS = 200


class NotAtRest(AssertionError):
    """Ticks stay without an outcome, or partitions without an owner, though nothing is in the way any more."""


class RememberingLog(MemoryLog):
    """A cluster that remembers every marker of a checkpoint, whatever compaction takes."""

    def __init__(self) -> None:
        super().__init__(PARTITIONS)
        self._markers: list[tuple[Transaction, Message]] = []

    def _write(self, topic: Topic, message: Message, transaction: Transaction | None) -> int:
        if topic == "state" and message.key == markers.KEY and transaction is not None:
            self._markers.append((transaction, message))
        return super()._write(topic, message, transaction)

    def checkpoints(self, partition: int) -> list[markers.Marker]:
        """Return the committed markers of a partition, oldest first."""
        return [
            markers.decode(message.value or b"")
            for transaction, message in self._markers
            if message.partition == partition and transaction.state == "committed"
        ]


class World:
    """Everything that a seed makes happen."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.log = RememberingLog()
        self.log.on_point = self._strike
        self.clock = Clock()
        self.market = Market(self.log, random)
        self.settings = Settings(
            instruments_max=random.choice((2, 3, 100)),
            checkpoint_seconds=random.choice((0.0, 1.0, 5.0)),
            checkpoint_ticks=random.choice((1, 4, 1000)),
            max_batch_ticks=random.randint(1, 8),
        )
        #: How often a fault strikes at a point.
        self._rate = random.choice((0.0, 0.01, 0.03, 0.08))
        self._revises = random.random() < 0.25
        #: Another stream, so that what a seed draws is what it drew before there were pins.
        self._pins = Random(f"pins of {seed}")
        self._promotes = not self._revises and self._pins.random() < 0.4
        #: The pin in force; None before the first.
        self.pin: Pin | None = None
        #: Instances whose machines lack a bundle: (instance, bundle).
        self._lacking: set[tuple[str, str]] = set()
        self._instances = INSTANCES[: random.randint(1, 3)]
        self._revision = REVISIONS[0]
        self.processes: list[Process] = []
        #: A process that does not get a turn for a while, and may lose its session so.
        self._paused: Process | None = None
        #: The processes in the middle of a turn, one inside the other.
        self._acting: list[Process] = []
        self._away_points = 0
        #: Ticks before these offsets are no longer retained.
        self.trimmed = [0] * PARTITIONS
        #: What happened how often.
        self.happened: Counter[str] = Counter()
        self._actions: dict[Callable[[], None], float] = {
            self._turn: 60,
            self._write: 10,
            self._start: 4,
            self._stop: 2,
            self._kill: 1.5,
            self._pause: 3,
            self._expel_the_dead: 3,
            self._expire: 2,
            self._land: 6,
            self.compact: 2,
            self._pass_time: 3,
            self._revise: 1.5 if self._revises else 0,
            self._retain: 1,
            self._promote: 2.5 if self._promotes else 0,
        }

    def run(self) -> None:
        """Let everything happen, then come to rest and stop in an orderly way."""
        self.log.late_markers = self.random.random() < 0.5
        steps = self.random.randint(40, 120)
        while self.market.open or steps > 0:
            steps -= 1
            action = self.random.choices(list(self._actions), list(self._actions.values()))[0]
            action()
        self._come_to_rest()
        for process in list(self.processes):
            self.processes.remove(process)
            process.stop(leave=self.random.random() < 0.5)

    # --- what faults do -----------------------------------------------------------------------------------------------

    @property
    def acting(self) -> Process:
        """The process in whose turn a fault strikes."""
        return self._acting[-1]

    def others_turn(self, times: int) -> None:
        """Let processes turn that are not in the middle of a turn."""
        if len(self._acting) > 2:
            return
        for _ in range(times):
            others = [process for process in self.processes if process not in self._acting]
            if others:
                self._turn_of(self.random.choice(others))
            self._land()

    def start(self, instance_id: str) -> None:
        """Start a process."""
        revision, follower = self._revision, None
        if self._promotes:
            follower = PinFollower(MemoryReader(self.log), GROUP)
            try:
                pin = follower.look()
            except BrokerUnavailable:
                return
            revision = self._revision if pin is None else pin.bundle
            if (instance_id, revision) in self._lacking:
                self.happened["not ready for lack of a bundle"] += 1
                return
        self.happened["started"] += 1
        process = Process(
            self.log,
            self.clock,
            instance_id,
            revision,
            self.settings,
            self.happened,
            follower=follower,
            lacks=lambda wanted: (instance_id, wanted) in self._lacking,
            random=self._pins,
        )
        self.processes.append(process)
        self._attempt(process, process.open)

    def expel(self, instance_id: str) -> None:
        """Let the session of a member time out."""
        self.log.group(GROUP).expel(instance_id)

    def compact(self) -> None:
        """Let the log cleaner pass over a partition of the state topic.

        Tombstones go only while nobody restores: they outlive any restore by `delete.retention.ms`.
        """
        tombstones = not self._restoring and self.random.random() < 0.5
        self.happened["tombstones compacted" if tombstones else "compacted"] += 1
        partition, active = self.random.randrange(PARTITIONS), self.random.choice((0, 0, 1, 3, 8))
        self.log.compact("state", partition, active=active, tombstones=tombstones)

    def away_for(self, points: int) -> None:
        """Let no broker answer for so many requests."""
        self.log.away, self._away_points = True, points

    def _strike(self, point: Point) -> None:
        if self.log.away:
            self._away_points -= 1
            self.log.away = self._away_points > 0
        if not self._acting or self.random.random() >= self._rate:
            return
        fault = self.random.choices(*faults.BY_POINT[point])[0]
        phase = self.acting.phase
        self.happened[f"{fault.__name__} at {point}"] += 1
        self.happened[f"{fault.__name__} while {phase}"] += 1
        fault(self)

    @property
    def _restoring(self) -> bool:
        return any(process.recovery.busy for process in self.processes)

    # --- what happens between turns -----------------------------------------------------------------------------------

    def _turn(self) -> None:
        awake = [process for process in self.processes if process is not self._paused]
        if awake:
            self._turn_of(self.random.choice(awake))
        else:
            self._start()

    def _turn_of(self, process: Process) -> None:
        self._attempt(process, process.turn)

    def _attempt(self, process: Process, call: Callable[[], None]) -> None:
        """Let a process do something that can be its end."""
        self._acting.append(process)
        try:
            call()
        except Crash:
            self.processes.remove(process)
            self.happened["crashed"] += 1
        except (Fenced, BrokerUnavailable, TopicError) as error:
            if isinstance(error, TopicError) and not process.replaced:
                raise
            self.processes.remove(process)
            process.close(leave=False)
            self.happened[f"ended by {type(error).__name__}"] += 1
        finally:
            self._acting.pop()
        self.clock.now += 0.1

    def _write(self) -> None:
        if self.market.open and not self.log.away:
            self.happened[self.market.write()] += 1

    def _start(self) -> None:
        running = {process.instance_id for process in self.processes}
        free = [name for name in self._instances if name not in running]
        if free:
            self.start(self.random.choice(free))

    def _stop(self) -> None:
        if self.processes:
            process = self.random.choice(self.processes)
            leave = self.random.random() < 0.5
            self._attempt(process, lambda: process.stop(leave=leave))
            self.happened["stopped, left" if leave else "stopped, stayed"] += 1
            if process in self.processes:
                self.processes.remove(process)

    def _kill(self) -> None:
        if self.processes:
            self.processes.remove(self.random.choice(self.processes))
            self.happened["killed between turns"] += 1

    def _pause(self) -> None:
        """Let one process sleep, often for longer than its session, or let the one that sleeps wake."""
        asleep, self._paused = self._paused, None
        if asleep is None and self.processes:
            self._paused = self.random.choice(self.processes)
            self.happened["paused"] += 1
            if self.random.random() < 0.7:
                self.expel(self._paused.instance_id)

    def _expel_the_dead(self) -> None:
        """End the sessions of those who no longer poll."""
        running = {process.instance_id for process in self.processes}
        for name in self._instances:
            if name not in running:
                self.expel(name)

    def _expire(self) -> None:
        """Let the coordinator abort what dead processes left open."""
        for name in self._instances:
            if self.log.is_open(transactional_id(GROUP, name)):
                self.log.expire(transactional_id(GROUP, name))
                self.happened["transaction of the dead expired"] += 1

    def _land(self) -> None:
        waiting = self.log.markers()
        if waiting:
            self.log.land(self.random.choice(waiting))
            self.happened["marker landed late"] += 1

    def _pass_time(self) -> None:
        self.clock.now += self.random.uniform(0.5, 12)

    def _revise(self) -> None:
        """Move to another revision: those that start from now on, and at times all at once."""
        self._revision = self.random.choice([name for name in REVISIONS if name != self._revision])
        self.happened["revised"] += 1
        if self.random.random() < 0.5:
            self.processes.clear()

    def _promote(self) -> None:
        """Pin a bundle as the tool does; machines get or lose some."""
        if self.log.away:
            return
        before = self.pin
        bundle = self._pins.choice(REVISIONS)
        number, previous = (1, "") if before is None else (before.number + 1, before.bundle)
        pin = Pin(GROUP, bundle, previous, number, "then")
        claim = self.log.claim(transactional_id(GROUP, OPERATOR))
        self.log.begin(claim)
        self.log.append(claim, "state", Message(pins.PARTITION, pins.KEY, pins.encode(pin)))
        committed = self._pins.random() < 0.9
        self.log.end(claim, committed=committed)
        self.pin = pin if committed else before
        self._lacking = {(name, bundle) for name in self._instances if self._pins.random() < 0.2}
        self.happened["promoted" if committed else "a promotion failed"] += 1

    def _retain(self) -> None:
        """Let retention take ticks that are in the newest checkpoint, as slowly as it does: nobody is reading them."""
        partition = self.random.randrange(PARTITIONS)
        checkpoints = self.log.checkpoints(partition)
        if checkpoints and not self._restoring and not self.log.markers():
            self.trimmed[partition] = max(self.trimmed[partition], checkpoints[-1].next_offset)
            self.log.trim("ticks", partition, self.trimmed[partition])
            self.happened["trimmed"] += 1

    # --- the end ------------------------------------------------------------------------------------------------------

    def _come_to_rest(self) -> None:
        self._rate, self.log.away, self.log.late_markers = 0.0, False, False
        self._lacking.clear()
        if not self.processes:
            self._start()
        for _ in range(PATIENCE_ROUNDS):
            while self.log.markers():
                self._land()
            self._expel_the_dead()
            self._expire()
            for process in list(self.processes):
                self._turn_of(process)
            if not self.processes:
                self._start()
            if self._rests():
                return
        raise NotAtRest(f"not at rest after {PATIENCE_ROUNDS} rounds: {self._open_work()}")

    def _rests(self) -> bool:
        owned = sorted(p for process in self.processes for p in process.source.assignment())
        shared = owned == list(range(PARTITIONS)) and self.log.group(GROUP).settled
        return (
            shared and not self._restoring and not self._open_work() and all(p.runs(self.pin) for p in self.processes)
        )

    def _open_work(self) -> dict[int, tuple[int | None, int]]:
        """Return committed offset and goal of the partitions that are not done."""
        offsets = self.log.group(GROUP).offsets
        return {p: (offsets.get(p), goal) for p, goal in self._goals().items() if offsets.get(p, -1) < goal}

    def _goals(self) -> dict[int, int]:
        """Return the offset after the last tick that is to be answered, by partition."""
        return {p: records[-1].offset + 1 if records else 0 for p, records in self.market.answerable.items()}
