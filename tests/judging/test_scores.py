"""The pieces of the backtest: tapes, the cut in time, the leak guard, and how figures are worded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from daemon.boundaries import resolve_rules
from daemon.judging.scores import cut_at, judge, leak, levels_of, trained_until
from daemon.judging.tape import Recorder, Tape
from daemon.judging.wording import duration, forecast_table, interval_table
from daemon.training.collect import collect
from daemon.training.dataset import split_in_time
from tests.training.market_ticks import market_ticks

SECOND = 10**9


def payload(second: int, price: float, mean: float, **changes: Any) -> dict[str, Any]:
    levels = {"mean": [mean], "lower": [price - 1], "upper": [price + 1]}
    return {"instrument": "A", "ts": second * SECOND, "price": price, "reset": None, **levels, **changes}


def tape(*payloads: dict[str, Any], differences: bool = True, quotes: bool = True) -> Tape:
    recorder = Recorder([1], differences=differences)
    for each in payloads:
        recorder.add(each, quote=quotes)
    (found,) = recorder.tapes()
    return found


def test_moves_are_counted_from_the_price_of_the_forecast():
    rows = tape(payload(0, 10.0, 11.0, reset="first"), payload(2, 12.0, 12.0), payload(5, 9.0, 9.0)).ahead(0, 0)
    assert rows.move.tolist() == [2.0, -3.0]
    assert rows.forecast.tolist() == [1.0, 0.0]
    assert rows.lower.tolist() == [-1.0, -1.0]
    assert rows.seconds.tolist() == [2.0, 3.0]


def test_log_returns_are_the_moves_of_all_other_models():
    rows = tape(payload(0, 10.0, 10.0), payload(1, 12.0, 12.0, lower=[0.0]), differences=False).ahead(0, 0)
    assert rows.move.tolist() == [np.log(1.2)]
    assert np.isfinite(rows.lower).all()


@pytest.mark.parametrize(
    ("reset", "count"), [(None, 2), ("non_finite", 2), ("session", 1), ("first", 1), ("cold", 1), ("operator", 1)]
)
def test_a_state_that_overflowed_stays_in_its_session_and_other_resets_open_one(reset: str | None, count: int):
    rows = tape(payload(0, 10.0, 10.0, reset="first"), payload(1, 11.0, 11.0, reset=reset), payload(2, 11.0, 11.0))
    assert len(rows.ahead(0, 0).move) == count


def test_intervals_that_were_not_known_do_not_count():
    unknown = tape(payload(0, 1.0, 1.0, lower=None, upper=None), payload(1, 3.0, 3.0), payload(2, 3.0, 3.0))
    (score,) = judge([unknown], 0, (0.05, 0.95)).scores
    assert (score.count, score.coverage) == (2, 1.0)


def test_the_cut_is_the_one_that_training_makes():
    ticks = market_ticks(3000)
    collected = collect(ticks, ["return"], resolve_rules(()))
    splits = split_in_time(collected, 0.7, (1,))
    recorder = Recorder([1])
    for track in collected.tracks:
        for ts, price in zip(track.ts.tolist(), track.price.tolist(), strict=True):
            recorder.add({**payload(0, price, price), "instrument": track.name, "ts": ts}, quote=True)
    tapes = recorder.tapes()
    cut = cut_at(tapes, 0.7)
    for split, judged in zip(splits, tapes, strict=True):
        assert split.track.name == judged.instrument
        assert int(np.searchsorted(judged.ts, cut)) == split.test.begin


@pytest.mark.parametrize(
    ("begin", "end", "leaks"), [(0, 10, True), (59, 100, True), (60, 99, True), (61, 99, False), (-9, -1, False)]
)
def test_a_leak_is_any_overlap_in_time(begin: int, end: int, leaks: bool):
    trained = {"from": "1970-01-01T00:00:00+00:00", "to": "1970-01-01T00:01:00+00:00"}
    assert (leak(trained, (begin * SECOND, end * SECOND)) is not None) is leaks


def test_a_bundle_that_does_not_say_when_it_was_trained_is_not_accused():
    for trained in (
        {},
        {"from": "now", "to": "then"},
        {"from": 1, "to": 2},
        {"from": "2024-01-01", "to": "2024-01-02"},
    ):
        assert leak(trained, (0, 10)) is None
    assert leak({"from": "1970-01-01T00:00:00Z", "to": "1970-01-01T00:01:00Z"}, None) is None
    assert trained_until({"to": "1970-01-01T01:00:00+01:00"}) == 0


def test_levels_lie_evenly_on_both_sides():
    assert levels_of(0.9) == (0.05, 0.95)
    assert levels_of(0.5) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 µs"), (2.2e-6, "2.2 µs"), (0.0041, "4.1 ms"), (0.16, "160 ms"), (12.34, "12.3 s"), (7200, "120 min")],
)
def test_times_are_worded_in_a_unit_that_reads_well(seconds: float, text: str):
    assert duration(seconds) == text
    assert duration(float("nan")) is None


def test_tables_have_a_cell_for_every_head():
    rows = tape(*(payload(n, 10.0 + n % 3, 10.0, reset="first" if n == 0 else None) for n in range(50)))
    scores = judge([rows], 0, (0.05, 0.95))
    for heads, cells in (forecast_table(scores), interval_table(scores, differences=True)):
        assert {len(row) for row in cells} == {len(heads)}
        assert [row[0] for row in cells[:2]] == ["A", "all rows"]
    assert forecast_table(scores)[1][-1][0] == "mean R²"
