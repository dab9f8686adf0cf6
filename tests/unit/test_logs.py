"""Log lines: one JSON object for machines, one readable line for people, the same facts in both."""

from __future__ import annotations

import json
import logging

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
