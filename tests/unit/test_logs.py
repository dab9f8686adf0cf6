"""Log lines: one JSON object for machines, one readable line for people, the same facts in both."""

from __future__ import annotations

import json
import logging

import pytest

from daemon.cli.main import _fail
from daemon.cli.tables import table
from daemon.logs import JsonLines, TextLines, facts


def line_of(formatter: logging.Formatter, error: BaseException | None = None) -> str:
    record = logging.LogRecord("tickcast", logging.WARNING, "f.py", 1, "partition starts %s", ("cold",), None)
    record.__dict__.update(facts(partition=3, offset=17))
    record.created = 1_700_000_000.5
    if error is not None:
        record.exc_info = (type(error), error, None)
    return formatter.format(record)


def test_json_lines_hold_the_facts_as_keys() -> None:
    assert json.loads(line_of(JsonLines())) == {
        "time": "2023-11-14T22:13:20.500+00:00",
        "level": "warning",
        "message": "partition starts cold",
        "partition": 3,
        "offset": 17,
    }


def test_an_exception_stays_inside_its_line() -> None:
    line = line_of(JsonLines(), ValueError("two\nlines"))
    assert "\n" not in line
    assert "two" in json.loads(line)["exception"]


def test_text_lines_end_with_the_facts() -> None:
    assert line_of(TextLines()) == "22:13:20.500 warning partition starts cold partition=3 offset=17"


#: Clears the screen, ends the line and writes another one in our name.
STEERING = "A\x1b[2J\n12:00:00.000 info    all is well \u202e"


def test_what_comes_from_outside_neither_ends_a_line_nor_steers_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("tickcast", logging.INFO, "f.py", 1, "late: %s", (STEERING,), None)
    record.__dict__.update(facts(instrument=STEERING))
    _fail(STEERING, 1)
    lines = [TextLines().format(record), JsonLines().format(record), *table(["name"], [[STEERING]]).splitlines()]
    lines += capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert [line for line in lines if not line.isprintable()] == []
