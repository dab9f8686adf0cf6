"""What the page knows: joined, judged, counted, and bounded."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import pytest

from daemon.core.records import InputRecord
from daemon.web import board as limits
from daemon.web.board import Board
from schemas import TickDecoder
from tests.web.messages import T0_MS, forecast, tick


@pytest.fixture
def board() -> Board:
    return Board({"ticks": "ticks", "forecasts": "forecasts"}, TickDecoder())


def test_latency_is_from_the_ticks_timestamp_to_the_forecasts(board: Board) -> None:
    board.take({"ticks": [tick("A", 7)], "forecasts": [forecast("A", 7, 0, at_ms=T0_MS + 25)]})
    assert board.latency_ms(50, 99) == [25.0, 25.0]
    listing = board.listing("A")
    assert listing is not None
    assert listing.latency_ms == 25.0


def test_a_forecast_whose_tick_was_not_seen_has_no_latency(board: Board) -> None:
    board.take({"forecasts": [forecast("A", 7, 0)]})
    assert board.latency_ms(50) == [None]


def test_ticks_wait_until_a_later_one_of_their_partition_is_forecast(board: Board) -> None:
    board.take({"ticks": [tick("A", 0), tick("A", 1), tick("A", 2), tick("B", 0, partition=1)]})
    assert board.waiting_count == 4
    board.take({"forecasts": [forecast("A", 1, 0)]})  # the tick before it was a dead letter
    assert board.waiting_count == 2


def test_a_tick_waits_since_it_came_unless_others_have_been_forecast_since(board: Board) -> None:
    board.take({"ticks": [tick("A", 0, at_ms=T0_MS), tick("B", 0, at_ms=T0_MS + 10, partition=1)]})
    assert board.waiting_since_ms == T0_MS
    board.take({"forecasts": [forecast("B", 0, 0, at_ms=T0_MS + 20, partition=1)]})
    assert board.waiting_since_ms is None  # that of A may be a dead letter: others are answered
    board.take({"ticks": [tick("A", 1, at_ms=T0_MS + 30)]})
    assert board.waiting_since_ms == T0_MS + 30


def test_ticks_that_wait_are_bounded(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WAITING_MAX", 10)
    board.take({"ticks": [tick("A", offset) for offset in range(50)]})
    assert board.waiting_count == 10


def test_the_price_is_the_mid_of_the_latest_quote_else_the_trade(board: Board) -> None:
    def price_after(**fields: float) -> float | None:
        board.take({"ticks": [tick("A", 0, **fields)]})
        listing = board.listing("A")
        return listing and listing.price

    assert price_after(price=9.0) == 9.0
    assert price_after(bid=10.0, ask=12.0) == 11.0
    assert price_after(price=12.0) == 11.0


def test_skill_is_measured_against_no_change_once_the_horizon_has_come(board: Board) -> None:
    """One tick ahead, half of each move is foreseen, so skill is 1 - 0.5^2; five ahead, nothing."""
    prices = [100.0 + step % 2 for step in range(8)]
    board.take(
        {
            "forecasts": [
                forecast("A", step, step, price, mean=[(price + after) / 2, price])
                for step, (price, after) in enumerate(pairwise(prices))
            ]
        }
    )
    listing = board.listing("A")
    assert listing is not None
    assert listing.judge is not None
    one, five = listing.judge.errors
    assert (one.judged_count, five.judged_count) == (6, 2)
    assert one.skill == pytest.approx(0.75)
    assert five.skill == pytest.approx(0.0)


def test_nothing_is_judged_across_a_reset_nor_while_warming_up(board: Board) -> None:
    board.take({"forecasts": [forecast("A", 0, 0), forecast("A", 1, 0), forecast("A", 2, 1, warm=False)]})
    board.take({"forecasts": [forecast("A", 3, 2)]})
    listing = board.listing("A")
    assert listing is not None
    assert listing.judge is not None
    assert listing.judge.errors[0].judged_count == 1  # from 1 to 2: the one at 0 broke off, the one at 2 was cold


def test_variance_of_forecasts_is_zero_for_a_model_that_always_answers_the_same(board: Board) -> None:
    same = [forecast("A", step, step, 100.0 + step, mean=[1.01 * (100 + step), 1.0]) for step in range(5)]
    other = [forecast("B", step, step, 100.0, mean=[100.0 + step, 1.0]) for step in range(5)]
    board.take({"forecasts": same + other})
    variances = []
    for name in "AB":
        listing = board.listing(name)
        assert listing is not None
        assert listing.judge is not None
        variances.append(listing.judge.variance(0))
    assert variances[0] == pytest.approx(0.0, abs=1e-20)
    assert variances[1] == pytest.approx(2e-4)


def test_another_model_is_judged_anew(board: Board) -> None:
    board.take({"forecasts": [forecast("A", step, step) for step in range(4)]})
    board.take({"forecasts": [forecast("A", 4, 0, model="fedcba9876543210", horizons=[2], mean=[100.0])]})
    listing = board.listing("A")
    assert listing is not None
    assert listing.judge is not None
    assert listing.judge.horizons == (2,)
    assert listing.judge.errors[0].judged_count == 0


UNREADABLE: dict[str, Callable[[dict[str, object]], object]] = {
    "no object": lambda value: [1],
    "a field missing": lambda value: {name: each for name, each in value.items() if name != "price"},
    "fewer means than horizons": lambda value: value | {"mean": [1.0]},
    "fewer bounds than horizons": lambda value: value | {"lower": [1.0]},
    "an id without an offset": lambda value: value | {"id": "ticks"},
}


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_forecast_changes_nothing_but_a_count(
    board: Board, change: Callable[[dict[str, object]], object]
) -> None:
    good = forecast("A", 0, 0)
    assert good.value is not None
    raw = json.dumps(change(json.loads(good.value))).encode()
    values: list[bytes | None] = [raw, b"{", b"", None, good.value.replace(b"100.0", b"NaN"), b"\xff"]
    board.take({"forecasts": [InputRecord("forecasts", 0, 0, T0_MS, None, value) for value in values]})
    assert board.unreadable_count == len(values)
    assert board.names() == []


def test_a_tick_that_becomes_a_dead_letter_names_no_instrument(board: Board) -> None:
    board.take({"ticks": [tick("A", 0, bid=2.0, ask=1.0)]})
    assert board.names() == []


def test_a_tick_from_the_future_does_not_keep_later_prices_out(board: Board) -> None:
    future = InputRecord("ticks", 0, 0, T0_MS, b"A", b'{"instrument":"A","ts":4000000000000000000,"price":1}')
    board.take({"ticks": [future, tick("A", 1, price=5.0)]})
    listing = board.listing("A")
    assert listing is not None
    assert listing.price == 5.0


def test_instruments_are_bounded_and_the_least_recently_touched_gives_way(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INSTRUMENTS_MAX", 3)
    board.take({"ticks": [tick(name, 0) for name in ("C", "A", "B", "C", "D")]})
    assert board.names() == ["B", "C", "D"]


def test_history_is_bounded_over_all_instruments(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HISTORY_TOTAL", 100)
    monkeypatch.setattr(limits, "HISTORY_MIN", 10)
    board.take({"forecasts": [forecast("A", step, step) for step in range(200)]})
    listing = board.listing("A")
    assert listing is not None
    assert [each.number for each in listing.after(0)] == list(range(101, 201))
    assert [each.number for each in listing.after(198)] == [199, 200]
    board.take({"forecasts": [forecast(f"B{n}", n, 0) for n in range(20)]})
    board.take({"forecasts": [forecast("A", 200, 200)]})
    assert len(listing.after(0)) == 10


def test_search_puts_names_that_begin_so_first(board: Board) -> None:
    board.take({"ticks": [tick(name, 0) for name in ("XBTC", "BTCUSDT", "ETH", "btc-eur")]})
    assert board.search("btc", 10) == (["BTCUSDT", "btc-eur", "XBTC"], 3)
    assert board.search("btc", 1) == (["BTCUSDT"], 3)
    assert board.search("", 2) == (["BTCUSDT", "ETH"], 4)


def test_rates_count_by_kafkas_time_however_fast_a_backlog_is_read(board: Board) -> None:
    board.take({"ticks": [tick("A", n, at_ms=T0_MS + 100 * n) for n in range(101)]})
    assert board.rate("ticks") == 10.0
