"""What the state topic holds: the newest record of every key, and whether it belongs to the marker."""

from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.core.instrument import Instrument
from daemon.core.marker import Marker, MarkerError
from daemon.core.pin import Pin
from daemon.core.records import InputRecord
from daemon.core.snapshot import Snapshot, SnapshotError, encode, encode_reset
from daemon.stored import Stored, blank, is_instrument
from schemas import ResetCause
from tests.ticks import record

REVISION = "revision-one"
MARKER = Marker("desk", "ticks-1", REVISION, 100, 0, 0, ResetCause.FIRST)


def snapshot(name: str = "A", next_offset: int = 100, *, revision: str = REVISION, step: int = 5) -> bytes:
    made = Instrument(name, -1, [0.5], None)
    made.step, made.last_offset = step, next_offset - 1
    return encode(revision, next_offset, made, b"\0\0\x80?")


def stored(*pairs: tuple[bytes | None, bytes | None]) -> Stored:
    """Return what is left of these records, read in two portions."""
    records: list[InputRecord] = [record(value, at, key=key) for at, (key, value) in enumerate(pairs)]
    made = Stored()
    made.add(records[: len(records) // 2])
    made.add(records[len(records) // 2 :])
    return made


def only(found: Stored) -> Snapshot | SnapshotError:
    ((_, value),) = found.snapshots(MARKER)
    return value


def test_the_newest_record_of_a_key_counts() -> None:
    found = only(stored((b"A", snapshot(step=1)), (b"A", snapshot(step=2)), (b"A", snapshot(step=3))))
    assert isinstance(found, Snapshot)
    assert found.instrument.step == 3


def test_keys_come_in_the_order_of_their_newest_records() -> None:
    found = stored((b"B", snapshot("B")), (b"A", snapshot("A")), (b"B", snapshot("B")))
    assert [key for key, _ in found.snapshots(MARKER)] == [b"A", b"B"]


def test_who_takes_the_snapshots_leaves_no_value_behind() -> None:
    pairs = [(b"B", snapshot("B")), (b"A", b"no snapshot"), (b"C", snapshot("C"))]
    found, read = stored(*pairs), dict(stored(*pairs).snapshots(MARKER))
    for left, (key, taken) in zip((2, 1, 0), found.taken(MARKER), strict=True):
        assert type(taken) is type(read.pop(key))
        assert len(found.values) == left
    assert not read


def test_a_tombstone_deletes_until_the_key_is_written_again() -> None:
    pairs = [(b"A", snapshot(step=1)), (b"A", None), (b"B", None)]
    assert stored(*pairs).values == {}
    found = only(stored(*pairs, (b"A", snapshot(step=2))))
    assert isinstance(found, Snapshot)
    assert found.instrument.step == 2


def test_a_pin_is_no_state_and_the_newest_of_those_written_and_repeated_counts() -> None:
    one, two = (Pin("desk", name, "", number, "") for number, name in enumerate(("one", "two"), 1))
    repeats = (markers.KEY, markers.encode(replace(MARKER, pin=two)))
    assert stored((pins.KEY, pins.encode(one))).pin() == one
    assert not stored((pins.KEY, pins.encode(one))).unmarked
    assert stored(repeats).pin() == two
    found = stored((pins.KEY, pins.encode(one)), repeats)
    assert (found.pin(), found.values) == (two, {})
    assert stored((pins.KEY, b"no pin"), (markers.KEY, b"no marker")).pin() is None


def test_the_marker_is_the_newest_one_and_no_instrument() -> None:
    newest = markers.encode(MARKER)
    found = stored((markers.KEY, b"older"), (b"A", snapshot()), (markers.KEY, newest))
    assert found.marker() == MARKER
    assert list(found.values) == [b"A"]


def test_a_topic_without_a_marker_and_one_whose_marker_was_deleted_have_none() -> None:
    assert stored((b"A", snapshot())).marker() is None
    assert stored((markers.KEY, markers.encode(MARKER)), (markers.KEY, None)).marker() is None


def test_a_marker_that_cannot_be_read_is_an_error_not_an_absence() -> None:
    with pytest.raises(MarkerError):
        stored((markers.KEY, markers.encode(MARKER)), (markers.KEY, b"damaged")).marker()


def test_records_without_a_key_say_nothing() -> None:
    found = stored((None, snapshot()), (None, None))
    assert found.values == {}
    assert found.marker() is None


@pytest.mark.parametrize("key", [b"", b"\xff", b"two\nlines", b"\x00other", b"x" * 65, b"A\x80"])
def test_a_key_that_is_no_instrument_holds_no_snapshot(key: bytes) -> None:
    assert not is_instrument(key)
    assert "the key is no instrument" in str(only(stored((key, snapshot()))))


@pytest.mark.parametrize("key", [b"A", b" ", b"x" * 64, "東京".encode() * 32, "\ufffd".encode()])
def test_a_key_that_can_be_an_instrument_is_taken_for_one(key: bytes) -> None:
    assert is_instrument(key)
    found = only(stored((key, snapshot())))
    assert isinstance(found, Snapshot)
    assert found.instrument.name == key.decode()


def test_a_damaged_snapshot_is_an_error_of_its_own_and_spares_the_others() -> None:
    found = dict(stored((b"A", b"damaged"), (b"B", snapshot("B"))).snapshots(MARKER))
    assert isinstance(found[b"A"], SnapshotError)
    assert isinstance(found[b"B"], Snapshot)


def test_a_snapshot_of_another_revision_does_not_belong_to_the_marker() -> None:
    assert "is of revision revision-two" in str(only(stored((b"A", snapshot(revision="revision-two")))))


@pytest.mark.parametrize("next_offset", [1, 99, 100])
def test_a_snapshot_up_to_the_marker_belongs_to_it(next_offset: int) -> None:
    assert isinstance(only(stored((b"A", snapshot(next_offset=next_offset)))), Snapshot)


def test_a_snapshot_ahead_of_the_marker_does_not_belong_to_it() -> None:
    assert "it is at 101, ahead of the marker at 100" in str(only(stored((b"A", snapshot(next_offset=101)))))


def test_a_reset_may_be_ahead_of_the_marker() -> None:
    found = only(stored((b"A", encode_reset(REVISION, 150, "A", ResetCause.OPERATOR, 149))))
    assert isinstance(found, Snapshot)
    assert found.is_reset
    assert found.instrument.pending_reset is ResetCause.OPERATOR


def test_of_a_blank_nothing_is_left() -> None:
    made = blank("é".encode(), MARKER)
    assert made.is_reset
    assert (made.revision, made.next_offset, made.instrument.name) == (REVISION, 100, "é")
    assert made.instrument.pending_reset is ResetCause.COLD
