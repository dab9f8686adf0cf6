"""What opens a session, under each rule: told by label and reset of the forecasts, or by the reason of the refusal."""

import tracemalloc

import pytest

from daemon.core.intake import OrderLimits
from daemon.core.sessions import REMEMBERED_MAX, Boundaries, Field, Gap, Never, Rule, Rules, Table
from tests.ticks import SECOND, at, headers, outcomes, payloads, pipeline, raw, records

#: Open at 30-90, 130-190 and 230-290 s.
DAYS = Boundaries([at(30), at(130), at(230)], [at(90), at(190), at(290)], ["Mon", "Tue", "Wed"])
#: A rule without closing times: each day ends where the next begins.
ROUND_THE_CLOCK = Boundaries([at(0), at(100)], [at(100), at(200)], ["Mon", "Tue"])
START_LABEL = "2024-01-02T15:00:00Z"


def story(rule: Rule, *ticks: float | tuple[float, str | None], lateness: float = 0) -> list[tuple | str]:
    """Tell (session, reset) or the reason for each tick, given as its time, or time and own session."""
    limits = OrderLimits(0, round(lateness * SECOND), 0)
    made = pipeline(rules=Rules([("A", rule)], Never()), limits=limits)
    pairs = [each if isinstance(each, tuple) else (each, None) for each in ticks]
    batch = made.advance(records([raw(seconds, session=session) for seconds, session in pairs]))
    told = {int(each["id"].rpartition("-")[2]): (each["session"], each["reset"]) for each in payloads(batch)}
    told |= {int(headers(each)["offset"]): headers(each)["reason"] for each in batch.dead_letters}
    assert len(outcomes([batch])) == len(told) == len(ticks)
    return [told[offset] for offset in sorted(told)]


def table(outside: str = "own", gap: float = 20) -> Table:
    return Table(DAYS, outside, Gap(gap))


def test_never_has_one_session_without_a_name():
    assert story(Never(), 0, 10**6) == [(None, "first"), (None, None)]


def test_field_follows_the_ticks_own_session_and_keeps_it_where_one_has_none():
    assert story(Field(), (0, "A"), 10**6, (10**6, "A"), (10**6, "B")) == [
        ("A", "first"),
        ("A", None),
        ("A", None),
        ("B", "session"),
    ]


def test_gap_opens_a_session_after_more_than_its_idle_time_and_names_it_by_its_first_second():
    assert story(Gap(20), 0, 20, 40, 60.000000001) == [
        (START_LABEL, "first"),
        (START_LABEL, None),
        (START_LABEL, None),
        ("2024-01-02T15:01:00Z", "session"),
    ]


def test_a_calendar_opens_and_closes_by_its_table():
    assert story(table(), 30, 89.999999999, 90, 129.999999999, 130, 150) == [
        ("Mon", "first"),
        ("Mon", None),
        ("after Mon", "session"),
        ("after Mon", None),
        ("Tue", "session"),
        ("Tue", None),
    ]


def test_long_silence_inside_a_session_of_a_calendar_opens_nothing():
    assert story(table(gap=1), 30, 89) == [("Mon", "first"), ("Mon", None)]


def test_outside_hours_attached_ticks_go_with_the_session_before():
    assert story(table("attach"), 30, 95, 129, 130, 210) == [
        ("Mon", "first"),
        ("Mon", None),
        ("Mon", None),
        ("Tue", "session"),
        ("Tue", None),
    ]


def test_outside_hours_refused_ticks_leave_the_session_as_it_is():
    assert story(table("dead_letter"), 95, 140, 195, 189, 230) == [
        "outside_session",
        ("Tue", "first"),
        "outside_session",
        ("Tue", None),
        ("Wed", "session"),
    ]


def test_a_calendar_skips_sessions_nobody_traded_in():
    assert story(table(), 30, 250) == [("Mon", "first"), ("Wed", "session")]


def test_a_daily_session_ends_where_the_next_begins():
    rule = Table(ROUND_THE_CLOCK, "attach", Gap(20))
    assert story(rule, 0, 99.999999999, 100) == [("Mon", "first"), ("Mon", None), ("Tue", "session")]


@pytest.mark.parametrize("outside", ["own", "attach", "dead_letter"])
def test_past_its_end_a_calendar_falls_back_to_the_gap_and_counts(outside):
    rule = table(outside)
    assert story(rule, 285, 295, 310, 331) == [
        ("Wed", "first"),
        ("Wed", None),
        ("Wed", None),
        ("2024-01-02T15:05:31Z", "session"),
    ]
    assert rule.beyond_count == 3
    assert Rules([("*", rule)], Never()).beyond_count == 3


def test_before_its_beginning_a_calendar_falls_back_to_the_gap_too():
    assert story(table(), 0, 15, 29, 30) == [
        (START_LABEL, "first"),
        (START_LABEL, None),
        (START_LABEL, None),
        ("Mon", "session"),
    ]


RULES = [Never(), Field(), Gap(20), table("own"), table("attach"), table("dead_letter")]
NAMES = ["never", "field", "gap", "own", "attach", "dead_letter"]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_tick_that_names_a_new_session_opens_it_under_every_rule(rule):
    told = story(rule, 40, (41, "X"), (42, "X"), 43, (44, "Y"))
    assert [reset for _, reset in told] == ["first", "session", None, None, "session"]
    assert [session for session, _ in told[1:]] == ["X", "X", "X", "Y"]


@pytest.mark.parametrize("rule", RULES[3:], ids=NAMES[3:])
def test_the_calendar_goes_on_under_a_named_session(rule):
    """A name holds for its day; the next day opens all the same, under the same name where the ticks still say it."""
    assert story(rule, (40, "X"), (80, "X"), (140, "X"), 240) == [
        ("X", "first"),
        ("X", None),
        ("X", "session"),
        ("Wed", "session"),
    ]


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_a_tick_of_an_earlier_session_is_late_whatever_is_tolerated(rule):
    told = story(rule, (45, "X"), (70, "Y"), (60, "X"), (44, None), (69, None), lateness=10**6)
    assert told[2:4] == ["late", "late"]
    assert told[4] == ("Y", None)  # older than the opening, but newer than anything of X: nothing says it is of X


@pytest.mark.parametrize("outside", ["own", "attach", "dead_letter"])
def test_a_tick_from_before_the_opening_is_late_whatever_is_tolerated(outside):
    told = story(table(outside), 80, 140, 89, 129, 130, lateness=10**6)
    assert told[:3] == [("Mon", "first"), ("Tue", "session"), "late"]
    assert told[3] in ("late", "outside_session")
    assert told[4] == ("Tue", None)  # late, but of this session


def test_a_late_tick_does_not_open_the_last_day_of_a_calendar_again_from_beyond_it():
    assert story(table(), 295, 250, lateness=10**6) == [("2024-01-02T15:04:55Z", "first"), "late"]


def test_a_late_tick_of_this_session_stays_in_it():
    assert story(Gap(20), 0, 15, 10, lateness=5) == [(START_LABEL, "first"), (START_LABEL, None), (START_LABEL, None)]


def test_the_first_glob_that_fits_names_the_rule():
    first, second, default = Gap(1), Gap(2), Never()
    rules = Rules([("*.SPOT", first), ("BTC*", second)], default)
    assert rules.rule_for("BTC.SPOT") is first
    assert rules.rule_for("BTC.PERP") is second
    assert rules.rule_for("btc.PERP") is default
    assert rules.rule_for("BTC.SPOT") is first


@pytest.mark.parametrize("globs", [(), ("*.SPOT", "BTC*")])
def test_names_that_come_and_go_do_not_add_up(globs: tuple[str, ...]) -> None:
    first, default = Gap(1), Never()
    rules = Rules([(glob, first) for glob in globs], default)
    tracemalloc.start()
    try:
        for n in range(3 * REMEMBERED_MAX):
            assert rules.rule_for(f"{n}.SPOT") is (first if globs else default)
            assert rules.rule_for(f"{n}.PERP") is default
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 250 * REMEMBERED_MAX


def test_the_digest_follows_every_boundary_and_label():
    def digest(opens: list[int], labels: list[str]) -> list[str]:
        return Rules([("*", Table(Boundaries(opens, [at(50)], labels), "own", Gap(1)))], Never()).digest()

    assert digest([at(0)], ["Mon"]) == digest([at(0)], ["Mon"])
    assert len({*digest([at(0)], ["Mon"]), *digest([at(1)], ["Mon"]), *digest([at(0)], ["Tue"])}) == 3
    assert Rules([("*", Gap(1))], Never()).digest() == []
