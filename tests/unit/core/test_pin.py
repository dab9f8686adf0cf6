"""Pins: there and back, readable by people, the largest number in force."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daemon.core.marker import KEY as MARKER_KEY
from daemon.core.pin import KEY, Pin, PinError, decode, encode, newest
from daemon.stored import is_instrument

PIN = Pin("desk", "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", 3, "2026-11-21T20:00:00Z")
CONTENT: dict[str, Any] = {
    "format": 1,
    "group_id": "desk",
    "bundle": "aaaaaaaaaaaaaaaa",
    "previous": "bbbbbbbbbbbbbbbb",
    "number": 3,
    "at": "2026-11-21T20:00:00Z",
}


def test_format_1_is_readable_json_and_is_read_for_ever() -> None:
    assert json.loads(encode(PIN)) == CONTENT
    assert decode(json.dumps(CONTENT, indent=2).encode()) == PIN


def test_its_key_is_no_instruments_and_no_markers() -> None:
    assert not is_instrument(KEY)
    assert KEY != MARKER_KEY


@pytest.mark.parametrize("value", [None, b"", b"\xff", b"null", b"[1]", b"{}", b"[" * 100_000])
def test_foreign_bytes_are_no_pin(value: bytes | None) -> None:
    with pytest.raises(PinError):
        decode(value)


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"number": "3"}, {"number": True}, {"bundle": None}, {"previous": 1}, {"extra": 1}]
)
def test_other_fields_and_types_are_no_pin(change: dict[str, Any]) -> None:
    with pytest.raises(PinError):
        decode(json.dumps(CONTENT | change).encode())


@pytest.mark.parametrize("name", CONTENT)
def test_a_pin_without_one_of_its_fields_is_none(name: str) -> None:
    with pytest.raises(PinError):
        decode(json.dumps({key: value for key, value in CONTENT.items() if key != name}).encode())


def test_the_largest_number_is_in_force() -> None:
    later = Pin("desk", "c", "a", 4, "")
    assert newest(PIN, later) is newest(later, PIN) is later
    assert newest(None, PIN) is newest(PIN, None) is PIN
    assert newest(None, None) is None
