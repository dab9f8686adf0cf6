"""Markers: there and back, readable by people, and nothing else taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from daemon.core.marker import FORMAT, KEY, Marker, MarkerError, decode, encode
from daemon.core.pin import Pin
from daemon.stored import is_instrument
from schemas import ResetCause

MARKER = Marker("desk", "ticks-1", "0123456789ab", 100, 7, 9, ResetCause.REVISION)
CONTENT: dict[str, Any] = {
    "format": 1,
    "group_id": "desk",
    "topic_id": "ticks-1",
    "revision": "0123456789ab",
    "next_offset": 100,
    "replay_start": 7,
    "live_from": 9,
    "origin": "revision",
}


@pytest.mark.parametrize("origin", ResetCause)
@pytest.mark.parametrize("offset", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("group_id", ["desk", "Handelstisch „Süd“", ""])
def test_a_marker_comes_back_as_it_was(group_id: str, offset: int, origin: ResetCause) -> None:
    marker = Marker(group_id, "ticks-1", "0123456789ab", offset, offset, offset, origin)
    assert decode(encode(marker)) == marker


def test_format_1_is_readable_json_and_is_read_for_ever() -> None:
    assert json.loads(encode(MARKER)) == CONTENT
    assert decode(json.dumps(CONTENT, indent=2).encode()) == MARKER


def test_a_marker_repeats_the_pin_and_names_the_model_where_they_are_known() -> None:
    pin = Pin("desk", "aaaa", "", 1, "2026-11-21T20:00:00Z")
    signed = replace(MARKER, model="bbbb", pin=pin)
    found = decode(encode(signed))
    assert (found.model, found.pin) == ("bbbb", pin)
    assert found == MARKER, "what its writer knew is no part of where the states stand"


@pytest.mark.parametrize("wrong", [{"pin": None}, {"pin": {"bundle": "aaaa"}}, {"pin": 1}, {"model": None}])
def test_a_wrong_pin_or_model_is_no_marker(wrong: dict[str, Any]) -> None:
    with pytest.raises(MarkerError):
        decode(json.dumps(CONTENT | wrong).encode())


def test_no_instrument_has_the_markers_key() -> None:
    assert not is_instrument(KEY)


@pytest.mark.parametrize("version", [0, FORMAT + 1, "1", None, 1.5])
def test_a_marker_of_another_format_is_named(version: object) -> None:
    with pytest.raises(MarkerError, match=f"marker of format {version}, known is 1"):
        decode(json.dumps(CONTENT | {"format": version}).encode())


@pytest.mark.parametrize("value", [b"", b"no json", b"\xff", b"null", b"1", b'"text"', b"[]", b"[1]", b"{}"])
def test_foreign_bytes_are_no_marker(value: bytes) -> None:
    with pytest.raises(MarkerError):
        decode(value)


def test_nesting_without_end_is_no_marker() -> None:
    with pytest.raises(MarkerError):
        decode(b"[" * 100_000)


@pytest.mark.parametrize("name", CONTENT)
def test_a_marker_without_one_of_its_fields_is_none(name: str) -> None:
    with pytest.raises(MarkerError):
        decode(json.dumps({key: value for key, value in CONTENT.items() if key != name}).encode())


def test_a_marker_with_a_field_that_we_do_not_know_is_none() -> None:
    with pytest.raises(MarkerError, match="extra"):
        decode(json.dumps(CONTENT | {"extra": 1}).encode())


@pytest.mark.parametrize("wrong", [None, "100", 1.0, 1e30, True, []])
@pytest.mark.parametrize("name", ["next_offset", "replay_start", "live_from"])
def test_an_offset_is_a_whole_number(name: str, wrong: object) -> None:
    with pytest.raises(MarkerError, match=name):
        decode(json.dumps(CONTENT | {name: wrong}).encode())


@pytest.mark.parametrize("wrong", [None, "", "revision ", "FIRST", 1, ["first"]])
def test_the_origin_is_a_cause(wrong: object) -> None:
    with pytest.raises(MarkerError):
        decode(json.dumps(CONTENT | {"origin": wrong}).encode())


@pytest.mark.parametrize("wrong", [None, 5, ["desk"]])
@pytest.mark.parametrize("name", ["group_id", "topic_id", "revision"])
def test_a_name_is_text(name: str, wrong: object) -> None:
    with pytest.raises(MarkerError, match=name):
        decode(json.dumps(CONTENT | {name: wrong}).encode())
