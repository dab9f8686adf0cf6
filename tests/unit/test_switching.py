"""A model takes over while ticks flow: when, with what in the log, and what else can happen to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import pytest
from prometheus_client import CollectorRegistry

from daemon.checkpoints import Checkpoints
from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.core.marker import Marker
from daemon.core.pin import Pin
from daemon.core.pipeline import Pipeline
from daemon.core.spec import Column, ModelSpec
from daemon.errors import BrokerUnavailable, BundleError
from daemon.health import Health
from daemon.metrics import Metrics
from daemon.recovery import Recovery
from daemon.resume import Terms
from daemon.service import LoopOptions, Service
from daemon.spread import PredictionSpread
from daemon.switching import ANEW_SECONDS, RETRY_SECONDS, Model, Stage, Switching, aside, unusable
from daemon.transport.memory import MemoryReader, MemorySink, MemorySource
from daemon.transport.memory_group import Refused
from daemon.transport.memory_log import MemoryLog, Point
from daemon.watched import Watch
from schemas import ResetCause
from tests.steps import RandomStep
from tests.ticks import COLUMNS, OUTPUTS, at, pipeline, raw

PARTITIONS = 3
GROUP = "desk"
OLD, NEW = "revision-old", "revision-new"
#: A model that reads a field which no tick has.
PICKY = "revision-pky"
Value = TypeVar("Value")


def made(name: str) -> Pipeline:
    """Return the pipeline of a model, without partitions."""
    columns = (*COLUMNS, Column("field:flow")) if name == PICKY else COLUMNS
    step = RandomStep(len(columns), len(OUTPUTS), seed=[OLD, NEW, PICKY].index(name))
    return pipeline(ModelSpec(name, columns, OUTPUTS), step=step, partitions=())


class Clock:
    """Time that only a test moves."""

    def __init__(self) -> None:
        self.now = at(0) / 1e9

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


class World:
    """One instance on a log, with models to load and a pin to look at."""

    def __init__(self, *, ratio_max: float = 1.0, running: str = OLD) -> None:
        self.log = MemoryLog(PARTITIONS)
        self.log.now_ms = at(10_000) // 10**6
        self.clock = Clock()
        self.pin: Pin | Exception | None = None
        #: What is wrong with bundles, by id.
        self.faults: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.waiting: list[tuple[Future, Callable]] = []
        #: Whether calls off the loop come back within the turn.
        self.at_once = True
        source = MemorySource(self.log, group_id=GROUP, instance_id="0")
        live = made(running)
        terms = Terms(GROUP, source.topic_id(), running)
        self.recovery = Recovery(source, MemoryReader(self.log), live, terms, monotonic=self.clock.monotonic)
        self.health = Health(60, self.clock.monotonic)
        self.registry = CollectorRegistry()
        self.switching = Switching(
            running,
            self._look,
            self._load,
            dead_letter_ratio_max=ratio_max,
            off_the_loop=self._aside,
            monotonic=self.clock.monotonic,
        )
        self.service = Service(
            source,
            MemorySink(self.log, group_id=GROUP, instance_id="0"),
            live,
            self.recovery,
            Checkpoints(live, 5.0, 100_000, self.clock.monotonic),
            Metrics(self.registry, Watch(PredictionSpread(len(OUTPUTS), 5))),
            self.health,
            LoopOptions(max_batch_ticks=5),
            self.clock,
            self.switching,
        )

    def _look(self) -> Pin | None:
        if isinstance(self.pin, Exception):
            raise self.pin
        return self.pin

    def _load(self, name: str) -> Model:
        self.asked.append(name)
        if name in self.faults:
            raise self.faults[name]
        return Model(name, name, made(name), Watch(PredictionSpread(len(OUTPUTS), 5), validation_variance=0.5))

    def _aside(self, call: Callable[[], Value], /) -> Future[Value]:
        future: Future[Value] = Future()
        self.waiting.append((future, call))
        if self.at_once:
            self.come_back()
        return future

    def come_back(self) -> None:
        """Let all calls off the loop return."""
        waiting, self.waiting = self.waiting, []
        for future, call in waiting:
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)

    def promote(self, name: str) -> None:
        number = self.pin.number + 1 if isinstance(self.pin, Pin) else 1
        self.pin = Pin(GROUP, name, "", number, "")

    def fill(self, ticks: int, start: int = 0, names: int = 6) -> None:
        """Write ticks of instruments that keep to one partition each."""
        for n in range(start, start + ticks):
            name = f"I{n % names}"
            self.log.produce(n % PARTITIONS, name.encode(), json.dumps(raw(n, name, price=100 + n % 5)).encode())

    def turn(self, times: int = 1, *, seconds: float = 0.3) -> None:
        for _ in range(times):
            self.clock.now += seconds
            self.service.turn()

    def models(self) -> dict[int, list[str]]:
        """Return the model of each forecast of each partition; every tick must have one."""
        found: dict[int, list[str]] = {partition: [] for partition in range(PARTITIONS)}
        seen: Counter[str] = Counter()
        for record in self.log.read("forecasts"):
            forecast = json.loads(record.value or b"")
            found[record.partition].append(forecast["model"])
            seen[forecast["id"]] += 1
        assert set(seen.values()) <= {1}
        return found

    def markers(self, partition: int) -> list[Marker]:
        records = self.log.read("state")
        return [
            markers.decode(each.value or b"")
            for each in records
            if (each.partition, each.key) == (partition, markers.KEY)
        ]


def served(ticks: int = 30, **options: float) -> World:
    """Return a world whose ticks are answered."""
    world = World(**options)  # type: ignore[arg-type]
    world.fill(ticks)
    world.turn(20)
    return world


def test_a_pinned_model_takes_over_and_every_partition_has_a_checkpoint_of_it_before_its_first_forecast() -> None:
    world = served()
    world.promote(NEW)
    world.turn(10)
    assert world.switching.stage is Stage.SETTLED
    assert world.switching.running == NEW
    for partition in range(PARTITIONS):
        newest = world.markers(partition)[-1]
        assert (newest.revision, newest.model, newest.pin) == (NEW, NEW, world.pin)
        assert (newest.replay_start, newest.live_from, newest.origin) == (0, 10, ResetCause.REVISION)
    world.fill(30, start=30)
    world.turn(10)
    assert world.models() == {partition: [OLD] * 10 + [NEW] * 10 for partition in range(PARTITIONS)}


def test_its_forecasts_are_those_of_a_run_that_was_warmed_up_the_same_way() -> None:
    world = served()
    world.promote(NEW)
    world.turn(10)
    world.fill(30, start=30)
    world.turn(10)
    expected = made(NEW)
    for partition in range(PARTITIONS):
        expected.assign(partition, ResetCause.REVISION)
    ticks = world.log.read("ticks")
    expected.replay(tick for tick in ticks if tick.offset < 10)
    for partition in range(PARTITIONS):
        expected.warmed_up(partition, ResetCause.REVISION)
    wanted = expected.advance(tick for tick in ticks if tick.offset >= 10).forecasts
    found = [r.value for r in world.log.read("forecasts") if json.loads(r.value or b"")["model"] == NEW]
    assert found == [message.value for message in sorted(wanted, key=lambda each: each.partition)]
    first = [json.loads(value or b"") for value in found[:2]]
    assert [(each["reset"], each["step"]) for each in first] == [("revision", 5), ("revision", 5)]


def test_the_old_one_goes_on_while_the_new_one_is_loaded() -> None:
    world = served()
    world.at_once = False
    world.promote(NEW)
    world.turn(3)
    world.come_back()  # the look
    world.turn(2)
    assert world.switching.stage is Stage.LOADING
    world.fill(30, start=30)
    world.turn(10)
    assert world.models() == {partition: [OLD] * 20 for partition in range(PARTITIONS)}
    assert world.health.waiting_for is None
    world.come_back()
    world.turn(10)
    assert world.switching.running == NEW


def test_the_metrics_follow_the_new_one() -> None:
    world = served()
    world.promote(NEW)
    world.turn(10)
    (family,) = (each for each in world.registry.collect() if each.name == "tickcast_build_info")
    assert [(s.labels["model"], s.labels["revision"]) for s in family.samples] == [(NEW, NEW)]
    assert world.registry.get_sample_value("tickcast_bundle_switches_total") == 1


def test_a_bundle_that_cannot_be_loaded_is_refused_until_it_can() -> None:
    world = served()
    world.faults[NEW] = BundleError("its weights were changed")
    world.promote(NEW)
    world.turn(10)
    assert world.switching.stage is Stage.REFUSED
    assert world.health.waiting_for == f"the pinned bundle {NEW}, {OLD} goes on: its weights were changed"
    world.fill(30, start=30)
    world.turn(10)
    assert world.models() == {partition: [OLD] * 20 for partition in range(PARTITIONS)}
    world.turn(2, seconds=RETRY_SECONDS + 1)
    assert world.asked == [NEW] * 2
    assert world.registry.get_sample_value("tickcast_bundles_refused_total") == 1, "once for one reason"
    del world.faults[NEW]
    world.turn(1, seconds=RETRY_SECONDS + 1)
    world.turn(5)
    assert world.switching.running == NEW
    assert world.health.waiting_for is None


def test_whatever_goes_wrong_while_it_is_loaded_ends_nothing() -> None:
    world = served()
    world.faults[NEW] = MemoryError("too large")
    world.promote(NEW)
    world.turn(5)
    assert world.switching.stage is Stage.REFUSED
    assert "too large" in (world.health.waiting_for or "")


def test_a_model_that_cannot_use_the_ticks_is_refused_for_good() -> None:
    world = served()
    world.promote(PICKY)
    world.turn(10)
    assert world.switching.stage is Stage.REFUSED
    assert "cannot use 30 of the last 30 ticks" in (world.health.waiting_for or "")
    world.turn(5, seconds=RETRY_SECONDS + 1)
    assert world.asked == [PICKY]
    world.promote(NEW)
    world.turn(10)
    assert world.switching.running == NEW


@pytest.mark.parametrize(
    ("replayed", "accepted", "ratio_max", "instruments", "refused"),
    [
        (0, 0, 0.5, 3, False),
        (10, 0, 1.0, 3, True),
        (10, 0, 0.5, 0, False),
        (999, 1, 0.5, 3, False),
        (1000, 501, 0.5, 3, False),
        (1000, 499, 0.5, 3, True),
        (1000, 1, 1.0, 3, False),
    ],
)
def test_a_model_is_unusable_where_the_loop_would_stop_or_nothing_is_accepted(
    replayed: int, accepted: int, ratio_max: float, instruments: int, refused: bool
) -> None:
    assert (unusable(replayed, accepted, ratio_max, instruments) is not None) is refused


def test_a_newer_pin_takes_the_place_of_one_on_its_way() -> None:
    world = served()
    world.at_once = False
    world.promote(PICKY)
    world.turn(2)
    world.come_back()
    world.turn(1)
    world.promote(NEW)
    world.turn(5)
    world.at_once = True
    world.come_back()
    world.turn(10)
    assert world.switching.running == NEW
    assert {model for each in world.models().values() for model in each} == {OLD}


def test_a_pin_of_what_runs_calls_a_switch_off() -> None:
    world = served()
    world.faults[NEW] = BundleError("damaged")
    world.promote(NEW)
    world.turn(5)
    world.promote(OLD)
    world.turn(8)
    assert (world.switching.stage, world.switching.running) == (Stage.SETTLED, OLD)
    assert world.health.waiting_for is None


@pytest.mark.parametrize("point", ["begin", "send", "offsets", "commit", "committed"])
def test_a_switch_whose_transaction_fails_is_a_recovery_under_the_new_model(point: Point) -> None:
    world = served()

    def refuse(here: Point) -> None:
        if here == point and world.switching.running == NEW:
            world.log.on_point = lambda _: None
            raise Refused("no")

    world.log.on_point = refuse
    world.promote(NEW)
    world.turn(20)
    assert not world.recovery.busy
    world.fill(30, start=30)
    world.turn(10)
    assert world.models() == {partition: [OLD] * 10 + [NEW] * 10 for partition in range(PARTITIONS)}
    for partition in range(PARTITIONS):
        assert world.markers(partition)[-1].revision == NEW


def test_keys_that_only_the_old_model_has_written_are_deleted() -> None:
    world = World()
    for n in range(12):
        fields = {"fields": {"flow": n}} if n % 2 else {}
        name = f"I{n % 2}"
        world.log.produce(0, name.encode(), json.dumps(raw(n, name, **fields)).encode())
    world.turn(30)
    assert any(record.key == b"I0" for record in world.log.read("state"))
    world.promote(PICKY)
    world.turn(10)
    assert world.switching.running == PICKY
    newest = {record.key: record.value for record in world.log.read("state") if record.partition == 0}
    assert newest[b"I0"] is None, "nobody will ever write it again"
    assert newest[b"I1"] is not None


def test_so_are_those_that_it_writes_during_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.log.produce(0, b"I1", json.dumps(raw(0, "I1", fields={"flow": 1})).encode())
    world.turn(30)
    finished: list[bool] = []
    work = Switching.work

    def held(self: Switching, recovery: Recovery, positions: dict[int, int], seconds: float) -> object:
        found = work(self, recovery, positions, seconds)
        return found if finished else None

    monkeypatch.setattr(Switching, "work", held)
    world.promote(PICKY)
    world.turn(10)
    world.log.produce(0, b"I0", json.dumps(raw(1, "I0")).encode())
    world.turn(20)
    assert any(record.key == b"I0" for record in world.log.read("state"))
    finished.append(True)
    world.turn(2)
    assert world.switching.running == PICKY
    newest = {record.key: record.value for record in world.log.read("state") if record.partition == 0}
    assert newest[b"I0"] is None


def test_ticks_that_are_deleted_under_a_warm_up_let_it_begin_anew() -> None:
    world = served()
    world.turn(20)  # checkpoints of all of it
    trimmed: list[int] = []

    def trim(here: Point) -> None:
        if here == "read" and world.switching.stage is Stage.WARMING and not trimmed:
            for partition in range(PARTITIONS):
                world.log.trim("ticks", partition, 10)
            trimmed.append(1)

    world.log.on_point = trim
    world.promote(NEW)
    world.turn(10)
    world.turn(3, seconds=ANEW_SECONDS + 1)
    assert trimmed
    assert world.switching.running == NEW


def test_a_look_that_fails_is_made_again() -> None:
    world = served()
    world.pin = BrokerUnavailable("no answer")
    world.turn(5)
    world.pin = None
    world.promote(NEW)
    world.turn(10)
    assert world.switching.running == NEW


def test_a_pin_that_only_the_owner_of_its_partition_meets_counts_and_stands_in_the_next_markers() -> None:
    world = World()
    pin = Pin(GROUP, NEW, "", 7, "")
    world.log.produce(0, pins.KEY, pins.encode(pin), topic="state")
    world.fill(30)
    world.turn(30)
    assert world.pin is None, "nobody else has said so"
    assert world.switching.running == NEW
    assert {world.markers(partition)[-1].pin for partition in range(PARTITIONS)} == {pin}


def test_who_has_no_partitions_takes_over_without_a_transaction() -> None:
    world = World()
    other = MemorySource(world.log, group_id=GROUP, instance_id="other")
    while len(other.poll(0, 0).assigned) < PARTITIONS and len(other.assignment()) < PARTITIONS:
        pass
    world.promote(NEW)
    world.turn(10)
    assert world.switching.running == NEW
    assert world.log.read("state") == []


def test_a_call_aside_brings_back_what_it_returns_and_what_it_raises() -> None:
    assert aside(lambda: 7).result(10) == 7

    def fail() -> Sequence[int]:
        raise BundleError("damaged")

    with pytest.raises(BundleError, match="damaged"):
        aside(fail).result(10)
