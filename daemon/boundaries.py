"""Resolves session settings to the rules of the core: calendars and daily boundaries become tables of integers.

Both are resolved once, at start, for a fixed span, because the calendar library's own span follows the wall clock and
the core reads none. What was resolved is hashed into the revision.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from daemon.config import SessionSettings
from daemon.core.sessions import Boundaries, Field, Gap, Never, Rule, Rules, Table
from daemon.errors import SettingsError

#: The fixed span. Calendars whose holidays are not recorded so far end earlier; the rule then falls back to its gap.
FIRST_DAY = date(2000, 1, 1)
LAST_DAY = date(2040, 12, 31)
#: The rule where no `[[session]]` matches.
DEFAULT_GAP_SECONDS = 3600.0


def resolve_rules(settings: Sequence[SessionSettings]) -> Rules:
    """Make the session rules.

    Raises
    ------
    SettingsError : an unknown calendar or time zone, or a time of day that is none
    """
    return Rules([(each.match, _rule(each)) for each in settings], Gap(DEFAULT_GAP_SECONDS))


def _rule(settings: SessionSettings) -> Rule:
    if settings.rule == "never":
        return Never()
    if settings.rule == "field":
        return Field()
    gap = Gap(settings.gap_seconds)
    if settings.rule == "gap":
        return gap
    if settings.rule == "daily":
        assert settings.time is not None  # the settings were checked when they were read
        assert settings.zone is not None
        name = f"daily {settings.time} {settings.zone}"
        return Table(daily_boundaries(settings.time, settings.zone), "attach", gap, kind="daily", name=name)
    assert settings.calendar is not None
    return Table(calendar_boundaries(settings.calendar), settings.outside, gap, name=settings.calendar)


def daily_boundaries(at: str, zone: str) -> Boundaries:
    """Return one session per day, from a local time of day to the same on the next day, across changes of the clock.

    The label is the local date on which the session opens. A time that the clock skips or repeats on a day is taken by
    the offset before the change.
    """
    try:
        opens_at = time.fromisoformat(at)
        tz = ZoneInfo(zone)
    except (ValueError, OSError, LookupError) as error:
        raise SettingsError(f'session rule "daily": time = {at!r}, zone = {zone!r}: {error}') from error
    days = [FIRST_DAY + timedelta(days=n) for n in range((LAST_DAY - FIRST_DAY).days + 1)]
    opens = [_nanoseconds(datetime.combine(day, opens_at, tz)) for day in days]
    return Boundaries(opens[:-1], opens[1:], [day.isoformat() for day in days[:-1]])


def calendar_boundaries(code: str) -> Boundaries:
    """Return the sessions of an exchange; label, open and close as exchange_calendars has them.

    Breaks inside a session (lunch) do not end it; they are its pauses.
    """
    import exchange_calendars  # brings pandas: only who asks for a calendar pays for it

    try:
        bounds = exchange_calendars.get_calendar(code)
        first, last = bounds.bound_min(), bounds.bound_max()
        start = max(FIRST_DAY, first.date()) if first is not None else FIRST_DAY
        end = min(LAST_DAY, last.date()) if last is not None else LAST_DAY
        calendar = exchange_calendars.get_calendar(code, start=start.isoformat(), end=end.isoformat())
    except exchange_calendars.errors.InvalidCalendarName as error:
        raise SettingsError(
            f'session rule "calendar": no calendar {code!r}; codes are those of exchange_calendars, e.g. XNYS'
        ) from error
    labels = [session.date().isoformat() for session in calendar.sessions]
    breaks = zip(calendar.break_starts_nanos.tolist(), calendar.break_ends_nanos.tolist(), strict=True)
    pauses = [(start, end) for start, end in breaks if start > 0]  # a session without one has a NaT, far below 0
    return Boundaries(calendar.opens_nanos.tolist(), calendar.closes_nanos.tolist(), labels, pauses)


def _nanoseconds(when: datetime) -> int:
    return round((when.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * 10**9
