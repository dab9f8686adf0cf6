"""Dead letters: a record we cannot use, kept byte for byte, with headers that say where it came from and why.

The header names follow KIP-1034 (dead letter queues of Kafka Streams) with our own prefix: readable text, one header
for each fact.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

HEADER_PREFIX = "__tickcast.errors."
#: A detail is for people; longer ones are cut.
DETAIL_CHARS_MAX = 300


class Reason(StrEnum):
    """Why a tick became a dead letter."""

    EMPTY = "empty"
    NOT_JSON = "not_json"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    INVALID_VALUE = "invalid_value"
    NOT_FINITE = "not_finite"
    PRICE_NOT_POSITIVE = "price_not_positive"
    CROSSED_QUOTE = "crossed_quote"
    NAIVE_TIME = "naive_time"
    TIME_UNIT = "time_unit"
    FUTURE_TIME = "future_time"
    KEY_NOT_UTF8 = "key_not_utf8"
    LATE = "late"
    DUPLICATE = "duplicate"
    OUTSIDE_SESSION = "outside_session"
    NON_FINITE = "non_finite"

    @property
    def meaning(self) -> str:
        """One sentence for tables and schemas."""
        return _MEANINGS[self]


_MEANINGS = {
    Reason.EMPTY: "The record has no value.",
    Reason.NOT_JSON: "The value is not JSON, or not a JSON object.",
    Reason.MISSING_FIELD: "A field that is needed is missing: of the message, or one that the model reads.",
    Reason.WRONG_TYPE: "A field has another type than the schema says.",
    Reason.INVALID_VALUE: "A field has the right type but a value that is not allowed.",
    Reason.NOT_FINITE: "A number of the tick is NaN or infinite.",
    Reason.PRICE_NOT_POSITIVE: "A price is zero or negative, and the model works on ratios of prices.",
    Reason.CROSSED_QUOTE: "The ask is below the bid.",
    Reason.NAIVE_TIME: "`ts` is a time without an offset from UTC.",
    Reason.TIME_UNIT: "An integer `ts` is no count of nanoseconds: milliseconds or microseconds were sent.",
    Reason.FUTURE_TIME: "`ts` is further ahead of the record's Kafka timestamp than `future_skew_seconds`.",
    Reason.KEY_NOT_UTF8: "The record's key is not UTF-8.",
    Reason.LATE: "`ts` is older than the instrument's last tick by more than is tolerated, or of an earlier session.",
    Reason.DUPLICATE: "`seq` did not grow.",
    Reason.OUTSIDE_SESSION: "The calendar says the market is closed and the rule refuses such ticks.",
    Reason.NON_FINITE: "The tick drove the model's state or output to NaN or infinity; the instrument was reset.",
}


def dead_letter_headers(
    *, topic: str, partition: int, offset: int, timestamp: int, reason: Reason, detail: str, attempt: int = 1
) -> list[tuple[str, bytes]]:
    """Make the headers of a dead letter.

    Parameters
    ----------
    topic, partition, offset : where the record stood
    timestamp : the record's Kafka timestamp, milliseconds since the epoch
    reason, detail : why it was refused, for programs and for people
    attempt : how many times this tick was tried, this time included
    """
    facts = {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp": timestamp,
        "reason": reason.value,
        "detail": detail[:DETAIL_CHARS_MAX],
        "attempt": attempt,
    }
    return [(HEADER_PREFIX + name, str(fact).encode("utf-8", "backslashreplace")) for name, fact in facts.items()]


def truncation_headers(value: bytes) -> list[tuple[str, bytes]]:
    """Make the headers of a dead letter whose value was too large to keep whole; `value` is the whole one."""
    facts = {"truncated": "true", "original_length": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    return [(HEADER_PREFIX + name, str(fact).encode()) for name, fact in facts.items()]
