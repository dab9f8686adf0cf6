"""What a page is sent: when, how much, and what of it."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import orjson
import pytest

from daemon.core.records import InputRecord
from daemon.web.board import Board
from daemon.web.frames import BOARD_SECONDS, FORECASTS_PER_FRAME, FRAME_SECONDS, ROWS_MAX, Viewer, event
from schemas import TickDecoder
from tests.web.messages import T0_MS, forecast, payload, tick


@pytest.fixture
def board() -> Board:
    return Board({"ticks": "ticks", "forecasts": "forecasts"}, TickDecoder())


def heard(frame: bytes) -> list[tuple[str, Any]]:
    """Read events as a browser does: by their lines, ended by an empty one."""
    found = []
    for block in frame.decode().split("\n\n")[:-1]:
        lines = [line.split(": ", 1) for line in block.splitlines()]
        name = next(value for field, value in lines if field == "event")
        found.append((name, json.loads("\n".join(value for field, value in lines if field == "data"))))
    return found


def numbers(frame: bytes) -> list[int]:
    return [each["number"] for name, content in heard(frame) if name == "forecasts" for each in content["forecasts"]]


def feed(board: Board, begin: int, end: int) -> None:
    board.take({"forecasts": [forecast("A", step, step) for step in range(begin, end)]})


def test_the_first_frame_brings_all_that_is_kept_the_next_ones_what_is_new(board: Board) -> None:
    feed(board, 0, 300)
    viewer = Viewer(board, instrument="A")
    first = viewer.frame(0.0, None)
    assert [name for name, _ in heard(first)] == ["board", "forecasts"]
    assert numbers(first) == list(range(1, 301))
    assert viewer.frame(FRAME_SECONDS, None) == b""
    feed(board, 300, 303)
    assert numbers(viewer.frame(2 * FRAME_SECONDS, None)) == [301, 302, 303]
    assert [name for name, _ in heard(viewer.frame(BOARD_SECONDS, None))] == ["board"]


def test_a_forecast_is_sent_as_it_stands_in_the_topic(board: Board) -> None:
    pretty = json.dumps(payload("A", 0, 0, 61837.635), indent=2).replace("\n", "\r\n").encode()
    board.take({"forecasts": [InputRecord("forecasts", 0, 0, T0_MS, b"A", pretty)]})
    (_, _), (_, content) = heard(Viewer(board, instrument="A").frame(0.0, None))
    assert content["forecasts"][0]["forecast"] == orjson.loads(pretty)


def test_of_a_fast_instrument_a_sample_is_sent_with_the_newest_in_it(board: Board) -> None:
    feed(board, 0, 1)
    viewer = Viewer(board, instrument="A")
    viewer.frame(0.0, None)
    feed(board, 1, 401)
    found = numbers(viewer.frame(FRAME_SECONDS, None))
    assert FORECASTS_PER_FRAME / 2 < len(found) <= FORECASTS_PER_FRAME
    assert found[-1] == 401
    assert len({after - before for before, after in pairwise(found)}) == 1


def test_a_page_that_comes_back_gets_what_it_lacks(board: Board) -> None:
    feed(board, 0, 300)
    viewer = Viewer(board, instrument="A", epoch=board.epoch, after=290)
    assert numbers(viewer.frame(0.0, None)) == list(range(291, 301))


def test_a_page_of_another_epoch_gets_all(board: Board) -> None:
    feed(board, 0, 5)
    viewer = Viewer(board, instrument="A", epoch="another", after=290)
    assert numbers(viewer.frame(0.0, None)) == [1, 2, 3, 4, 5]
    board.clear()
    feed(board, 0, 2)
    assert numbers(viewer.frame(FRAME_SECONDS, None)) == [1, 2]


def test_who_names_no_instrument_sees_the_first_and_keeps_it(board: Board) -> None:
    viewer = Viewer(board)
    assert heard(viewer.frame(0.0, None))[0][1]["instrument"]["name"] == ""
    board.take({"ticks": [tick("B", 0)]})
    assert heard(viewer.frame(1.0, None))[0][1]["instrument"]["name"] == "B"
    board.take({"ticks": [tick("A", 1)]})
    assert heard(viewer.frame(2.0, None))[0][1]["instrument"]["name"] == "B"


def test_the_list_is_bounded_and_follows_the_search(board: Board) -> None:
    board.take({"ticks": [tick(f"I{n:04}", n) for n in range(3000)]})
    content = heard(Viewer(board).frame(0.0, None))[0][1]
    assert (len(content["rows"]), content["found_count"], content["instrument_count"]) == (ROWS_MAX, 3000, 3000)
    found = heard(Viewer(board, search="i299").frame(0.0, None))[0][1]
    assert [row["name"] for row in found["rows"]] == [f"I299{n}" for n in range(10)]


def test_trouble_with_kafka_is_told(board: Board) -> None:
    assert heard(Viewer(board).frame(0.0, "no broker"))[0][1]["trouble"] == "no broker"


def test_no_content_can_end_its_event() -> None:
    found = heard(event("board", orjson.Fragment(b'{"a":1,\n\n\r\r\n"b":2}')) + event("board", 3))
    assert found == [("board", {"a": 1, "b": 2}), ("board", 3)]
