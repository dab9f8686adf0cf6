"""Recovery on the in-memory transport: whatever is found, partitions come to work, or it is said why not."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from daemon.checkpoints import checkpoint
from daemon.core import marker as markers
from daemon.core.marker import Marker
from daemon.core.pipeline import Pipeline
from daemon.core.records import Message
from daemon.core.snapshot import encode, encode_reset
from daemon.errors import BrokerUnavailable, TopicError
from daemon.phases import Phase
from daemon.recovery import Recovered, Recovery
from daemon.restore import READ_RECORDS
from daemon.resume import Terms
from daemon.transport.memory import MemoryReader, MemorySource
from daemon.transport.memory_log import Claim, MemoryLog, Point
from schemas import ResetCause
from tests.property.logs import remembered
from tests.ticks import at, payloads, pipeline, raw
from tests.unit.test_service import Instance, fill, new_log

GROUP = "desk"
ONE, TWO = "revision-one", "revision-two"
#: As the loop does it.
SLICE = 0.05
PATIENCE = 60.0
NAMES = "ABCD"


@dataclass
class World:
    """A cluster on which somebody has worked before, and the time."""

    partitions: int = 1
    now: float = 0.0
    #: Seconds that a read takes.
    read_seconds: float = 0.0
    points: list[Point] = field(default_factory=list)
    rooms: int = 100

    def __post_init__(self) -> None:
        self.log = MemoryLog(self.partitions)
        self.log.now_ms = at(100_000) // 10**6
        self.log.on_point = self.pass_point
        self.group = self.log.group(GROUP)

    def pass_point(self, point: Point) -> None:
        self.points.append(point)
        if point == "read":
            self.now += self.read_seconds

    def fill(self, ticks: int, partition: int = 0, names: str = NAMES) -> None:
        """Write ticks of the instruments in turn, the fifth of five no tick at all."""
        start = self.log.bounds("ticks", partition, "read_uncommitted")[1]
        for n in range(start, start + ticks):
            name = f"{names[n % len(names)]}{partition}"
            value = b"no tick" if n % 5 == 4 else json.dumps(raw(n, name, price=100 + n % 7)).encode()
            self.log.produce(partition, name.encode(), value)

    def run(self, start: int, end: int, partition: int = 0, origin: ResetCause = ResetCause.FIRST) -> Pipeline:
        """Return a pipeline that has answered the ticks from `start` to before `end`, undisturbed."""
        made = pipeline(partitions=(partition,), origin=origin, instruments_per_partition_max=self.rooms)
        made.advance(self.ticks(start, end, partition))
        return made

    def ticks(self, start: int, end: int, partition: int = 0) -> list[Any]:
        found = self.log.records("ticks", partition, start, "read_committed")
        return [record for record in found if record.offset < end]

    def write(self, *messages: Message) -> None:
        """Write to the state topic in one transaction."""
        self.log.end(self.open(*messages), committed=True)

    def open(self, *messages: Message) -> Claim:
        """Write to the state topic in a transaction that stays open."""
        claim = self.log.claim("writer")
        self.log.begin(claim)
        for message in messages:
            self.log.append(claim, "state", message)
        return claim

    def save(self, next_offset: int, partition: int = 0, *, revision: str = ONE, **facts: Any) -> Pipeline:
        """Checkpoint an undisturbed run up to an offset, and commit that; return the run."""
        made = self.run(0, next_offset, partition)
        self.write(*checkpoint(made, partition, self.marker(next_offset, revision=revision, **facts)))
        self.group.offsets[partition] = next_offset
        return made

    def marker(self, next_offset: int, *, revision: str = ONE, origin: ResetCause = ResetCause.FIRST) -> Marker:
        return Marker(GROUP, self.log.topic_id("ticks"), revision, next_offset, 0, 0, origin)

    def hold(self, partition: int) -> str:
        """Let another owner's transaction hold the offset of a partition; return its id."""
        member_id = self.group.join("other owner")
        while self.group.turn(member_id).waiting:
            pass
        claim = self.log.claim("other owner")
        self.log.begin(claim)
        self.log.add_offsets(claim, self.group.membership(member_id), {partition: self.group.offsets.get(partition, 0)})
        self.group.leave(member_id)
        return "other owner"

    def start(self, *, revision: str = ONE, **terms: Any) -> Start:
        """Return a new process that has just got all partitions."""
        return Start(self, Terms(GROUP, self.log.topic_id("ticks"), revision, **terms))


class Start:
    """A process that recovers."""

    def __init__(self, world: World, terms: Terms) -> None:
        self.world = world
        self.source = MemorySource(world.log, group_id=GROUP, instance_id="0")
        self.pipeline = pipeline(partitions=(), instruments_per_partition_max=world.rooms)
        self.recovery = Recovery(
            self.source,
            MemoryReader(world.log),
            self.pipeline,
            terms,
            patience_seconds=PATIENCE,
            monotonic=lambda: world.now,
        )
        assigned = [partition for _ in range(4) for partition in self.source.poll(0, 0).assigned]  # rounds of the group
        assert sorted(assigned) == list(range(world.log.partitions))
        self.recovery.begin(assigned)
        world.points.clear()

    def slices(self, most: int = 1000) -> Iterator[list[Recovered]]:
        """Work slice by slice until all have arrived."""
        for _ in range(most):
            if not self.recovery.busy:
                return
            yield self.recovery.work(SLICE)
        raise AssertionError("it never arrives")

    def arrive(self) -> dict[int, Recovered]:
        """Recover all partitions, and write the checkpoints that they owe."""
        arrived = {each.partition: each for some in self.slices() for each in some}
        for each in arrived.values():
            if each.owed:
                self.world.write(*checkpoint(self.pipeline, each.partition, each.marker))
                self.world.group.offsets[each.partition] = each.start
                self.pipeline.checkpointed(each.partition, each.start)
            self.recovery.run(each)
        return arrived

    def answer(self, start: int, end: int, partition: int = 0) -> list[dict[str, Any]]:
        return payloads(self.pipeline.advance(self.world.ticks(start, end, partition)))


def assert_as(found: Pipeline, expected: Pipeline, *, without: str | None = None) -> None:
    """The states are those of the other pipeline, to the bit."""
    some, others = ([e for e in remembered(p) if e[1]["name"] != without] for p in (found, expected))
    assert some == others


# --- what is found ----------------------------------------------------------------------------------------------------


def test_a_new_group_begins_at_the_first_tick_and_owes_a_checkpoint() -> None:
    world = World(2)
    world.fill(20)
    start = world.start()
    arrived = start.arrive()
    assert {p: (each.start, each.owed, each.marker.origin) for p, each in arrived.items()} == {
        0: (0, True, ResetCause.FIRST),
        1: (0, True, ResetCause.FIRST),
    }
    assert start.source.positions() == {0: 0, 1: 0}
    assert [start.recovery.phases.of(partition) for partition in (0, 1)] == [Phase.RUNNING] * 2


@pytest.mark.parametrize("saved", [0, 1, 33, 60])
def test_states_are_those_of_a_process_that_never_stopped(saved: int) -> None:
    world = World()
    world.fill(100)
    world.save(saved)
    world.group.offsets[0] = 60
    start = world.start()
    (arrived,) = start.arrive().values()
    assert (arrived.start, arrived.owed, arrived.marker.next_offset) == (60, False, saved)
    expected = world.run(0, 60)
    assert_as(start.pipeline, expected)
    assert start.answer(60, 100) == payloads(expected.advance(world.ticks(60, 100)))
    assert start.recovery.replayed_count == 60 - saved


def test_evictions_go_on_as_if_it_had_never_stopped() -> None:
    world = World(rooms=3)
    world.fill(40, names="ABCDEFAG")
    world.save(17)
    world.group.offsets[0] = 23
    start = world.start()
    start.arrive()
    expected = world.run(0, 23)
    assert_as(start.pipeline, expected)
    assert start.answer(23, 40) == payloads(expected.advance(world.ticks(23, 40)))


def test_the_first_checkpoint_behind_a_replay_holds_what_was_replayed() -> None:
    world = World()
    world.fill(20)
    world.save(17)
    world.group.offsets[0] = 19
    start = world.start()
    start.arrive()
    assert [message.key for message in start.pipeline.checkpoint(0, ONE, 19)] == [b"C0", b"B0"]


def test_a_rewound_group_starts_cold_and_the_old_snapshots_go() -> None:
    world = World()
    world.fill(60)
    world.save(40)
    world.group.offsets[0] = 20
    start = world.start()
    (arrived,) = start.arrive().values()
    assert (arrived.start, arrived.owed, arrived.marker.origin) == (20, True, ResetCause.COLD)
    assert {each["reset"] for each in start.answer(20, 24)} == {"cold"}
    later = world.start()
    later.arrive()
    assert remembered(later.pipeline) == []


@pytest.mark.parametrize(("first", "committed", "begins"), [(30, 50, 50), (55, 50, 55)])
def test_lost_ticks_stop_or_start_cold_as_told(first: int, committed: int, begins: int) -> None:
    world = World()
    world.fill(60)
    world.save(20)
    world.group.offsets[0] = committed
    world.log.trim("ticks", 0, first)
    with pytest.raises(TopicError, match=r"no longer retained; set pipeline\.on_lost_ticks"):
        world.start().arrive()
    start = world.start(on_lost_ticks="reset")
    (arrived,) = start.arrive().values()
    assert (arrived.start, arrived.marker.origin) == (begins, ResetCause.COLD)
    assert remembered(start.pipeline) == []


def test_ticks_that_are_lost_while_they_are_replayed_stop_or_start_cold_as_told() -> None:
    world = World()
    world.fill(3 * READ_RECORDS)
    world.save(20)
    end = world.group.offsets[0] = 3 * READ_RECORDS
    stopping, going_on = world.start(), world.start(on_lost_ticks="reset")
    for start in (stopping, going_on):
        while not start.recovery.replayed_count:
            start.recovery.work(0)
    assert going_on.recovery.remaining_ticks > READ_RECORDS
    world.log.trim("ticks", 0, end - 10)
    with pytest.raises(TopicError, match="does not hold the offset"):
        stopping.arrive()
    (arrived,) = going_on.arrive().values()
    assert (arrived.start, arrived.owed, arrived.marker.origin) == (end, True, ResetCause.COLD)
    assert remembered(going_on.pipeline) == []


def test_a_partition_added_later_begins_at_its_first_tick_though_the_others_began_at_the_end() -> None:
    world = World(1)
    world.fill(20)
    world.group.offsets[0] = 20
    world.start().arrive()
    world.log.grow(2)
    world.fill(5, 1)
    arrived = world.start().arrive()
    assert (arrived[0].start, arrived[1].start, arrived[1].marker.origin) == (20, 0, ResetCause.FIRST)


def test_a_partition_added_later_misses_nothing_while_the_offsets_of_the_others_are_held() -> None:
    world = World(2)
    world.fill(5, 1)
    world.save(0)
    transaction = world.hold(0)
    start = world.start()
    early = start.recovery.work(SLICE)
    world.log.expire(transaction)
    begun = {each.partition: each.start for each in (*early, *start.arrive().values())}
    assert begun == {0: 0, 1: 0}


def test_a_partition_added_later_misses_nothing_though_an_instance_has_it_alone() -> None:
    world = World(2)
    world.group.offsets[0] = 0
    world.fill(5, 1)
    start = world.start()
    start.recovery.drop([0])  # another instance has it
    (arrived,) = start.arrive().values()
    assert (arrived.partition, arrived.start) == (1, 0)


# --- damage -----------------------------------------------------------------------------------------------------------


def damage(world: World, key: bytes = b"B0") -> None:
    world.write(Message(0, key, b"damaged"))


def test_a_damaged_snapshot_resets_its_instrument_alone(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.fill(60)
    world.save(40)
    world.group.offsets[0] = 50
    damage(world)
    start = world.start()
    (arrived,) = start.arrive().values()
    assert arrived.owed
    expected = world.run(0, 50)
    assert_as(start.pipeline, expected, without="B0")
    told = {each["instrument"]: (each["step"] == 0, each["reset"]) for each in start.answer(50, 54)}
    assert told == {"A0": (False, None), "B0": (True, "cold"), "C0": (False, None), "D0": (False, None)}
    lines = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert ["snapshots that cannot be used" in record.getMessage() for record in lines] == [True]


def test_the_checkpoint_owed_for_a_damaged_snapshot_stands_where_the_states_stand() -> None:
    world = World()
    world.fill(60)
    world.save(40)
    world.group.offsets[0] = 50
    damage(world)
    (arrived,) = world.start().arrive().values()
    assert (arrived.start, arrived.marker.next_offset) == (50, 50)


def test_a_start_behind_a_repair_goes_on_with_the_states_of_the_repair() -> None:
    world = World()
    world.fill(60)
    world.save(40)
    world.group.offsets[0] = 50
    damage(world)
    first = world.start()
    first.arrive()
    again = world.start()
    (arrived,) = again.arrive().values()
    assert not arrived.owed
    assert_as(again.pipeline, first.pipeline)
    assert again.recovery.replayed_count == 0


def test_an_unreadable_marker_starts_the_partition_cold_and_the_old_snapshots_go() -> None:
    world = World()
    world.fill(60)
    world.save(40)
    world.write(Message(0, markers.KEY, b"damaged"))
    start = world.start()
    (arrived,) = start.arrive().values()
    assert (arrived.start, arrived.owed, arrived.marker.origin) == (40, True, ResetCause.COLD)
    assert {each["reset"] for each in start.answer(40, 44)} == {"cold"}
    later = world.start()
    later.arrive()
    assert remembered(later.pipeline) == []


def test_another_groups_state_topic_stops() -> None:
    world = World()
    world.fill(60)
    world.save(40)
    other = Marker("other", world.log.topic_id("ticks"), ONE, 40, 0, 0, ResetCause.FIRST)
    world.write(Message(0, markers.KEY, markers.encode(other)))
    with pytest.raises(TopicError, match="belongs to group 'other'"):
        world.start().arrive()


def test_foreign_keys_are_deleted_by_the_next_checkpoint() -> None:
    world = World()
    world.fill(60)
    world.save(40)
    world.write(Message(0, b"\xff\xfe", b"what is this"), Message(0, b"", b"and this"))
    start = world.start()
    (arrived,) = start.arrive().values()
    assert not arrived.owed
    assert_as(start.pipeline, world.run(0, 40))
    start.answer(40, 41)
    deleted = [message.key for message in start.pipeline.checkpoint(0, ONE, 41) if message.value is None]
    assert deleted == [b"\xff\xfe", b""]


def test_a_snapshot_of_another_model_shape_resets_its_instrument() -> None:
    world = World()
    world.fill(60)
    run = world.save(40)
    strange = next(each for each in run._partitions[0] if each.name == "B0")
    world.write(Message(0, b"B0", encode(ONE, 40, strange, b"\0\0\x80?" * 3)))
    start = world.start()
    start.arrive()
    assert [each["reset"] for each in start.answer(40, 44) if each["instrument"] == "B0"] == ["cold"]


def test_a_damaged_snapshot_harms_no_other_instrument_in_any_later_life() -> None:
    """The whole service, killed twice: the repair must not say that states stand where they no longer do."""
    log = new_log()
    fill(log, 90, bad_every=1000)
    instance = Instance(log, checkpoint_seconds=1000)
    instance.turn(9)
    writer = log.claim("damage")
    log.begin(writer)
    log.append(writer, "state", Message(0, b"I0", b"damaged"))
    log.end(writer, committed=True)
    for _ in range(2):
        instance = Instance(log, checkpoint_seconds=1000)
        instance.turn(6)
    instance.turn(40)
    undisturbed = pipeline(partitions=range(3)).advance(log.read("ticks"))
    expected = {message.key: [] for message in undisturbed.forecasts}
    for message in undisturbed.forecasts:
        expected[message.key].append(message.value)
    for name in ("I1", "I2", "I3", "I4", "I5"):
        found = [record.value for record in log.read("forecasts") if record.key == name.encode()]
        assert found == expected[name.encode()], name


# --- resets and revisions ---------------------------------------------------------------------------------------------


def test_an_operators_reset_is_told_where_the_partition_goes_on() -> None:
    world = World()
    world.fill(60)
    world.save(40)
    world.group.offsets[0] = 50
    world.write(Message(0, b"B0", encode_reset(ONE, 50, "B0", ResetCause.OPERATOR, 49)))
    start = world.start()
    (arrived,) = start.arrive().values()
    assert arrived.owed
    expected = world.run(0, 50)
    assert_as(start.pipeline, expected, without="B0")
    told = [(each["instrument"], each["step"], each["reset"]) for each in start.answer(50, 60)]
    assert [(step, reset) for name, step, reset in told if name == "B0"][:2] == [(0, "operator"), (1, None)]
    assert {reset for name, _, reset in told if name != "B0"} == {None}


def test_an_operators_reset_is_told_once() -> None:
    world = World()
    world.fill(60)
    world.save(50)
    world.write(Message(0, b"B0", encode_reset(ONE, 50, "B0", ResetCause.OPERATOR, 49)))
    world.start().arrive()
    world.group.offsets[0] = 54
    later = world.start()
    (arrived,) = later.arrive().values()
    assert not arrived.owed
    assert [each["reset"] for each in later.answer(54, 59)] == [None] * 4


def test_another_revision_warms_up_silently_and_says_so_once_per_instrument() -> None:
    world = World()
    world.fill(100)
    world.save(40)
    world.group.offsets[0] = 60
    start = world.start(revision=TWO)
    (arrived,) = start.arrive().values()
    assert (arrived.start, arrived.owed, arrived.marker.origin) == (60, True, ResetCause.REVISION)
    assert arrived.marker == Marker(GROUP, "ticks-1", TWO, 60, 0, 60, ResetCause.REVISION)
    undisturbed = world.run(0, 60, origin=ResetCause.REVISION)
    expected = payloads(undisturbed.advance(world.ticks(60, 100)))
    found = start.answer(60, 100)
    assert [each["reset"] for each in found] == ["revision"] * 4 + [None] * 28
    assert [each["step"] for each in found[:4]] == [12, 12, 12, 12]  # of 15 ticks each, 3 could not be used
    assert [each | {"reset": None} for each in found] == expected


def test_a_start_between_the_warm_up_and_the_first_forecast_still_says_revision() -> None:
    world = World()
    world.fill(100)
    world.save(40)
    world.start(revision=TWO).arrive()
    later = world.start(revision=TWO)
    (arrived,) = later.arrive().values()
    assert not arrived.owed
    assert [each["reset"] for each in later.answer(40, 48)] == ["revision"] * 4 + [None] * 3


def test_the_first_forecast_of_another_revision_says_revision_though_it_opens_a_session() -> None:
    world = World()
    world.fill(4, names="A")
    world.save(4)
    world.log.produce(0, b"A0", json.dumps(raw(4, "A0", session="next")).encode())
    start = world.start(revision=TWO)
    start.arrive()
    assert [each["reset"] for each in start.answer(4, 5)] == ["revision"]


def test_the_warm_up_is_bounded() -> None:
    world = World()
    world.fill(100)
    world.save(60)
    start = world.start(revision=TWO, warmup_replay_ticks_max=10)
    (arrived,) = start.arrive().values()
    assert arrived.marker.replay_start == 50
    assert start.recovery.replayed_count == 10
    assert_as_warmed(start.pipeline, world.run(50, 60, origin=ResetCause.REVISION))


def assert_as_warmed(found: Pipeline, expected: Pipeline) -> None:
    expected.warmed_up(0, ResetCause.REVISION)
    assert_as(found, expected)


def test_instruments_that_are_not_met_in_the_warm_up_are_deleted_and_told_when_they_come() -> None:
    world = World()
    world.fill(1, names="Z")
    world.fill(59)
    world.save(60)
    start = world.start(revision=TWO, warmup_replay_ticks_max=10)
    start.arrive()
    world.fill(1, names="Z")
    assert [each["reset"] for each in start.answer(60, 61)] == ["revision"]
    assert [message.key for message in start.pipeline.checkpoint(0, TWO, 61)] == [b"Z0"]
    assert "Z0" not in {each[1]["name"] for each in remembered(restarted(world))}


def restarted(world: World) -> Pipeline:
    start = world.start(revision=TWO)
    start.arrive()
    return start.pipeline


# --- pieces and turns -------------------------------------------------------------------------------------------------


def test_the_way_is_walked_in_slices() -> None:
    world = World(read_seconds=0.02)
    world.fill(6 * READ_RECORDS, names="A")
    world.save(0)
    world.group.offsets[0] = 6 * READ_RECORDS
    start = world.start()
    reads = []
    for _ in start.slices():
        reads.append(world.points.count("read"))
        world.points.clear()
    assert max(reads) == 3  # of 20 ms each: the one that ends a slice of 50 ms may be late
    assert len(reads) >= 3


def test_the_phases_follow_each_other_and_what_is_read_in_each() -> None:
    world = World()
    world.fill(60)
    world.save(40)
    world.group.offsets[0] = 50
    seen: list[tuple[Point, Phase]] = []
    start = world.start()
    world.log.on_point = lambda point: seen.append((point, start.recovery.phases.of(0)))
    start.arrive()
    assert seen[:5] == [
        ("committed_read", Phase.ASSIGNED),
        ("bounds", Phase.RESTORING),
        ("read", Phase.RESTORING),
        ("bounds", Phase.RESTORING),
        ("read", Phase.CATCHING_UP),
    ]
    assert start.recovery.phases.of(0) is Phase.RUNNING


def test_remaining_ticks_go_down_to_nothing_and_are_told_in_words() -> None:
    world = World(2, read_seconds=1.0)
    world.fill(3 * READ_RECORDS, names="A")
    world.save(0)
    world.group.offsets[0] = 3 * READ_RECORDS - 100
    start = world.start()
    assert start.recovery.waiting_for == "2 partitions to be restored, 0 ticks to replay"
    remaining, words = [], []
    for _ in start.slices():
        remaining.append(start.recovery.remaining_ticks)
        words.append(start.recovery.waiting_for)
    steps = [count for count in remaining if count]
    assert steps == sorted(steps, reverse=True)
    assert steps[0] == 3 * READ_RECORDS - 100
    assert remaining[-1] == 0
    assert f"2 partitions to be restored, {steps[0]} ticks to replay" in words
    assert words[-1] is None
    assert start.recovery.replayed_count == 3 * READ_RECORDS - 100


def test_a_long_recovery_says_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tickcast")
    world = World(read_seconds=3.0)
    world.fill(6 * READ_RECORDS, names="A")
    world.save(0)
    world.group.offsets[0] = 6 * READ_RECORDS
    world.start().arrive()
    told = [record.facts["remaining_ticks"] for record in caplog.records if record.getMessage() == "restoring"]
    assert 2 <= len(told) <= 4
    assert told == sorted(told, reverse=True)


def test_a_long_restore_lets_the_loop_poll_and_live_partitions_answer() -> None:
    log = new_log()
    for n in range(5 * READ_RECORDS):
        log.produce(2, b"A", json.dumps(raw(n)).encode())
    log.group("desk").offsets[2] = 5 * READ_RECORDS
    claim = log.claim("writer")
    log.begin(claim)
    marker = Marker("desk", "ticks-1", ONE, 0, 0, 0, ResetCause.FIRST)
    log.append(claim, "state", Message(2, markers.KEY, markers.encode(marker)))
    log.end(claim, committed=True)
    fill(log, 90, bad_every=1000)
    instance = Instance(log)
    path: list[str] = []

    def pass_point(point: Point) -> None:
        if point == "read":
            instance.clock.now += 0.03
        if instance.recovery.phases.of(2) is Phase.CATCHING_UP and point in ("poll", "read", "committed"):
            path.append(point)

    log.on_point = pass_point
    instance.turn(20)
    assert instance.recovery.replayed_count == 5 * READ_RECORDS
    assert path.count("read") >= 4
    assert path.count("committed") >= 2  # the other partitions answered meanwhile
    reads_between = [between.split().count("read") for between in " ".join(path).split("poll")]
    assert max(reads_between) <= 2  # of 30 ms each, in slices of 50 ms


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_another_owners_transaction_is_waited_out_and_others_go_on_meanwhile() -> None:
    world = World(2)
    world.fill(60)
    world.save(40)
    world.save(0, 1)
    transaction = world.hold(0)
    start = world.start()
    assert [each.partition for each in start.recovery.work(SLICE)] == [1]
    for _ in range(50):
        world.now += 1.0
        assert start.recovery.work(SLICE) == []
    assert start.recovery.phases.of(0) is Phase.ASSIGNED
    assert start.recovery.held_up
    world.log.expire(transaction)
    assert [each.partition for each in start.recovery.work(SLICE)] == [0]
    assert_as(start.pipeline, world.run(0, 40))


def test_a_checkpoint_on_its_way_is_waited_for() -> None:
    world = World()
    world.fill(60)
    world.save(20)
    newer = world.run(0, 40)
    claim = world.open(*checkpoint(newer, 0, world.marker(40)))
    world.group.offsets[0] = 40
    start = world.start()
    assert start.recovery.work(SLICE) == []
    assert start.recovery.phases.of(0) is Phase.RESTORING
    world.log.end(claim, committed=True)
    (arrived,) = start.recovery.work(SLICE)
    assert arrived.marker.next_offset == 40
    assert start.recovery.replayed_count == 0


def test_patience_ends() -> None:
    world = World()
    world.hold(0)
    start = world.start()
    assert start.recovery.work(SLICE) == []
    world.now += PATIENCE
    assert start.recovery.work(SLICE) == []
    world.now += 0.1
    with pytest.raises(BrokerUnavailable, match=r"partition 0 could not be restored for 60 s: .* open transaction"):
        start.recovery.work(SLICE)


def test_who_has_not_had_a_turn_has_not_waited() -> None:
    world = World(2, read_seconds=PATIENCE / 4)
    world.fill(8 * READ_RECORDS, names="A")
    world.save(0)
    world.group.offsets[0] = 8 * READ_RECORDS
    claim = world.open(Message(1, b"X", None))  # for a moment only, but just when its turn comes
    start = world.start()
    while [each.partition for each in start.recovery.work(SLICE)] != [0]:
        assert start.recovery.phases.of(1) is Phase.ASSIGNED
    assert world.now > PATIENCE
    assert start.recovery.work(SLICE) == []
    world.log.end(claim, committed=True)
    assert [each.partition for some in start.slices() for each in some] == [1]


@pytest.mark.parametrize("when", ["committed_read", "bounds", "read"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_broker_that_is_away_for_a_while_only_costs_time(when: Point, nth: int) -> None:
    world = World()
    world.fill(60)
    world.save(40)
    world.group.offsets[0] = 50
    start = world.start()
    met = 0

    def leave(point: Point) -> None:
        nonlocal met
        met += point == when
        world.log.away |= point == when and met == nth

    world.log.on_point = leave
    for _ in start.slices(20):
        world.now += 1.0
        if world.log.away and world.now > 10:
            break
    world.log.away = False
    world.log.on_point = lambda point: None
    start.arrive()
    assert_as(start.pipeline, world.run(0, 50))


# --- taken away, and anew ---------------------------------------------------------------------------------------------


def in_phase(phase: Phase) -> tuple[World, Start]:
    """Return a process whose partition 0 stands in a phase, with partition 1 at the beginning of its way."""
    world = World(2, read_seconds=1.0)
    world.fill(4 * READ_RECORDS, names="ABC")
    world.save(600)
    world.group.offsets[0] = 2 * READ_RECORDS + 600
    start = world.start()
    if phase is Phase.RUNNING:
        start.arrive()
    while start.recovery.phases.of(0) is not phase:
        start.recovery.work(SLICE)
    return world, start


PHASES = [Phase.ASSIGNED, Phase.RESTORING, Phase.CATCHING_UP, Phase.RUNNING]


@pytest.mark.parametrize("phase", PHASES)
def test_a_partition_can_be_taken_away_in_every_phase(phase: Phase) -> None:
    _, start = in_phase(phase)
    start.recovery.drop([0])
    assert start.recovery.phases.of(0) is Phase.UNKNOWN
    assert 0 not in start.pipeline.partitions
    assert start.recovery.remaining_ticks == 0
    assert 0 not in start.arrive()
    assert start.pipeline.partitions == (1,)
    start.recovery.drop([0])  # given and taken within one poll


@pytest.mark.parametrize("phase", PHASES)
def test_a_partition_can_begin_anew_in_every_phase(phase: Phase) -> None:
    world, start = in_phase(phase)
    world.group.offsets[0] += 7
    start.recovery.begin([0])
    assert start.recovery.phases.of(0) is Phase.ASSIGNED
    arrived = start.arrive()
    assert arrived[0].start == 2 * READ_RECORDS + 607
    assert_as(start.pipeline, world.run(0, 2 * READ_RECORDS + 607))


@pytest.mark.parametrize("phase", PHASES)
def test_a_partition_that_was_taken_can_come_back(phase: Phase) -> None:
    world, start = in_phase(phase)
    start.recovery.drop([0])
    start.recovery.begin([0])
    start.arrive()
    assert_as(start.pipeline, world.run(0, 2 * READ_RECORDS + 600))


def test_a_compaction_in_the_middle_changes_nothing() -> None:
    world = World(read_seconds=1.0)
    names = "".join(chr(0x4E00 + n) for n in range(2 * READ_RECORDS))
    world.fill(4 * READ_RECORDS, names=names)
    run = pipeline(partitions=(0,))
    for cut in (0, 500, 1500, 2000):
        run.advance(world.ticks(world.group.offsets.get(0, 0), cut))
        world.write(*checkpoint(run, 0, world.marker(cut)))
        run.checkpointed(0, cut)
        world.group.offsets[0] = cut
    start = world.start()
    while start.recovery.phases.of(0) is not Phase.RESTORING:
        start.recovery.work(SLICE)
    world.log.compact("state", 0)
    assert world.points.count("read") == 1
    start.arrive()
    assert_as(start.pipeline, run)
