"""Which dead letters can be ticks again, and what is written for those."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from daemon.config import Settings
from daemon.core import marker as markers
from daemon.core.features import FeatureTable
from daemon.core.instrument import Instrument
from daemon.core.letters import dead_letter
from daemon.core.marker import Marker
from daemon.core.records import InputRecord, Message
from daemon.core.snapshot import encode
from daemon.errors import BrokerUnavailable
from daemon.stored import Stored
from daemon.tools.dead_letters import FOREIGN, Letter, LetterBox, read_letter
from daemon.tools.retrial import BATCH_TICKS, Court, Outcome, intake_of, retry
from daemon.transport.memory import MemoryReader
from daemon.transport.memory_log import MemoryLog
from schemas import HEADER_PREFIX, Reason, ResetCause, TickDecoder
from tests.ticks import COLUMNS, START, at, model, raw, record

REVISION = "revision-one"
MARKER = Marker("desk", "ticks-1", REVISION, 100, 0, 0, ResetCause.FIRST)
NOW_MS = START // 1_000_000 + 3_600_000


def letter(
    value: dict[str, Any] | bytes | None,
    offset: int = 0,
    *,
    reason: Reason = Reason.NOT_JSON,
    attempt: int = 0,
    room: int = 1000,
    **facts: Any,
) -> Letter:
    """Return a letter as the daemon writes it."""
    headers = [(HEADER_PREFIX + "attempt", str(attempt).encode())] if attempt else []
    message = dead_letter(record(value, 77, headers=headers, **facts), reason, "why", room)
    return read_letter(InputRecord("letters", 0, offset, NOW_MS, message.key, message.value, message.headers))


def court(snapshots: Iterable[Instrument] = (), *, columns: Any = COLUMNS, **pipeline: Any) -> Court:
    settings = Settings(pipeline=pipeline)
    stored = Stored()
    for instrument in snapshots:
        instrument.cells = list(FeatureTable(columns, 1e-4).start)
        value = encode(REVISION, 100, instrument, b"\0\0\x80?")
        stored.add([record(value, key=instrument.name.encode())])
    stored.add([record(markers.encode(MARKER), key=markers.KEY)])
    return Court("ticks", TickDecoder(), intake_of(settings, model(columns)), stored, lambda: NOW_MS)


def seen(last_seconds: float, name: str = "A", **fields: Any) -> Instrument:
    """Return an instrument whose last tick was then."""
    made = Instrument(name, -1, [], None)
    made.last_ts, made.price = at(last_seconds), 100.0
    for field, value in fields.items():
        setattr(made, field, value)
    return made


class Writes:
    """An outbox that keeps what it gets."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.transactions: list[tuple[list[Message], int, int]] = []
        self._fails_at = fails_at

    def put_back(self, ticks: Iterable[Message], partition: int, next_letter: int) -> None:
        if len(self.transactions) == self._fails_at:
            raise BrokerUnavailable("away")
        self.transactions.append((list(ticks), partition, next_letter))


def verdicts(letters: Iterable[Letter], before: Court) -> tuple[Outcome, Writes]:
    outcome, writes = Outcome(), Writes()
    retry(letters, before, writes, outcome)
    return outcome, writes


def test_a_letter_goes_back_as_it_was_with_its_attempts() -> None:
    tick = json.dumps(raw(10)).encode()
    outcome, writes = verdicts([letter(tick, 5, attempt=2)], court([seen(5)]))
    assert outcome.put_back == 1
    assert writes.transactions == [([Message(0, b"A", tick, [(HEADER_PREFIX + "attempt", b"3")])], 0, 6)]
    again = dead_letter(record(tick, headers=writes.transactions[0][0][0].headers), Reason.LATE, "", 1000)
    assert dict(again.headers)[HEADER_PREFIX + "attempt"] == b"4"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"{", "not_json"),
        (None, "empty"),
        (raw(4), "late"),
        (raw(10, seq=3), "duplicate"),
        (raw(10, price=-1.0), "price_not_positive"),
        (raw(100_000), "future_time"),
        (raw(10, price=100.0, bid=2.0, ask=1.0), "crossed_quote"),
    ],
)
def test_what_would_only_be_rejected_again_stays(value: Any, expected: str) -> None:
    outcome, writes = verdicts([letter(value)], court([seen(5, seq=3)]))
    assert dict(outcome.refused) == {expected: 1}
    assert outcome.put_back == 0
    assert writes.transactions == []


def test_a_field_that_the_model_reads_is_asked_for() -> None:
    from daemon.core.spec import Column

    bare, full = letter(raw(10)), letter(raw(11, fields={"open": 1.0}))
    outcome, _ = verdicts([bare, full], court(columns=(Column("field:open"),)))
    assert dict(outcome.refused) == {"missing_field": 1}
    assert outcome.put_back == 1


def test_a_key_that_is_no_text_stays() -> None:
    outcome, _ = verdicts([letter(raw(10), key=b"\xff")], court())
    assert dict(outcome.refused) == {"key_not_utf8": 1}


def test_a_cut_value_stays_even_where_it_could_be_read() -> None:
    value = json.dumps(raw(10)).encode()
    cut = letter(value + b" " * 100, room=len(value) + 1)
    assert cut.value == value
    outcome, _ = verdicts([cut], court())
    assert dict(outcome.refused) == {"truncated": 1}


def test_no_state_runs_backwards_even_where_lateness_is_tolerated() -> None:
    tolerant = court([seen(5)], max_lateness_seconds=60)
    outcome, _ = verdicts([letter(raw(4.9)), letter(raw(5))], tolerant)
    assert dict(outcome.refused) == {"late": 1}
    assert outcome.put_back == 1


def test_letters_are_judged_after_those_put_back_before_them() -> None:
    letters = [letter(raw(10, seq=5), 0), letter(raw(9), 1), letter(raw(11, seq=5), 2), letter(raw(9, "B"), 3)]
    outcome, writes = verdicts(letters, court())
    assert dict(outcome.refused) == {"late": 1, "duplicate": 1}
    assert [message.value for message in writes.transactions[0][0]] == [letters[0].value, letters[3].value]


def test_the_place_moves_behind_the_last_letter_put_back_only() -> None:
    letters = [letter(b"{", 0), letter(raw(1), 1), letter(b"{", 2), letter(b"{", 3)]
    _, writes = verdicts(letters, court())
    assert [next_letter for _, _, next_letter in writes.transactions] == [2]
    assert verdicts(letters[2:], court())[1].transactions == []


def test_a_failure_in_between_leaves_whole_transactions() -> None:
    letters = [letter(raw(n), n) for n in range(2 * BATCH_TICKS + 5)]
    outcome, writes = Outcome(), Writes(fails_at=1)
    with pytest.raises(BrokerUnavailable):
        retry(letters, court(), writes, outcome)
    assert outcome.put_back == BATCH_TICKS
    (ticks, _, next_letter) = writes.transactions[0]
    rest = Writes()
    retry([each for each in letters if each.offset >= next_letter], court(), rest, Outcome())
    assert [m.value for m in ticks] + [m.value for t in rest.transactions for m in t[0]] == [e.value for e in letters]


def test_letters_of_others_stay() -> None:
    foreign = read_letter(InputRecord("letters", 0, 1, NOW_MS, b"A", json.dumps(raw(10)).encode(), ()))
    elsewhere = letter(raw(10), topic="other-ticks")
    moved = letter(raw(10), partition=3)
    outcome, _ = verdicts([foreign, elsewhere, moved], court())
    assert foreign.reason == FOREIGN
    assert dict(outcome.refused) == {FOREIGN: 2, "other_topic": 1}


def test_a_dry_run_counts_the_same_and_writes_nothing() -> None:
    letters = [letter(raw(10), 0), letter(b"{", 1)]
    outcome = Outcome()
    retry(letters, court(), None, outcome)
    assert (outcome.put_back, dict(outcome.refused)) == (1, {"not_json": 1})
    assert outcome.examples["not_json"][0] == letters[1]


def test_any_headers_give_a_letter() -> None:
    names = ("partition", "offset", "timestamp", "attempt", "reason", "topic", "truncated")
    for value in (b"", b"-1", b"\xff", "²".encode(), b"9" * 5000, None):
        headers = [(HEADER_PREFIX + name, value) for name in names]
        found = read_letter(InputRecord("letters", 0, 1, -1, None, None, headers))  # type: ignore[arg-type]
        assert found.attempt == 1
        assert found.tick_partition is None


def test_letters_are_read_in_order_up_to_the_end_asked_for() -> None:
    log = MemoryLog(1)
    for n in range(700):
        log.produce(0, b"A", str(n).encode(), topic="dead_letters")
    log.trim("dead_letters", 0, 10)
    box = LetterBox(MemoryReader(log))
    assert [found.value for found in box.letters(0, 0, 650)] == [str(n).encode() for n in range(10, 650)]
    assert list(box.letters(0, 650, 650)) == []
