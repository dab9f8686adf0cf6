"""Every finding on tick files: one made case that triggers it, and one close to it that does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from daemon.boundaries import resolve_rules
from daemon.cli.doctor import app
from daemon.config import SessionSettings
from daemon.doctor.data import examine_data
from daemon.doctor.finding import Skipped
from daemon.errors import TickFileError
from tests.doctor.cases import (
    SECOND,
    START,
    Ticks,
    clear,
    data_report,
    found,
    mids,
    outcome,
    quotes,
    with_fields,
    written,
)

HEALTHY = quotes()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return data_report(tmp_path_factory.mktemp("healthy"), HEALTHY)


def changed(at: int, **values) -> Ticks:
    return [tick | values if number == at else tick for number, tick in enumerate(HEALTHY)]


def test_healthy_ticks_have_no_finding(healthy):
    assert healthy.findings == []


# --- rows


@pytest.mark.parametrize("bad", [{"bid": "nan"}, {"ask": "much"}, {"instrument": None}, {"ts": "yesterday"}])
def test_rows_that_cannot_be_read(tmp_path, healthy, bad):
    report = data_report(tmp_path, changed(6, **bad))
    finding = found(report, "unreadable_rows")
    assert finding.severity == "warning"
    assert finding.evidence[0].rows == "line 7"
    assert report.facts["ticks_accepted"] == len(HEALTHY) - 1
    clear(healthy, "unreadable_rows")


def test_many_unreadable_rows_are_a_problem(tmp_path):
    ticks = [tick | ({"bid": "nan"} if number % 50 == 0 else {}) for number, tick in enumerate(HEALTHY)]
    assert found(data_report(tmp_path, ticks), "unreadable_rows").severity == "problem"


@pytest.mark.parametrize(
    ("divisor", "unit", "factor"),
    [(10**9, "seconds", 10**9), (10**6, "milliseconds", 10**6), (1000, "microseconds", 1000)],
)
def test_times_in_another_unit_are_named_with_their_factor(tmp_path, healthy, divisor, unit, factor):
    report = data_report(tmp_path, [tick | {"ts": tick["ts"] // divisor} for tick in HEALTHY])
    finding = found(report, "time_unit")
    assert finding.measured == 1.0
    assert f"multiply ts by {factor} to make nanoseconds of {unit}" in finding.remedy
    assert isinstance(outcome(report, "random_walk"), Skipped)
    clear(healthy, "time_unit")


def test_ticks_that_the_daemon_refuses(tmp_path, healthy):
    finding = found(data_report(tmp_path, changed(9, bid=-1.0)), "refused_ticks")
    assert "price_not_positive" in finding.evidence[0].detail
    clear(healthy, "refused_ticks")


def test_crossed_quotes(tmp_path, healthy):
    finding = found(data_report(tmp_path, changed(20, ask=HEALTHY[20]["bid"] * 0.999)), "crossed_quotes")
    assert (finding.evidence[0].instrument, finding.evidence[0].rows) == ("A", "line 21")
    clear(healthy, "crossed_quotes")


def test_a_quote_whose_bid_is_its_ask_is_not_crossed(tmp_path):
    clear(data_report(tmp_path, changed(20, ask=HEALTHY[20]["bid"])), "crossed_quotes")


def test_time_that_goes_back(tmp_path, healthy):
    ticks = [*HEALTHY[:50], HEALTHY[51], HEALTHY[50], *HEALTHY[52:]]
    report = data_report(tmp_path, ticks)
    assert found(report, "unsorted_ticks").evidence[0].rows == "line 52"
    clear(report, "shuffled_time")
    clear(healthy, "unsorted_ticks")


def test_instruments_that_take_turns_are_sorted_each_by_itself(tmp_path):
    other = [tick | {"instrument": "B", "ts": tick["ts"] - 500 * SECOND} for tick in HEALTHY]
    report = data_report(tmp_path, [tick for pair in zip(HEALTHY, other, strict=True) for tick in pair])
    clear(report, "unsorted_ticks")


def test_shuffled_rows(tmp_path, healthy):
    order = np.random.default_rng(0).permutation(len(HEALTHY))
    finding = found(data_report(tmp_path, [HEALTHY[at] for at in order]), "shuffled_time")
    assert finding.measured == pytest.approx(0.5, abs=0.05)
    clear(healthy, "shuffled_time")


def test_ticks_that_stand_twice(tmp_path, healthy):
    ticks = [tick for number, tick in enumerate(HEALTHY) for _ in range(1 + (number % 100 == 0))]
    finding = found(data_report(tmp_path, ticks), "duplicate_ticks")
    assert finding.measured == pytest.approx(15 / 1515)
    clear(healthy, "duplicate_ticks")


def test_equal_quotes_at_other_times_are_no_duplicates(tmp_path):
    ticks = [tick | {"ts": START + number} for number, tick in enumerate(t for t in HEALTHY[:700] for _ in range(2))]
    clear(data_report(tmp_path, ticks), "duplicate_ticks")


def test_a_field_that_some_ticks_lack(tmp_path):
    whole = with_fields(HEALTHY, volume=np.ones(len(HEALTHY)))
    clear(data_report(tmp_path, whole), "partial_field")
    finding = found(data_report(tmp_path, [*HEALTHY[:3], *whole[3:]]), "partial_field")
    assert finding.evidence[0].column == "field:volume"
    assert finding.measured == pytest.approx(3 / 1500)


# --- prices


def test_one_tick_per_instrument(tmp_path, healthy):
    report = data_report(tmp_path, [tick | {"instrument": f"row {at}"} for at, tick in enumerate(HEALTHY[:200])])
    finding = found(report, "few_ticks")
    assert finding.severity == "problem"
    assert "must name what is priced, not the row" in finding.remedy
    clear(healthy, "few_ticks")


def test_an_instrument_with_few_ticks_among_others(tmp_path):
    finding = found(data_report(tmp_path, [*HEALTHY, *quotes(50, name="B")]), "few_ticks")
    assert (finding.severity, finding.evidence[0].instrument) == ("warning", "B")


def test_a_price_that_never_moves(tmp_path, healthy):
    still = [tick | {"bid": 99.0, "ask": 101.0} for tick in HEALTHY]
    assert found(data_report(tmp_path, still), "constant_price").evidence[0].detail == "stays at 100"
    clear(healthy, "constant_price")


def test_a_price_that_mostly_stands_still(tmp_path, healthy):
    ticks = [tick | {key: HEALTHY[at - at % 5][key] for key in ("bid", "ask")} for at, tick in enumerate(HEALTHY)]
    finding = found(data_report(tmp_path, ticks), "zero_moves")
    assert finding.severity == "note"
    assert finding.measured == pytest.approx(0.8, abs=0.01)
    clear(healthy, "zero_moves")


def moved(at: int, factor: float, until: int | None = None) -> Ticks:
    return [
        tick | {key: tick[key] * factor for key in ("bid", "ask")} if at <= number < (until or at + 1) else tick
        for number, tick in enumerate(HEALTHY)
    ]


def test_a_bad_print_that_comes_back(tmp_path, healthy):
    finding = found(data_report(tmp_path, moved(700, 1.01)), "price_spikes")
    assert finding.measured == 1
    assert finding.evidence[0].rows == "from 2024-01-02T15:11:40.000Z"
    clear(healthy, "price_spikes")


def test_a_move_that_stays_is_no_spike(tmp_path):
    clear(data_report(tmp_path, moved(700, 1.01, len(HEALTHY))), "price_spikes")


def test_a_moved_decimal_point(tmp_path, healthy):
    finding = found(data_report(tmp_path, moved(700, 10.0, len(HEALTHY))), "price_jumps")
    assert (finding.severity, finding.measured) == ("problem", pytest.approx(np.log(10), rel=1e-3))
    clear(healthy, "price_jumps")


def trades(prices: np.ndarray) -> Ticks:
    return [{"instrument": "A", "ts": START + at * SECOND, "price": float(p)} for at, p in enumerate(prices)]


def test_trades_that_bounce_between_bid_and_ask(tmp_path):
    mid = mids(HEALTHY)
    side = np.random.default_rng(3).choice([-1, 1], len(mid))
    finding = found(data_report(tmp_path, trades(mid * (1 + 5e-4 * side))), "bid_ask_bounce")
    assert finding.measured == pytest.approx(-0.5, abs=0.1)  # Roll 1984
    clear(data_report(tmp_path, trades(mid)), "bid_ask_bounce")


# --- time


def paused(seconds: int) -> Ticks:
    return [tick | {"ts": tick["ts"] + at // 300 * seconds * SECOND} for at, tick in enumerate(HEALTHY)]


def test_pauses_that_end_no_session_are_named_with_a_rule(tmp_path, healthy):
    finding = found(data_report(tmp_path, paused(1800)), "session_gap")
    assert finding.measured == 4
    settings = {"match": "*", "rule": "gap", "gap_seconds": float(finding.command.rsplit("= ")[-1])}
    assert finding.command == f'[[session]] match = "*", rule = "gap", gap_seconds = {settings["gap_seconds"]:g}'
    rules = resolve_rules([SessionSettings(**settings)])
    clear(examine_data([written(tmp_path, paused(1800))], rules, budget_seconds=0.0), "session_gap")
    clear(healthy, "session_gap")


def test_pauses_that_the_rule_knows_are_no_finding(tmp_path):
    clear(data_report(tmp_path, paused(7200)), "session_gap")


def test_bursts_are_no_sessions(tmp_path):
    waits = np.random.default_rng(0).pareto(1.5, 1500) * 1e9
    ticks = [tick | {"ts": START + int(at)} for tick, at in zip(HEALTHY, np.cumsum(waits), strict=True)]
    clear(data_report(tmp_path, ticks), "session_gap")


def test_a_horizon_longer_than_the_sessions(tmp_path):
    ticks = [tick | {"ts": tick["ts"] + at // 20 * 7200 * SECOND} for at, tick in enumerate(HEALTHY)]
    finding = found(data_report(tmp_path, ticks, horizons=(1, 50)), "horizon_beyond_session")
    assert (finding.severity, finding.measured) == ("problem", 0.0)
    assert finding.evidence[0].detail == "horizon 50 ticks, 75 sessions of 20 ticks"
    clear(data_report(tmp_path, ticks, horizons=(1, 2)), "horizon_beyond_session")


# --- columns


def test_a_field_that_holds_the_next_return(tmp_path):
    move = np.diff(np.log(mids(HEALTHY)), append=np.log(mids(HEALTHY)[-1]))
    noise = np.random.default_rng(5).standard_normal(len(move)) * move.std() / 2
    finding = found(data_report(tmp_path, with_fields(HEALTHY, signal=move + noise)), "leaking_column")
    assert finding.severity == "problem"
    assert {each.column for each in finding.evidence} == {"field:signal", "all columns together"}
    assert finding.measured == pytest.approx(0.8, abs=0.05)
    past = np.concatenate([[0.0], move[:-1]])
    clear(data_report(tmp_path, with_fields(HEALTHY, signal=past + noise)), "leaking_column")


def test_a_centred_average_leaks(tmp_path):
    mid = mids(HEALTHY)
    centred = np.convolve(np.pad(mid, 10, mode="edge"), np.ones(21) / 21, "valid")
    finding = found(data_report(tmp_path, with_fields(HEALTHY, mean=centred)), "leaking_column")
    assert finding.evidence[0].column == "all columns together"  # which take the past out of it
    trailing = np.convolve(np.pad(mid, (20, 0), mode="edge"), np.ones(21) / 21, "valid")
    clear(data_report(tmp_path, with_fields(HEALTHY, mean=trailing)), "leaking_column")


def test_a_field_that_is_a_later_price(tmp_path):
    mid = mids(HEALTHY)
    finding = found(data_report(tmp_path, with_fields(HEALTHY, close=np.append(mid[5:], mid[-5:]))), "future_price")
    assert finding.evidence[0].detail == "the price 5 ticks later"
    clear(data_report(tmp_path, with_fields(HEALTHY, close=np.append(mid[:5], mid[:-5]))), "future_price")


def test_a_column_that_moves_away(tmp_path):
    level = np.linspace(10.0, 20.0, len(HEALTHY)) ** 3
    assert clear(data_report(tmp_path, with_fields(HEALTHY, load=np.sin(level))), "column_drift")
    step = np.where(np.arange(len(HEALTHY)) < 1100, 0.0, 9.0) + returns(len(HEALTHY))
    finding = found(data_report(tmp_path, with_fields(HEALTHY, load=step)), "column_drift")
    assert finding.evidence[0].column == "field:load"


def returns(count: int) -> np.ndarray:
    return np.random.default_rng(8).standard_normal(count)


def test_a_random_walk_says_that_a_constant_is_right(tmp_path, healthy):
    finding = found(data_report(tmp_path, quotes(phi=0.0, seed=4)), "random_walk")
    assert finding.severity == "note"
    assert "a constant no defect" in finding.check.title
    assert clear(healthy, "random_walk").measured > 0


# --- the command


def run(*arguments: object):
    return CliRunner().invoke(app, ["data", *map(str, arguments), "--budget", "0"], catch_exceptions=False)


def test_the_command_ends_with_0_or_with_1_where_there_is_a_problem(tmp_path):
    good = run(written(tmp_path, HEALTHY))
    assert good.exit_code == 0
    assert "0 problems, 0 warnings, 0 notes" in good.stdout
    bad = run(written(tmp_path, HEALTHY[::-1]))
    assert bad.exit_code == 1
    assert "problem  unsorted_ticks: time goes back" in bad.stdout


def test_json_holds_what_the_text_says(tmp_path):
    result = run(written(tmp_path, moved(700, 1.01)), "--json")
    report = json.loads(result.stdout)
    assert report["counts"]["warnings"] == 1
    finding = report["findings"][0]
    assert (finding["code"], finding["measured"], finding["threshold"]) == ("price_spikes", 1.0, 0)
    assert finding["evidence"][0]["instrument"] == "A"
    assert finding["remedy"]
    codes = [each["code"] for part in ("findings", "clear", "not_made") for each in report[part]]
    assert len(codes) == len(set(codes))


def test_a_file_without_prices_is_one_error(tmp_path):
    file = tmp_path / "ticks.csv"
    file.write_text("ts,instrument,volume\n")
    with pytest.raises(TickFileError, match="column price, or bid and ask is missing"):
        examine_data([file], resolve_rules(()))


def test_prices_below_zero_are_a_problem_and_no_error(tmp_path):
    finding = found(data_report(tmp_path, trades(np.linspace(-9, -1, 200))), "refused_ticks")
    assert finding.severity == "problem"
    assert "200 of 200 ticks were refused, 200 as price_not_positive" in finding.evidence[0].detail


def test_an_empty_file_is_a_problem_and_nothing_passes_for_healthy(tmp_path: Path):
    file = tmp_path / "ticks.csv"
    file.write_text("ts,instrument,price\n")
    report = examine_data([file], resolve_rules(()))
    assert found(report, "few_ticks").evidence[0].detail == "no tick at all"
    assert isinstance(outcome(report, "constant_price"), Skipped)


def test_the_real_ticks_raise_no_false_alarm(real_ticks):
    """They were looked at by hand: they are clean, they can be forecast, and most of them do not move the price."""
    report = examine_data([real_ticks], resolve_rules(()), budget_seconds=0.0)
    assert [finding.check.code for finding in report.findings] == ["zero_moves"]
