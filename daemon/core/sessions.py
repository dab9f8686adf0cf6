"""Session rules: does this tick open a session? Decided by event time and the tick alone, never by a clock.

A rule looks at the instrument before the tick and at the tick, and answers with the session the tick opens, or None
where it goes on in the present one. A `session` that a tick brings itself opens one under every rule when it changes,
so that a producer can always force a reset. A tick of an earlier session is late, whatever lateness is tolerated.

Beside that, a rule says to who watches whether ticks are to be expected at a time (`expected_from`). Nothing that is
published depends on it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple, Protocol

from daemon.core.instrument import NEVER, Instrument
from schemas import Reason, Rejected, Tick

#: End of a session whose end the rule cannot know beforehand.
OPEN_END = 2**63 - 1
#: Instruments whose rule is remembered. Then all are forgotten: names that come and go must not add up, and trying the
#: globs again costs a microsecond or two. (At a million, an hour with 100 new names a second took 40 MB.)
REMEMBERED_MAX = 20_000
#: An instrument that has been silent for so long is expected no more, whatever its market does: it is delisted, or
#: nobody sends it any longer. No exchange closes for two weeks.
FORGOTTEN_NS = 14 * 24 * 3600 * 10**9
#: A rule that knows no opening hours and no gap of its own expects ticks for so long after the last one.
SILENCE_NS = 3600 * 10**9

Kind = Literal["gap", "calendar", "daily", "field", "never"]


class Session(NamedTuple):
    """A session that a tick opens, times in ns of event time.

    `start` (included) and `end` (excluded) bound what is known to belong to it: a tick before `start` is of an
    earlier session. `since` is when it opened: by the table, or with the tick itself.
    """

    label: str | None
    start: int
    end: int
    since: int


class Rule(Protocol):
    """What opens a session for an instrument."""

    #: As the settings name it.
    kind: Kind

    def opened_by(self, tick: Tick, instrument: Instrument) -> Session | None:
        """Return the session that `tick` opens, or None. The instrument has seen a tick before.

        Raises
        ------
        Rejected : late (of an earlier session) or outside_session
        """
        ...

    def first(self, tick: Tick) -> Session:
        """Return the session of an instrument's first tick.

        Raises
        ------
        Rejected : outside_session
        """
        ...

    def expected_from(self, now: int) -> int:
        """Return the earliest last tick with which an instrument is expected to tick at `now`; both ns of event time.

        Who knows the hours of its market says so for every instrument that is not forgotten, and `OPEN_END` while the
        market is closed. Who does not takes a market for open until it has been silent for longer than a pause.
        """
        ...


class Never:
    """One session without end, unless the ticks name their own."""

    kind: Kind = "never"

    def expected_from(self, now: int) -> int:
        return now - FORGOTTEN_NS

    def first(self, tick: Tick) -> Session:
        return Session(tick.session, NEVER, OPEN_END, tick.ts)

    def opened_by(self, tick: Tick, instrument: Instrument) -> Session | None:
        return _spoken(tick, instrument)


class Field(Never):
    """The `session` of the ticks is the session; a tick without one goes on in the present session."""

    kind: Kind = "field"

    def expected_from(self, now: int) -> int:
        return now - SILENCE_NS


class Gap:
    """A tick after more than `gap_seconds` of event time without one opens a session, named by its own time."""

    kind: Kind = "gap"

    def __init__(self, gap_seconds: float) -> None:
        self._gap_ns = round(gap_seconds * 1e9)

    def expected_from(self, now: int) -> int:
        return now - self._gap_ns

    def first(self, tick: Tick) -> Session:
        return Session(tick.session or _second(tick.ts), NEVER, OPEN_END, tick.ts)

    def opened_by(self, tick: Tick, instrument: Instrument) -> Session | None:
        if tick.ts - instrument.last_ts > self._gap_ns:
            return self.first(tick)._replace(start=instrument.last_ts + self._gap_ns + 1)
        return None if tick.session is None else _spoken(tick, instrument)


@dataclass(frozen=True)
class Boundaries:
    """Sessions resolved beforehand: opens, closes and labels, all in ascending order; times in ns, closes excluded.

    Between a close and the next open the market is closed; for a rule without closing times close and next open agree.
    """

    opens: Sequence[int]
    closes: Sequence[int]
    labels: Sequence[str]
    #: Pauses inside sessions, starts and ends in ascending order. They end no session and reach no payload: they only
    #: say when no ticks are to be expected.
    pauses: Sequence[tuple[int, int]] = ()


class Table:
    """Sessions from a table of boundaries (`calendar` and `daily`); outside its span, the gap rule.

    Parameters
    ----------
    boundaries : the table, at least one session
    outside : what a tick between close and open is: "own" a session of its own, "attach" part of the session
        before, "dead_letter" refused
    gap : the rule beyond the span
    kind : "calendar" where the table holds opening hours, "daily" where it only cuts days
    name : for people, e.g. the calendar's code
    """

    def __init__(
        self,
        boundaries: Boundaries,
        outside: Literal["own", "attach", "dead_letter"],
        gap: Gap,
        *,
        kind: Kind = "calendar",
        name: str = "",
    ) -> None:
        self.kind = kind
        self.name = name
        self._opens = list(boundaries.opens)
        self._closes = list(boundaries.closes)
        self._labels = list(boundaries.labels)
        self._pauses = list(boundaries.pauses)
        self._outside = outside
        self._gap = gap
        #: How many ticks were beyond the span.
        self.beyond_count = 0

    def first(self, tick: Tick) -> Session:
        found = self._locate(tick)
        if found is None:
            return self._gap.first(tick)
        return found._replace(label=tick.session) if tick.session else found

    def opened_by(self, tick: Tick, instrument: Instrument) -> Session | None:
        if instrument.session_start <= tick.ts < instrument.session_end < OPEN_END:
            return None if tick.session is None else _spoken(tick, instrument)
        found = self._locate(tick)
        if found is None:
            return self._gap.opened_by(tick, instrument)
        if found.start <= instrument.session_since < found.end:  # the same one, entered by the gap rule or by name
            return None if tick.session is None else _spoken(tick, instrument)
        if tick.ts < instrument.last_ts:
            raise _late(tick, instrument)
        return found._replace(label=tick.session) if tick.session else found

    def expected_from(self, now: int) -> int:
        index = bisect_right(self._opens, now) - 1
        if self.kind == "daily" or index < 0 or now >= self.end:
            return self._gap.expected_from(now)
        pause = bisect_right(self._pauses, (now, OPEN_END)) - 1
        closed = now >= self._closes[index] or (pause >= 0 and now < self._pauses[pause][1])
        return OPEN_END if closed else now - FORGOTTEN_NS

    @property
    def end(self) -> int:
        """Where the table ends, ns."""
        return self._closes[-1]

    def digest(self) -> str:
        """Hash the boundaries."""
        return hashlib.sha256(repr((self._opens, self._closes, self._labels)).encode()).hexdigest()

    def _locate(self, tick: Tick) -> Session | None:
        """Find the session around a time; None beyond the span."""
        index = bisect_right(self._opens, tick.ts) - 1
        last = len(self._opens) - 1
        if index < 0 or (index == last and tick.ts >= self._closes[last]):
            self.beyond_count += 1
            return None
        close = self._closes[index]
        if tick.ts < close:
            end = close if self._outside != "attach" or index == last else self._opens[index + 1]
            return Session(self._labels[index], self._opens[index], end, self._opens[index])
        following = self._opens[index + 1]
        if self._outside == "attach":
            return Session(self._labels[index], self._opens[index], following, self._opens[index])
        if self._outside == "own":
            return Session(f"after {self._labels[index]}", close, following, close)
        raise Rejected(Reason.OUTSIDE_SESSION, f"closed from {_second(close)} to {_second(following)}")


class Rules:
    """The rules in their order; the first whose glob matches an instrument is its rule."""

    def __init__(self, rules: Sequence[tuple[str, Rule]], default: Rule) -> None:
        self._rules = tuple(rules)
        self._default = default
        self._tables = [rule for _, rule in self._rules if isinstance(rule, Table)]
        self._remembered: dict[str, Rule] = {}

    def rule_for(self, name: str) -> Rule:
        """Return the rule of an instrument."""
        if not self._rules:
            return self._default
        rule = self._remembered.get(name)
        if rule is None:
            rule = self.find(name)
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[name] = rule
        return rule

    def find(self, name: str) -> Rule:
        """Return the rule of an instrument as `rule_for` does, and remember nothing: any thread may ask."""
        return next((rule for glob, rule in self._rules if fnmatchcase(name, glob)), self._default)

    @property
    def tables(self) -> Sequence[Table]:
        """The rules that have a table of boundaries."""
        return self._tables

    @property
    def beyond_count(self) -> int:
        """How many ticks were beyond the span of their table and fell back to the gap rule."""
        return sum(table.beyond_count for table in self._tables)

    def digest(self) -> list[str]:
        """Hash the boundary table of each rule that has one."""
        return [table.digest() for table in self._tables]


def _spoken(tick: Tick, instrument: Instrument) -> Session | None:
    """Return the session that the tick names, if that is a new one."""
    if tick.session is None or tick.session == instrument.spoken_session:
        return None
    if tick.ts < instrument.last_ts:
        raise _late(tick, instrument)
    return Session(tick.session, instrument.last_ts, OPEN_END, tick.ts)


def _late(tick: Tick, instrument: Instrument) -> Rejected:
    return Rejected(Reason.LATE, f"ts {tick.ts} is of a session before {instrument.session!r}")


def _second(ts: int) -> str:
    return datetime.fromtimestamp(ts // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
