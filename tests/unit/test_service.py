"""The loop on the in-memory transport: whatever fails, every tick has exactly one outcome."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from prometheus_client import CollectorRegistry

from daemon.checkpoints import Checkpoints
from daemon.core.marker import KEY, Marker, decode
from daemon.core.pipeline import Pipeline
from daemon.core.records import Message
from daemon.errors import BrokerUnavailable, Fenced, TooManyDeadLetters, TopicError
from daemon.health import Health
from daemon.metrics import Metrics
from daemon.recovery import Recovery
from daemon.resume import Terms
from daemon.service import LoopOptions, Service
from daemon.spread import PredictionSpread
from daemon.transport.memory import MemoryReader, MemorySink, MemorySource
from daemon.transport.memory_group import Refused
from daemon.transport.memory_log import MemoryLog, Point
from daemon.watched import Watch
from schemas import HEADER_PREFIX, ResetCause
from tests.ticks import OUTPUTS, at, pipeline, raw

PARTITIONS = 3
GROUP = "desk"


class StillClock:
    """Time that only waiting moves."""

    def __init__(self) -> None:
        self.now = at(0) / 1e9

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


class Instance:
    """One service on a log, with what a test wants to look at."""

    def __init__(
        self,
        log: MemoryLog,
        instance_id: str = "0",
        *,
        on_lost_ticks: str = "stop",
        revision: str = "revision-one",
        checkpoint_seconds: float = 5.0,
        **options: float,
    ) -> None:
        self.pipeline: Pipeline = pipeline(partitions=())
        self.source = MemorySource(log, group_id=GROUP, instance_id=instance_id)
        sink = MemorySink(log, group_id=GROUP, instance_id=instance_id)
        self.clock = StillClock()
        terms = Terms(GROUP, self.source.topic_id(), revision, on_lost_ticks)  # type: ignore[arg-type]
        self.recovery = Recovery(self.source, MemoryReader(log), self.pipeline, terms, monotonic=self.clock.monotonic)
        self.health = Health(60, self.clock.monotonic)
        self.registry = CollectorRegistry()
        self.service = Service(
            self.source,
            sink,
            self.pipeline,
            self.recovery,
            Checkpoints(self.pipeline, checkpoint_seconds, 100_000, self.clock.monotonic),
            Metrics(self.registry, Watch(PredictionSpread(len(OUTPUTS), 5))),
            self.health,
            LoopOptions(**{"max_batch_ticks": 5, **options}),  # type: ignore[arg-type]
            self.clock,
        )

    def turn(self, times: int = 1, *, seconds: float = 0.0) -> None:
        """Turn so often, each turn so long after the last."""
        for _ in range(times):
            self.clock.now += seconds
            self.service.turn()


def new_log() -> MemoryLog:
    """Return a log whose clock is ahead of all the ticks."""
    log = MemoryLog(PARTITIONS)
    log.now_ms = at(10_000) // 10**6
    return log


def fill(log: MemoryLog, ticks: int, *, start: int = 0, bad_every: int = 7) -> None:
    """Write ticks of six instruments, two to a partition, some of them no ticks at all."""
    for n in range(start, start + ticks):
        name = f"I{n % 6}"
        value = b"no tick" if n % bad_every == bad_every - 1 else json.dumps(raw(n, name, price=100 + n % 5)).encode()
        log.produce(n % PARTITIONS, name.encode(), value)


def outcomes(log: MemoryLog) -> Counter[tuple[int, int]]:
    """Count the committed outcomes of each tick, by partition and offset."""
    found: Counter[tuple[int, int]] = Counter()
    for record in log.read("forecasts"):
        topic, partition, offset = json.loads(record.value or b"")["id"].split("-")
        assert (topic, int(partition)) == ("ticks", record.partition)
        found[record.partition, int(offset)] += 1
    for record in log.read("dead_letters"):
        headers = dict(record.headers)
        assert record.value == b"no tick"
        found[record.partition, int(headers[HEADER_PREFIX + "offset"])] += 1
    return found


def assert_undisturbed(log: MemoryLog) -> None:
    """Each tick has one outcome, and they are those of one run over the whole log, byte for byte."""
    assert outcomes(log) == Counter({(record.partition, record.offset): 1 for record in log.read("ticks")})
    expected = pipeline(partitions=range(PARTITIONS)).advance(log.read("ticks"))
    assert [r.value for r in log.read("forecasts")] == [m.value for m in by_partition(expected.forecasts)]
    letters = [tuple(message.headers) for message in by_partition(expected.dead_letters)]
    assert [record.headers for record in log.read("dead_letters")] == letters


def by_partition(messages: list[Message]) -> list[Message]:
    return sorted(messages, key=lambda message: message.partition)


def test_every_tick_has_one_outcome_and_the_offsets_say_so() -> None:
    log = new_log()
    fill(log, 50)
    instance = Instance(log)
    instance.turn(30)
    assert_undisturbed(log)
    assert log.group(GROUP).offsets == {p: log.bounds("ticks", p, "read_committed")[1] for p in range(PARTITIONS)}
    assert instance.service.committed == log.group(GROUP).offsets
    assert instance.registry.get_sample_value("tickcast_ticks_total", {"outcome": "dead_letter"}) == 7
    assert instance.health.waiting_for is None


@pytest.mark.parametrize("point", ["begin", "send", "offsets", "commit"])
def test_a_failed_transaction_loses_and_doubles_nothing(point: Point) -> None:
    log = new_log()
    fill(log, 50)
    instance = Instance(log)
    instance.turn(4)
    failures = iter([True, False, True])

    def refuse(here: Point) -> None:
        if here == point and next(failures, False):
            raise Refused("made to fail")

    log.on_point = refuse
    instance.turn(40)
    assert_undisturbed(log)
    assert instance.registry.get_sample_value("tickcast_transactions_total", {"outcome": "failed"}) == 2


@pytest.mark.parametrize("point", ["poll", "begin", "send", "offsets", "commit", "committed"])
def test_a_process_that_dies_anywhere_is_followed_by_one_that_goes_on(point: Point) -> None:
    class Dead(BaseException):
        pass

    log = new_log()
    fill(log, 50)
    first = Instance(log)
    first.turn(4)

    def die(here: Point) -> None:
        if here == point:
            raise Dead

    log.on_point = die
    with pytest.raises(Dead):
        first.turn(20)
    log.on_point = lambda here: None
    second = Instance(log)
    second.service._sink.open()
    second.turn(40)
    assert_undisturbed(log)


def test_instances_that_come_and_go_share_the_ticks() -> None:
    log = new_log()
    instances = {"0": Instance(log, "0")}
    for step in range(120):
        fill(log, 3, start=3 * step)
        if step == 30:
            instances["1"] = Instance(log, "1")
        if step == 60:
            instances["2"] = Instance(log, "2")
        if step == 90:
            instances.pop("0").source.close(leave=True)
        for instance in instances.values():
            instance.turn()
    for _ in range(40):
        for instance in instances.values():
            instance.turn()
    assert_undisturbed(log)
    assert all(instance.source.assignment() for instance in instances.values())


def test_the_older_of_two_processes_with_one_name_ends_and_the_newer_goes_on() -> None:
    log = new_log()
    fill(log, 30)
    older = Instance(log, "same")
    older.turn(3)
    newer = Instance(log, "same")
    newer.service._sink.open()
    newer.turn()
    with pytest.raises(Fenced):
        older.turn(20)
    newer.turn(40)
    assert_undisturbed(log)


def test_too_many_dead_letters_stop_the_daemon_before_it_drains_the_topic() -> None:
    log = new_log()
    fill(log, 3000, bad_every=1)
    instance = Instance(log, max_batch_ticks=100)
    with pytest.raises(TooManyDeadLetters, match="not_json"):
        instance.turn(100)
    drained = len(log.read("dead_letters"))
    assert drained < 1000
    with pytest.raises(TooManyDeadLetters):
        Instance(log, max_batch_ticks=2000).turn(100)
    assert len(log.read("dead_letters")) == drained


def test_half_the_ticks_may_be_bad_for_ever_with_a_ratio_of_one() -> None:
    log = new_log()
    fill(log, 3000, bad_every=1)
    Instance(log, max_batch_ticks=1000, dead_letter_ratio_max=1.0).turn(10)
    assert_undisturbed(log)


def test_a_broker_that_stays_away_ends_the_process_in_bounded_time() -> None:
    log = new_log()
    fill(log, 50)
    instance = Instance(log, broker_timeout_seconds=60)

    def refuse(here: Point) -> None:
        if here == "commit":
            raise Refused("away")

    log.on_point = refuse
    started = instance.clock.monotonic()
    with pytest.raises(BrokerUnavailable, match="away"):
        instance.turn(1000)
    assert 60 < instance.clock.monotonic() - started < 120
    assert outcomes(log) == Counter()


def test_ticks_that_are_no_longer_retained_stop_the_daemon_unless_told_otherwise() -> None:
    log = new_log()
    fill(log, 30)
    Instance(log).turn(10)
    fill(log, 30, start=30)
    log.trim("ticks", 1, 15)
    with pytest.raises(TopicError, match="ticks 10 to 14 are no longer retained"):
        Instance(log).turn(5)
    Instance(log, on_lost_ticks="reset").turn(20)
    assert set(outcomes(log).values()) == {1}
    assert len(outcomes(log)) == 60 - 5


def test_a_recreated_topic_stops_the_daemon() -> None:
    log = new_log()
    fill(log, 30)
    log.group(GROUP).offsets[2] = 999
    with pytest.raises(TopicError, match="created anew"):
        Instance(log).turn(5)


def test_the_loop_ends_after_the_batch_in_work_when_asked() -> None:
    log = new_log()
    fill(log, 50)
    instance = Instance(log)

    def stop(here: Point) -> None:
        if here == "commit" and log.read("forecasts", "read_uncommitted"):
            instance.service.stop()

    log.on_point = stop
    instance.service.run()
    assert len(outcomes(log)) == 5
    assert sum(log.group(GROUP).offsets.values()) == 5


def test_batches_keep_their_distance_when_asked() -> None:
    log = new_log()
    fill(log, 50)
    instance = Instance(log, min_batch_ms=20)
    instance.turn()
    started = instance.clock.monotonic()
    instance.turn(10)
    assert instance.clock.monotonic() - started == pytest.approx(0.2)


def markers(log: MemoryLog) -> dict[int, Marker]:
    """Return the newest committed marker of each partition."""
    return {r.partition: decode(r.value or b"") for r in log.read("state") if r.key == KEY}


def test_a_new_partition_has_a_checkpoint_before_its_first_answer() -> None:
    log = new_log()
    fill(log, 9)
    seen: list[tuple[int, int]] = []
    log.on_point = lambda here: seen.append((len(markers(log)), len(log.read("forecasts")))) if here == "send" else None
    Instance(log).turn(5)
    assert seen[:PARTITIONS] == [(0, 0), (1, 0), (2, 0)]  # the markers themselves
    assert {count for count, _ in seen[PARTITIONS:]} == {PARTITIONS}
    assert {p: m.origin for p, m in markers(log).items()} == dict.fromkeys(range(PARTITIONS), ResetCause.FIRST)


def test_checkpoints_come_after_their_time_one_partition_at_a_time_and_hold_what_was_touched() -> None:
    log = new_log()
    instance = Instance(log, checkpoint_seconds=3.0)
    instance.turn(2)
    for step in range(40):
        fill(log, 3, start=3 * step)
        before = markers(log)
        instance.turn(seconds=0.5)
        assert sum(marker != before[p] for p, marker in markers(log).items()) <= 1
    at_end = {p: log.bounds("ticks", p, "read_committed")[1] for p in range(PARTITIONS)}
    assert all(at_end[p] - 8 <= marker.next_offset <= at_end[p] for p, marker in markers(log).items())
    keys = {(record.partition, record.key) for record in log.read("state") if record.key != KEY}
    assert keys == {(n % PARTITIONS, f"I{n}".encode()) for n in range(6)}


def test_a_partition_gone_quiet_is_saved_in_a_transaction_of_its_own() -> None:
    log = new_log()
    instance = Instance(log, checkpoint_seconds=3.0)
    instance.turn(2)
    fill(log, 30, bad_every=100)
    instance.turn(20)
    committed = dict(log.group(GROUP).offsets)
    instance.turn(PARTITIONS, seconds=10.0)
    assert {p: marker.next_offset for p, marker in markers(log).items()} == committed
    written = log.read("state", "read_uncommitted")
    instance.turn(20, seconds=10.0)
    assert log.read("state", "read_uncommitted") == written  # nothing new, nothing written


def test_a_stop_saves_everything_so_that_the_next_start_replays_nothing() -> None:
    log = new_log()
    fill(log, 50)
    first = Instance(log)
    log.on_point = lambda here: first.service.stop() if here == "poll" and len(log.read("forecasts")) > 30 else None
    first.service.run()
    log.on_point = lambda here: None
    assert {p: marker.next_offset for p, marker in markers(log).items()} == log.group(GROUP).offsets
    second = Instance(log)
    second.service._sink.open()
    second.turn(40)
    assert second.recovery.replayed_count == 0
    assert_undisturbed(log)


def test_a_start_that_was_not_saved_replays_silently_what_was_answered() -> None:
    log = new_log()
    fill(log, 50)
    first = Instance(log, checkpoint_seconds=1000)
    first.turn(8)
    answered = sum(outcomes(log).values())
    second = Instance(log)
    second.service._sink.open()
    second.turn(40)
    assert answered > 20
    assert second.recovery.replayed_count == answered
    assert second.registry.get_sample_value("tickcast_restore_remaining_ticks") == 0
    assert_undisturbed(log)


def test_it_is_not_ready_until_all_is_restored() -> None:
    log = new_log()
    fill(log, 50)
    Instance(log).turn(8)
    second = Instance(log)
    second.service._sink.open()
    states: list[tuple[bool, str | None]] = []

    def look(here: Point) -> None:
        if here == "poll":
            states.append((second.recovery.busy, second.health.waiting_for))

    log.on_point = look
    second.turn(20, seconds=2.0)
    assert states[-1] == (False, None)
    assert all(waiting_for is not None for busy, waiting_for in states if busy)


def test_who_has_been_quiet_for_long_learns_that_its_place_is_taken() -> None:
    log = new_log()
    fill(log, 30)
    older = Instance(log, "same")
    older.turn(20)
    Instance(log, "same").turn(2)
    with pytest.raises(Fenced):
        older.turn(20, seconds=1.0)  # no tick has come that it could fail to answer
