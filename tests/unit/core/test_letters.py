"""Dead letters: where from, why, how often, and the value whole or cut."""

import hashlib

import pytest

from daemon.core.letters import ATTEMPT_HEADER, dead_letter
from schemas import HEADER_PREFIX, Reason
from schemas.dead_letter import DETAIL_CHARS_MAX
from tests.ticks import headers, record

VALUE = b"0123456789"


def letter(value: bytes | None = VALUE, detail: str = "why", bytes_max: int = 100, **facts):
    facts = {"partition": 3, "key": b"\xffk", **facts}
    return dead_letter(record(value, 42, **facts), Reason.LATE, detail, bytes_max)


def test_it_keeps_key_and_value_and_says_where_from_and_why():
    made = letter(timestamp=1234)
    assert (made.partition, made.key, made.value) == (3, b"\xffk", VALUE)
    assert headers(made) == {
        "topic": "ticks",
        "partition": "3",
        "offset": "42",
        "timestamp": "1234",
        "reason": "late",
        "detail": "why",
        "attempt": "1",
    }
    assert all(name.startswith(HEADER_PREFIX) for name, _ in made.headers)


def test_a_record_without_value_stays_without():
    assert letter(None, bytes_max=0).value is None


def test_key_and_value_that_just_fit_are_kept_whole():
    made = letter(bytes_max=12)
    assert made.value == VALUE
    assert "truncated" not in headers(made)


@pytest.mark.parametrize(("bytes_max", "rest"), [(11, VALUE[:9]), (2, b""), (0, b"")])
def test_what_does_not_fit_is_cut_and_says_of_what(bytes_max, rest):
    made = letter(bytes_max=bytes_max)
    assert made.value == rest
    assert headers(made)["truncated"] == "true"
    assert headers(made)["original_length"] == "10"
    assert headers(made)["sha256"] == hashlib.sha256(VALUE).hexdigest()


def test_a_long_detail_is_cut_and_an_odd_one_is_still_text():
    assert headers(letter(detail="x" * 10_000))["detail"] == "x" * DETAIL_CHARS_MAX
    assert headers(letter(detail="a\ud800\x00é"))["detail"] == "a\\ud800\x00é"


def test_a_tick_put_back_from_the_dead_letters_counts_its_attempts():
    again = letter(headers=letter(headers=letter().headers).headers)
    assert headers(again)["attempt"] == "3"


@pytest.mark.parametrize("value", [None, b"", b"-1", b"two", b"\xd9\xa1", b"9" * 5000])
def test_an_attempt_that_is_no_sensible_number_counts_as_none(value):
    assert headers(letter(headers=[("trace", None), (ATTEMPT_HEADER, value)]))["attempt"] == "1"
