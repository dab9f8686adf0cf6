"""Who is expected to tick now: by the hours of a market where they are known, else while it has not been silent."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from daemon.boundaries import resolve_rules
from daemon.config import SessionSettings
from daemon.core.instrument import Instrument
from daemon.core.sessions import FORGOTTEN_NS, SILENCE_NS, Boundaries, Field, Gap, Never, Rules, Table
from daemon.expected import ExpectedInstruments
from tests.ticks import SECOND, at, newcomer

#: Open at 30-90 and 130-190 s, with a pause at 150-160 s.
DAYS = Boundaries([at(30), at(130)], [at(90), at(190)], ["Mon", "Tue"], [(at(150), at(160))])


def seen(name: str, ts: int) -> Instrument:
    made = newcomer(name=name)
    made.last_ts = ts
    return made


def expected(rule: object, last: float, now: float) -> bool:
    made = ExpectedInstruments(Rules([("*", rule)], Never()))  # type: ignore[list-item]
    counts = made.count([seen("A", at(last))], at(now))
    assert sum(counts.values()) in (0, 1)
    return bool(counts[rule.kind])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("now", "open_now"),
    [(29, False), (30, True), (89, True), (90, False), (129, False), (149, True), (150, False), (160, True)],
)
def test_a_calendar_expects_ticks_within_its_hours_and_not_in_its_breaks(now: float, open_now: bool) -> None:
    assert expected(Table(DAYS, "own", Gap(20)), 0, now) is open_now


def test_beyond_its_table_a_calendar_expects_what_the_gap_rule_does() -> None:
    rule = Table(DAYS, "own", Gap(20))
    assert expected(rule, 185, 200)
    assert not expected(rule, 175, 200)
    assert expected(rule, 0, 10), "before its first session"


@pytest.mark.parametrize("rule", [Gap(20), Table(DAYS, "attach", Gap(20), kind="daily")])
def test_who_knows_no_hours_takes_a_long_silence_for_a_closed_market(rule: object) -> None:
    assert expected(rule, 100, 120)
    assert not expected(rule, 100, 121)


def test_a_field_expects_ticks_for_an_hour() -> None:
    assert expected(Field(), 0, SILENCE_NS / SECOND)
    assert not expected(Field(), 0, SILENCE_NS / SECOND + 1)


def test_a_market_that_never_closes_is_always_expected_until_it_is_forgotten() -> None:
    assert expected(Never(), 0, FORGOTTEN_NS / SECOND)
    assert not expected(Never(), 0, FORGOTTEN_NS / SECOND + 1)


def test_a_delisted_instrument_is_not_expected_by_an_open_exchange() -> None:
    made = ExpectedInstruments(Rules([("*", Table(DAYS, "own", Gap(20)))], Never()))
    instruments = [seen("NEW", at(60) - FORGOTTEN_NS), seen("OLD", at(60) - FORGOTTEN_NS - 1)]
    assert made.count(instruments, at(60))["calendar"] == 1


def test_counts_are_by_kind_and_name_every_kind() -> None:
    rules = Rules([("F*", Field()), ("N*", Never())], Gap(20))
    instruments = [seen(name, at(0)) for name in ("F1", "N1", "N2", "other")]
    counted = ExpectedInstruments(rules).count(instruments, at(10))
    assert counted == {"gap": 1, "calendar": 0, "daily": 0, "field": 1, "never": 2}


def test_an_instrument_without_a_tick_is_not_expected() -> None:
    assert ExpectedInstruments(Rules((), Never())).count([newcomer()], at(0))["never"] == 0


def test_rules_are_remembered_for_present_instruments_only(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules([("A*", Never())], Gap(20))
    asked: list[str] = []
    find = rules.find
    monkeypatch.setattr(rules, "find", lambda name: asked.append(name) or find(name))
    made = ExpectedInstruments(rules)
    for names in (("A1", "B1"), ("A1", "B1"), ("A1",), ("A1", "B1")):
        made.count([seen(name, at(0)) for name in names], at(1))
    assert asked == ["A1", "B1", "B1"]


@pytest.fixture(scope="module")
def tokyo() -> Rules:
    return resolve_rules([SessionSettings(match="*", rule="calendar", calendar="XTKS")])


@pytest.mark.parametrize(
    ("when", "open_now"),
    [
        ("2024-01-05T01:00", True),  # Tokyo opens at 9:00, which is midnight UTC
        ("2024-01-05T03:00", False),  # its lunch, 11:30 to 12:30
        ("2024-01-05T04:00", True),
        ("2024-01-06T01:00", False),  # a Saturday
    ],
)
def test_exchanges_have_their_hours_and_their_lunch(tokyo: Rules, when: str, open_now: bool) -> None:
    now = round(datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()) * SECOND
    assert ExpectedInstruments(tokyo).count([seen("7203", now - 86400 * SECOND)], now)["calendar"] == open_now
