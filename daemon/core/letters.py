"""Dead letters: the raw record, kept whole where it fits, with headers that say where it stood and why."""

from __future__ import annotations

from daemon.core.records import Headers, Message, Record
from schemas import HEADER_PREFIX, Reason, dead_letter_headers
from schemas.dead_letter import truncation_headers

ATTEMPT_HEADER = HEADER_PREFIX + "attempt"
ATTEMPT_DIGITS_MAX = 9


def dead_letter(record: Record, reason: Reason, detail: str, bytes_max: int) -> Message:
    """Make the dead letter of a record.

    Parameters
    ----------
    bytes_max : largest key and value that the topic takes together; a longer value is cut, with headers that say so
    """
    headers = dead_letter_headers(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp=record.timestamp,
        reason=reason,
        detail=detail,
        attempt=_attempt(record.headers),
    )
    value = record.value
    room = max(bytes_max - len(record.key or b""), 0)
    if value is not None and len(value) > room:
        headers += truncation_headers(value)
        value = value[:room]
    return Message(record.partition, record.key, value, headers)


def _attempt(headers: Headers) -> int:
    """Count this attempt: one more than the tick's own header says, where it was put back from the dead letters.

    Anybody may write headers, so theirs may be null, no number, or one of a thousand digits.
    """
    for name, value in headers:
        if name == ATTEMPT_HEADER and value and len(value) <= ATTEMPT_DIGITS_MAX and value.isdigit():
            return int(value) + 1
    return 1
