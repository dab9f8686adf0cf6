"""The demo's ledger and result: what is missing or repeated is named."""

from __future__ import annotations

import json

from daemon.dev.demo.ledger import Ledger
from daemon.dev.demo.result import Result
from daemon.dev.demo.table import Facts


def test_balanced_books_have_no_problems() -> None:
    ledger = Ledger()
    ledger.tick("ticks-0-0", 1000)
    ledger.tick("ticks-0-1", 1001)
    assert ledger.forecast("ticks-0-0", 1007.5) == 7.5
    ledger.dead_letter("ticks-0-1")
    result = Result(tick_count=2, ledger=ledger, facts=Facts(None, 3, 0.0))
    assert result.problems() == []
    assert json.loads(result.line()) == {
        "ticks": 2,
        "forecasts": 1,
        "dead_letters": 1,
        "latency_ms": {"p50": 7.5, "p99": 7.5},
        "probe_runs": 3,
        "probe_variance": 0.0,
    }


def test_a_forecast_may_overtake_its_tick_in_the_reader() -> None:
    ledger = Ledger()
    assert ledger.forecast("ticks-0-0", 1007.5) is None
    ledger.tick("ticks-0-0", 1000)
    assert ledger.open_ticks() == []
    assert ledger.latency_ms(50) is None


def test_missing_and_repeated_outcomes_are_named() -> None:
    ledger = Ledger()
    for offset in range(6):
        ledger.tick(f"ticks-0-{offset}", 1000)
    ledger.forecast("ticks-0-0", 1001)
    ledger.forecast("ticks-0-0", 1002)
    found = "; ".join(Result(tick_count=6, ledger=ledger).problems())
    assert "6 ticks have 2 outcomes" in found
    assert "no outcome for ticks-0-1, ticks-0-2, ticks-0-3 and 2 more" in found
    assert "more than one outcome for ticks-0-0" in found


def test_one_missing_and_one_repeated_do_not_cancel_out() -> None:
    ledger = Ledger()
    ledger.tick("ticks-0-0", 1000)
    ledger.tick("ticks-0-1", 1000)
    ledger.forecast("ticks-0-0", 1001)
    ledger.forecast("ticks-0-0", 1001)
    assert len(Result(tick_count=2, ledger=ledger).problems()) == 2


def test_a_leaking_canary_a_dead_daemon_and_unread_topics_are_problems() -> None:
    assert Result(facts=Facts(None, 1, 1e-9)).problems() == ["the canary's answers differ, variance 1e-09"]
    assert Result(daemon_code=-9, daemon_words="bye").problems() == ["the daemon ended with code -9: bye"]
    assert Result(daemon_code=0, daemon_words="bye").problems() == ["the daemon ended with code 0: bye"]
    assert Result(is_whole=False).problems() == ["the topics could not be read to their ends"]
