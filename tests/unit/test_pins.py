"""The pin is found near the end of the partition, followed from there, and never taken from another group."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.core.marker import Marker
from daemon.core.pin import Pin
from daemon.core.records import InputRecord
from daemon.errors import BrokerUnavailable, TopicError
from daemon.pins import LOOK_BACK, PinFollower
from daemon.tools.pinning import message as pins_message
from daemon.tools.pinning import pin_in_force
from daemon.transport.memory import MemoryReader
from daemon.transport.memory_log import MemoryLog
from daemon.transport.port import Readable
from schemas import ResetCause

ONE = Pin("desk", "one", "", 1, "")
TWO = Pin("desk", "two", "one", 2, "")
MARKER = Marker("desk", "ticks-1", "revision-one", 100, 0, 0, ResetCause.FIRST)


class Reader(MemoryReader):
    """Remembers where it was read from."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.offsets: list[int] = []
        #: Every other read brings nothing yet.
        self.slow = False

    def read(
        self, topic: Readable, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[list[InputRecord], int]:
        self.offsets.append(offset)
        if self.slow and len(self.offsets) % 2:
            return [], offset
        return super().read(topic, partition, offset, timeout_seconds, max_records)


class Topic:
    """A state topic and who follows it."""

    def __init__(self) -> None:
        self.log = MemoryLog(2)
        self.reader = Reader(self.log)
        self.follower = PinFollower(self.reader, "desk")

    def write(self, key: bytes, value: bytes, partition: int = 0) -> None:
        self.log.produce(partition, key, value, topic="state")

    def pin(self, pin: Pin) -> None:
        self.write(pins.KEY, pins.encode(pin))

    def checkpoint(self, snapshots: int = 3, pin: Pin | None = None) -> None:
        for number in range(snapshots):
            self.write(b"I%d" % number, b"a snapshot")
        self.write(markers.KEY, markers.encode(replace(MARKER, pin=pin)))


@pytest.fixture
def topic() -> Topic:
    return Topic()


def test_an_empty_topic_pins_nothing(topic: Topic) -> None:
    assert topic.follower.look() is None


def test_a_pin_is_noticed_and_the_next_one_takes_its_place(topic: Topic) -> None:
    topic.checkpoint()
    assert topic.follower.look() is None
    topic.pin(ONE)
    topic.checkpoint()
    assert topic.follower.look() == ONE
    topic.pin(TWO)
    assert topic.follower.look() == topic.follower.pin == TWO


def test_an_older_one_that_a_marker_repeats_takes_no_ones_place(topic: Topic) -> None:
    topic.pin(TWO)
    topic.checkpoint(pin=ONE)
    assert topic.follower.look() == TWO


def test_who_starts_reads_the_end_alone_where_the_marker_repeats_the_pin(topic: Topic) -> None:
    topic.pin(ONE)
    topic.checkpoint(1000, pin=ONE)
    assert topic.follower.look() == ONE
    assert min(topic.reader.offsets) == topic.log.bounds("state", 0, "read_committed")[1] - LOOK_BACK[0]


def test_who_starts_behind_many_records_without_a_marker_reads_on_backwards(topic: Topic) -> None:
    topic.checkpoint(pin=ONE)
    for _ in range(LOOK_BACK[1] + 100):
        topic.write(b"A", b"a reset")
    assert topic.follower.look() == ONE


def test_one_that_wants_to_be_sure_finds_what_an_ignorant_marker_hides(topic: Topic) -> None:
    topic.pin(ONE)
    topic.checkpoint(100)
    assert topic.follower.look() is None
    assert pin_in_force(topic.reader, "desk") == ONE
    assert pin_in_force(topic.reader, "another") is None


def test_one_that_wants_to_be_sure_takes_a_slow_answer_for_no_end(topic: Topic) -> None:
    topic.checkpoint(3000)
    topic.pin(ONE)
    topic.reader.slow = True
    assert pin_in_force(topic.reader, "desk") == ONE


def test_only_what_is_committed_counts(topic: Topic) -> None:
    topic.checkpoint()
    claim = topic.log.claim("desk/bundle")
    topic.log.begin(claim)
    topic.log.append(claim, "state", pins_message(ONE))
    assert topic.follower.look() is None
    topic.log.end(claim, committed=True)
    assert topic.follower.look() == ONE


def test_pins_of_others_and_bytes_that_are_none_count_nothing(topic: Topic) -> None:
    topic.pin(replace(TWO, group_id="other"))
    topic.write(pins.KEY, b"no pin")
    topic.write(markers.KEY, b"no marker")
    assert topic.follower.look() is None
    topic.pin(ONE)
    assert topic.follower.look() == ONE


def test_a_look_that_fails_is_made_again_from_the_start(topic: Topic) -> None:
    topic.checkpoint(pin=ONE)
    topic.log.away = True
    with pytest.raises(BrokerUnavailable):
        topic.follower.look()
    topic.log.away = False
    assert topic.follower.look() == ONE


def test_after_the_topic_was_emptied_it_is_found_again(topic: Topic) -> None:
    topic.pin(ONE)
    topic.checkpoint(pin=ONE)
    assert topic.follower.look() == ONE
    topic.log.recreate("state")
    with pytest.raises(TopicError):
        topic.follower.look()
    topic.pin(TWO)
    assert topic.follower.look() == TWO
