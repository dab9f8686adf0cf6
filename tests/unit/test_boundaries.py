"""Calendars and daily boundaries, resolved to integers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from daemon.boundaries import calendar_boundaries, daily_boundaries, resolve_rules
from daemon.config import SessionSettings
from daemon.core.sessions import Field, Gap, Never, Table
from daemon.errors import SettingsError


def utc(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def test_daily_follows_the_clocks_of_its_zone() -> None:
    found = daily_boundaries("17:00", "America/New_York")
    opens = dict(zip(found.labels, found.opens, strict=True))
    assert opens["2024-01-15"] == utc("2024-01-15T22:00")
    assert opens["2024-07-15"] == utc("2024-07-15T21:00")
    days = {close - open_ for open_, close in zip(found.opens, found.closes, strict=True)}
    assert days == {23 * 3600 * 10**9, 24 * 3600 * 10**9, 25 * 3600 * 10**9}


def test_daily_has_no_gaps() -> None:
    found = daily_boundaries("00:00", "Europe/Zurich")
    assert list(found.opens[1:]) == list(found.closes[:-1])


def test_calendar_knows_holidays_and_half_days() -> None:
    found = calendar_boundaries("XNYS")
    spans = {label: (o, c) for label, o, c in zip(found.labels, found.opens, found.closes, strict=True)}
    assert "2024-12-25" not in spans
    assert spans["2024-12-24"] == (utc("2024-12-24T14:30"), utc("2024-12-24T18:00"))


def test_calendar_ends_where_its_holidays_are_not_recorded() -> None:
    shanghai, new_york = calendar_boundaries("XSHG"), calendar_boundaries("XNYS")
    assert shanghai.closes[-1] < new_york.closes[-1] == utc("2040-12-31T21:00")


def test_rules_are_made_for_all_five() -> None:
    settings = [
        SessionSettings(match="A*", rule="gap", gap_seconds=5),
        SessionSettings(match="B*", rule="calendar", calendar="XNYS"),
        SessionSettings(match="C*", rule="daily", time="17:00", zone="America/New_York"),
        SessionSettings(match="D*", rule="field"),
        SessionSettings(match="E*", rule="never"),
    ]
    rules = resolve_rules(settings)
    kinds = [type(rules.rule_for(name)) for name in ("A1", "B1", "C1", "D1", "E1", "other")]
    assert kinds == [Gap, Table, Table, Field, Never, Gap]
    assert len(set(rules.digest())) == 2


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (SessionSettings(rule="calendar", calendar="NOPE"), "NOPE"),
        (SessionSettings(rule="daily", time="17:00", zone="Mars/Base"), "Mars/Base"),
        (SessionSettings(rule="daily", time="29:00", zone="Europe/Zurich"), "29:00"),
    ],
)
def test_what_does_not_exist_is_named(settings: SessionSettings, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        resolve_rules([settings])
