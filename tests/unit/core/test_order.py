"""Which ticks are late or duplicates, and that a refused tick touches nothing."""

import pytest

from daemon.core.features import FeatureTable
from daemon.core.instrument import FIELDS, Instrument
from daemon.core.intake import Intake, OrderLimits
from daemon.core.sessions import Gap, Never, Rule, Rules
from schemas import Reason, Rejected, ResetCause, Tick
from tests.ticks import COLUMNS, SECOND, at, newcomer, tick

#: One-tick-old instruments are judged by these unless a test says otherwise.
TOLERANT = OrderLimits(future_skew_ns=0, max_lateness_ns=2 * SECOND, seq_restart_ns=300 * SECOND)
STRICT = OrderLimits(future_skew_ns=0, max_lateness_ns=0, seq_restart_ns=300 * SECOND)


class Past:
    """An instrument and its intake."""

    def __init__(self, *ticks: Tick, limits: OrderLimits = STRICT, rule: Rule | None = None) -> None:
        features = FeatureTable(COLUMNS, 1e-4)
        self.intake = Intake(features, Rules((), rule or Never()), limits)
        self.instrument = newcomer(features.start)
        for number, each in enumerate(ticks):
            self.take(each, offset=number)

    def take(self, each: Tick, offset: int = 0) -> ResetCause | None:
        return self.intake.accept(each, self.instrument, offset=offset, timestamp=-1).reset

    def refuse(self, each: Tick) -> Reason:
        before = facts(self.instrument)
        with pytest.raises(Rejected) as caught:
            self.take(each)
        assert facts(self.instrument) == before
        return caught.value.reason


def facts(instrument: Instrument) -> dict[str, object]:
    return {name: getattr(instrument, name) for name in FIELDS} | {"cells": list(instrument.cells)}


def test_equal_times_are_accepted_and_older_ones_are_late():
    past = Past(tick(10))
    past.take(tick(10))
    assert past.refuse(tick(9.999999999)) is Reason.LATE
    assert past.instrument.last_ts == at(10)


def test_lateness_is_tolerated_up_to_its_limit_and_time_does_not_run_back():
    past = Past(tick(10), limits=TOLERANT)
    past.take(tick(8))
    assert past.instrument.last_ts == at(10)
    assert past.instrument.step == 2
    assert past.refuse(tick(7.999999999)) is Reason.LATE


@pytest.mark.parametrize("rule", [Never(), Gap(5)], ids=["spoken", "gap"])
def test_a_tick_of_an_earlier_session_is_late_whatever_the_tolerance(rule):
    past = Past(tick(0), tick(20, session="B"), limits=OrderLimits(0, 10**6 * SECOND, 0), rule=rule)
    assert past.instrument.session == "B"
    start = past.instrument.session_start
    assert past.refuse(at_ns(start - 1)) is Reason.LATE
    assert past.take(at_ns(start)) is None


def at_ns(ts: int) -> Tick:
    return tick().model_copy(update={"ts": ts})


def test_seq_must_grow():
    past = Past(tick(0, seq=5))
    assert past.refuse(tick(1, seq=5)) is Reason.DUPLICATE
    assert past.refuse(tick(1, seq=4)) is Reason.DUPLICATE
    past.take(tick(1, seq=9))
    assert past.refuse(tick(2, seq=8)) is Reason.DUPLICATE


def test_ticks_without_seq_are_no_duplicates_and_do_not_forget_the_last_one():
    past = Past(tick(0, seq=5), tick(1))
    assert past.refuse(tick(2, seq=5)) is Reason.DUPLICATE


def test_seq_starts_anew_with_a_session():
    past = Past(tick(0, seq=5))
    assert past.take(tick(1, seq=1, session="B")) is ResetCause.SESSION
    assert past.refuse(tick(1, seq=1)) is Reason.DUPLICATE


def test_a_session_opened_without_seq_forgets_the_last_one():
    past = Past(tick(0, seq=5), tick(1, session="B"))
    assert past.take(tick(2, seq=1)) is None


def test_seq_starts_anew_after_enough_event_time():
    past = Past(tick(0, seq=5))
    assert past.refuse(tick(300, seq=1)) is Reason.DUPLICATE
    assert past.take(tick(300.000000001, seq=1)) is None
    assert past.instrument.seq == 1


def test_the_first_tick_resets_and_the_next_ones_carry_on():
    past = Past(rule=Gap(5))
    assert past.take(tick(0), offset=3) is ResetCause.FIRST
    assert (past.instrument.step, past.instrument.reset_offset) == (1, 3)
    assert past.take(tick(1), offset=4) is None
    assert past.take(tick(9), offset=5) is ResetCause.SESSION
    assert (past.instrument.step, past.instrument.reset_offset) == (1, 5)


@pytest.mark.parametrize(
    ("pending", "told"),
    [(ResetCause.COLD, ResetCause.COLD), (ResetCause.NON_FINITE, ResetCause.SESSION)],
)
def test_a_session_that_opens_while_a_reset_is_pending_says_the_cause_no_cut_can_change(pending, told):
    """A break is known at once or only after the batch, so the session has to win over it, always."""
    past = Past(tick(0), rule=Gap(5))
    past.instrument.pending_reset = pending
    assert past.take(tick(9)) is told
    assert past.instrument.pending_reset is None


def test_a_reset_keeps_scales_and_the_last_quote():
    past = Past(*(tick(n, bid=99 + n, ask=101 + n) for n in range(4)))
    before = facts(past.instrument)
    past.take(tick(4, session="B", price=200.0))
    after = facts(past.instrument)
    assert after["cells"][0] == before["cells"][0]  # the volatility: the jump between sessions is none
    assert (after["bid"], after["ask"], after["price"]) == (before["bid"], before["ask"], before["price"])
    assert (after["step"], after["session_since"]) == (1, at(4))
