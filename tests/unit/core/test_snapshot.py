"""Snapshots: bit for bit there and back, and nothing but whole ones is read."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import pytest

from daemon.core.instrument import FIELDS, NEVER, Instrument
from daemon.core.intervals import Track
from daemon.core.kept_scores import Pending, Scores, pack_pending, pack_track, unpack
from daemon.core.snapshot import MAGIC, Snapshot, SnapshotError, decode, encode, encode_reset
from schemas import ResetCause

REVISION = "0123456789ab"
I64_MIN, I64_MAX = -(2**63), 2**63 - 1
NUMBERS = ("last_offset", "reset_offset", "step", "last_ts", "session_start", "session_end", "session_since")
PRICES = ("bid", "ask", "bid_size", "ask_size", "price")
CAUSES = (None, *ResetCause)

#: Format 1, field by field, written by hand from its table: every later release has to read exactly this, or say no.
GOLDEN_CONTENT = bytes.fromhex(
    "303132333435363738396162"  # revision 0123456789ab
    "6400000000000000"  # next_offset 100
    "6300000000000000"  # last_offset 99
    "0700000000000000"  # reset_offset 7
    "2a00000000000000"  # step 42
    "0160856dc88fa617"  # last_ts
    "0000000000000080"  # session_start NEVER
    "ffffffffffffff7f"  # session_end open
    "0060856dc88fa617"  # session_since
    "feffffffffffffff"  # seq -2
    "0000000000e05840"  # bid 99.5
    "0000000000205940"  # ask 100.5
    "0000000000000000"  # bid_size unknown
    "0000000000000080"  # ask_size -0.0
    "0000000000005940"  # price 100.0
    "db"  # known: all but spoken_session and bid_size
    "00"  # pending_reset none
    "05"  # untold_reset revision
    "0300"  # bytes of session
    "0000"  # bytes of spoken_session
    "02000000"  # cells
    "03000000"  # numbers of state
    "c3a931"  # session é1
    "000000000000d03f"  # cell 0.25
    "010000000000f87f"  # cell NaN with a payload
    "0000803f"  # state 1.0
    "00000080"  # state -0.0
    "0100c07f"  # state NaN with a payload
)
GOLDEN = b"TCS\x01" + bytes.fromhex("7d6d1188") + GOLDEN_CONTENT
#: What format 2 adds.
GOLDEN_SCORES = bytes.fromhex(
    "0200"  # horizons
    "0000"  # waiting at the first
    "0100"  # waiting at the second
    + (
        track := "000000000000f83f"  # low 1.5
        "000000000000e0bf"  # high -0.5
        "000000000000d03f"  # low_debt 0.25
        "00000000000000c0"  # high_debt -2.0
        "0000000000001040"  # mean_square 4.0
        "000000000000e83f"  # still 0.75
        "0000000000002840"  # count 12.0
    )
    + track
    + "3200000000000000"  # due 50
    "6200000000000000"  # offset 98
    "0160856dc88fa617"  # ts
    "0000000000005940"  # price 100.0
    "0000000000205940"  # mean 100.5
    "0000000000001240"  # value 4.5
    "0000000000000040"  # unit 2.0
    "000000000000f0ff"  # low -inf
    "000000000000f07f"  # high inf
    "000000000000f03f"  # holds_price
)
GOLDEN_2 = b"TCS\x02" + struct.pack("<I", zlib.crc32(GOLDEN_CONTENT + GOLDEN_SCORES)) + GOLDEN_CONTENT + GOLDEN_SCORES


def instrument(cells: tuple[float, ...] = (1e-8, -2.5), **facts: Any) -> Instrument:
    """Return an instrument in the middle of its life, apart from these facts."""
    made = Instrument("A", 3, list(cells), None)
    usual = {"last_ts": 5, "step": 17, "last_offset": 40, "reset_offset": 3, "price": 100.25, "session_since": 1}
    for name, fact in (usual | facts).items():
        setattr(made, name, fact)
    return made


def bits(snapshot: Snapshot) -> dict[str, Any]:
    """Return all that a snapshot says, floats by their bits, so that NaN equals itself and -0.0 is not 0.0."""
    names = sorted(set(FIELDS) - {"slot", "cells", "scores", "packed_scores"})
    facts = {name: _bits(getattr(snapshot.instrument, name)) for name in names}
    packed = snapshot.instrument.packed_scores
    scores = snapshot.instrument.scores or (unpack(packed) if packed else None)
    if scores is not None:
        columns = range(len(scores.horizons))
        facts["tracks"] = [tuple(map(_bits, scores.track(column))) for column in columns]
        facts["waiting"] = [[tuple(map(_bits, each)) for each in scores.waiting(column)] for column in columns]
    cells = struct.pack(f"<{len(snapshot.instrument.cells)}d", *snapshot.instrument.cells)
    state = (snapshot.state.dtype, snapshot.state.tobytes())
    return {**facts, "cells": cells, "state": state, "at": (snapshot.revision, snapshot.next_offset)}


def _bits(fact: object) -> object:
    return struct.pack("<d", fact) if isinstance(fact, float) else fact


def there_and_back(made: Instrument, state: bytes = b"\0\0\x80?" * 4, next_offset: int = 41) -> Snapshot:
    """Encode and decode, and hold the two against each other."""
    found = decode("A", encode(REVISION, next_offset, made, state))
    assert bits(found) == bits(Snapshot(REVISION, next_offset, made, np.frombuffer(state, np.float32)))
    return found


def checksummed(content: bytes, version: int = 1) -> bytes:
    """Return content behind a head that fits it."""
    return struct.pack("<3sBI", MAGIC, version, zlib.crc32(content)) + content


def golden_scores() -> Scores:
    track = Track(1.5, -0.5, 0.25, -2.0, 4.0, 0.75, 12.0)
    pending = Pending(50, 98, 1704207600000000001, 100.0, 100.5, 4.5, 2.0, float("-inf"), float("inf"), 1.0)
    return Scores([pack_track(*track), pack_track(*track) + pack_pending(*pending)])


def golden_instrument() -> Instrument:
    nan = struct.unpack("<d", bytes.fromhex("010000000000f87f"))[0]
    facts: dict[str, Any] = {"last_offset": 99, "reset_offset": 7, "step": 42, "seq": -2, "session": "é1"}
    facts |= {"last_ts": 1704207600000000001, "session_since": 1704207600000000000}
    facts |= {"session_start": NEVER, "session_end": I64_MAX, "untold_reset": ResetCause.REVISION}
    facts |= {"bid": 99.5, "ask": 100.5, "ask_size": -0.0, "price": 100.0}
    return instrument((0.25, nan), **facts)


def test_format_1_is_read_for_ever() -> None:
    state = bytes.fromhex("0000803f 00000080 0100c07f")
    expected = Snapshot(REVISION, 100, golden_instrument(), np.frombuffer(state, np.float32))
    found = decode("A", GOLDEN)
    assert bits(found) == bits(expected)
    assert not found.is_reset


def test_format_2_is_read_for_ever_and_is_what_is_written() -> None:
    state = bytes.fromhex("0000803f 00000080 0100c07f")
    expected = golden_instrument()
    expected.scores = golden_scores()
    found = decode("A", GOLDEN_2)
    assert bits(found) == bits(Snapshot(REVISION, 100, expected, np.frombuffer(state, np.float32)))
    assert encode(REVISION, 100, expected, state).hex() == GOLDEN_2.hex()


def test_scores_are_kept_by_their_bits() -> None:
    track = Track(float("nan"), -0.0, 5e-324, float("inf"), 1e-24, 0.5, 2.0**60)
    pending = Pending(I64_MAX, I64_MIN, 0, 1.0, -0.0, 3.0, 5e-324, float("-inf"), float("inf"), 1.0)
    for count in (0, 1, 8):
        packed = [pack_track(*track) + count * pack_pending(*pending), pack_track(*track)]
        there_and_back(instrument(scores=Scores(packed)))


def test_scores_that_hold_nothing_yet_and_none_are_not_told_apart() -> None:
    assert not decode("A", encode(REVISION, 1, instrument(scores=Scores([])), b"")).instrument.packed_scores


def test_scores_that_nobody_looked_at_are_written_again_as_they_were() -> None:
    found = decode("A", GOLDEN_2)
    assert encode(REVISION, 100, found.instrument, found.state.tobytes()) == GOLDEN_2


@pytest.mark.parametrize("value", [0.0, -0.0, None, 5e-324, -1.7976931348623157e308, float("inf"), float("nan")])
@pytest.mark.parametrize("name", PRICES)
def test_a_price_of_nothing_is_not_a_price_of_zero(name: str, value: float | None) -> None:
    found = there_and_back(instrument(**{name: value}))
    assert (getattr(found.instrument, name) is None) == (value is None)


@pytest.mark.parametrize("value", [I64_MIN, -1, 0, I64_MAX])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_keep_every_bit(name: str, value: int) -> None:
    there_and_back(instrument(**{name: value}))


@pytest.mark.parametrize("value", [None, I64_MIN, -1, 0, 1, I64_MAX])
def test_a_sequence_number_that_is_unknown_is_not_zero(value: int | None) -> None:
    there_and_back(instrument(seq=value))


@pytest.mark.parametrize("next_offset", [0, 1, I64_MAX])
def test_the_offset_is_kept(next_offset: int) -> None:
    there_and_back(instrument(), next_offset=next_offset)


@pytest.mark.parametrize("spoken", [None, "", "2024-01-02", "東京 é 🗾", "🗾" * 64, "\0\n"])
@pytest.mark.parametrize("session", [None, "", "2024-01-02", "東京 é 🗾", "🗾" * 64])
def test_sessions_in_any_script_and_none_are_kept_apart(session: str | None, spoken: str | None) -> None:
    there_and_back(instrument(session=session, spoken_session=spoken))


@pytest.mark.parametrize("untold", CAUSES)
@pytest.mark.parametrize("pending", CAUSES)
def test_every_cause_is_kept(pending: ResetCause | None, untold: ResetCause | None) -> None:
    there_and_back(instrument(pending_reset=pending, untold_reset=untold))


@pytest.mark.parametrize("number", ["0100c07f", "ffffffff", "010080ff", "0000807f", "00000080", "01000000"])
def test_state_is_kept_by_its_bits(number: str) -> None:
    there_and_back(instrument(), bytes.fromhex(number) * 3)


@pytest.mark.parametrize("number", ["010000000000f87f", "ffffffffffffffff", "0000000000000080", "0100000000000000"])
def test_cells_are_kept_by_their_bits(number: str) -> None:
    there_and_back(instrument((1.0, *struct.unpack("<d", bytes.fromhex(number)))))


def test_the_largest_model_that_fits_is_kept() -> None:
    there_and_back(instrument(tuple(map(float, range(1, 500)))), np.arange(65535, dtype=np.float32).tobytes())


def test_what_is_read_has_no_slot() -> None:
    made = instrument()
    made.slot = 12
    assert decode("A", encode(REVISION, 41, made, b"")).instrument.slot == -1


@pytest.mark.parametrize("cause", ResetCause)
def test_a_reset_keeps_nothing_but_cause_and_place(cause: ResetCause) -> None:
    found = decode("Ä", encode_reset(REVISION, 41, "Ä", cause, last_offset=40))
    expected = Instrument("Ä", -1, [], cause)
    expected.last_offset = 40
    assert bits(found) == bits(Snapshot(REVISION, 41, expected, np.empty(0, np.float32)))
    assert found.is_reset


def test_every_flipped_bit_is_noticed() -> None:
    for place in range(8 * len(GOLDEN_2)):
        damaged = bytearray(GOLDEN_2)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(SnapshotError):
            decode("A", bytes(damaged))


def test_every_lost_end_is_noticed() -> None:
    for whole in (GOLDEN, GOLDEN_2):
        for length in range(len(whole)):
            with pytest.raises(SnapshotError):
                decode("A", whole[:length])


@pytest.mark.parametrize("more", [b"\0", GOLDEN])
@pytest.mark.parametrize(("content", "version"), [(GOLDEN_CONTENT, 1), (GOLDEN_CONTENT + GOLDEN_SCORES, 2)])
def test_bytes_behind_the_end_are_noticed(content: bytes, version: int, more: bytes) -> None:
    with pytest.raises(SnapshotError, match="damaged"):
        decode("A", checksummed(content + more, version))


@pytest.mark.parametrize("version", [0, 3, 255])
def test_a_format_of_another_release_is_named(version: int) -> None:
    with pytest.raises(SnapshotError, match=f"format {version} is not known here, only 1, 2"):
        decode("A", checksummed(GOLDEN_CONTENT, version))


@pytest.mark.parametrize("value", [b"", b"{}", b"TC", b"\x80\x04}", b'{"instrument": "A", "price": 100}', bytes(500)])
def test_foreign_bytes_are_no_snapshot(value: bytes) -> None:
    with pytest.raises(SnapshotError, match="no snapshot"):
        decode("A", value)


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (0, b"\xff"),  # revision: no ASCII
        (125, b"\x07"),  # pending_reset: no such cause
        (126, b"\xff"),  # untold_reset: no such cause
        (127, b"\x04"),  # session: longer than there are bytes for
        (131, b"\xff\xff"),  # cells
        (133, b"\x02"),  # state: bytes left over
        (135, b"\xff"),  # session: no UTF-8
    ],
)
def test_what_says_nothing_behind_a_good_checksum_is_refused_too(place: int, wrong: bytes) -> None:
    content = GOLDEN_CONTENT[:place] + wrong + GOLDEN_CONTENT[place + len(wrong) :]
    assert content != GOLDEN_CONTENT
    with pytest.raises(SnapshotError, match="damaged"):
        decode("A", checksummed(content))


def test_content_without_all_its_fields_is_refused_behind_a_good_checksum() -> None:
    for content, version in ((GOLDEN_CONTENT, 1), (GOLDEN_CONTENT + GOLDEN_SCORES, 2)):
        for length in range(len(content)):
            with pytest.raises(SnapshotError, match="damaged"):
                decode("A", checksummed(content[:length], version))
