"""Every feature against numbers worked out by hand; transforms, scales, and what does not poison them."""

from math import exp, inf, log, log1p, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tests.hypothesis_profile  # noqa: F401
from daemon.core.features import (
    CLIP,
    RUNNING_WEIGHT,
    TRANSFORMS,
    VOLATILITY_WEIGHT,
    FeatureTable,
    frozen_scales,
    parse_feature,
)
from daemon.core.instrument import FIELDS
from daemon.core.intake import Intake, OrderLimits
from daemon.core.sessions import Field, Never, Rules
from daemon.core.spec import Column, Missing
from schemas import Rejected, Tick
from tests.ticks import newcomer, tick

PRIOR = 1e-4


class Watch:
    """One instrument under some columns; says the row of each tick."""

    def __init__(self, *columns: Column, missing: Missing = "dead_letter") -> None:
        self._table = FeatureTable(columns, PRIOR, missing)
        self._scales = frozen_scales(columns)
        self._intake = Intake(self._table, Rules((), Never()), OrderLimits(0, 2**62, 0), prices_may_be_negative=True)
        self.instrument = newcomer(self._table.start)

    def row(self, each: Tick) -> list[float]:
        """Accept a tick and return what the model would see, before it is rounded to float32."""
        mean, std = self._scales
        values = self._intake.accept(each, self.instrument, offset=0, timestamp=-1).features
        return ((np.array(values) - mean) / std).tolist()

    @property
    def cells(self) -> list[float]:
        return self.instrument.cells


def values(feature: str, *ticks: Tick, missing: Missing = "dead_letter") -> list[float]:
    """Return a feature's value at each tick, unscaled."""
    watch = Watch(Column(feature), missing=missing)
    return [watch.row(each)[0] for each in ticks]


QUOTE = {"bid": 99.0, "ask": 101.0, "bid_size": 3.0, "ask_size": 1.0}


@pytest.mark.parametrize(
    ("feature", "expected"),
    [
        # a trade at 50, a quote 99/101 with sizes 3/1, a sell of 7 at 98 half a second later, a quote 109/111
        ("price", [50, 100, 100, 110]),
        ("return", [0, log(2), 0, log(1.1)]),
        ("change", [0, 50, 0, 10]),
        ("spread", [0, 0.02, 0.02, 2 / 110]),
        ("imbalance", [0, 0.5, 0.5, 0]),
        ("micro", [0, 0.005, 0.005, 0]),
        ("signed_size", [0, 0, -log1p(7), 0]),
        ("trade", [1, 0, 1, 0]),
        ("wait", [0, log1p(1000), log1p(500), 0]),
        ("session_time", [0, log1p(1), log1p(1.5), log1p(1.5)]),
        ("diff:price", [0, 50, 0, 10]),
        ("return:price", [0, log(2), 0, log(1.1)]),
        ("log:price", [log(50), log(100), log(100), log(110)]),
        ("ema:3:change", [0, 25, 12.5, 11.25]),
        ("ema:1:change", [0, 50, 0, 10]),
        ("diff:ema:3:change", [0, 25, -12.5, -1.25]),
    ],
)
def test_by_hand(feature, expected):
    found = values(
        feature,
        tick(0, price=50),
        tick(1, **QUOTE),
        tick(1.5, price=98, size=7, aggressor="sell"),
        tick(1.5, bid=109, ask=111),
    )
    assert found == pytest.approx(expected, rel=1e-14)


def test_the_size_of_a_trade_counts_one_where_unknown_and_its_side_gives_the_sign():
    ticks = [tick(aggressor="buy"), tick(aggressor="buy", size=0), tick(size=5), tick(aggressor="sell", size=1)]
    assert values("signed_size", *ticks) == [log1p(1), 0, 0, -log1p(1)]


def test_a_tick_that_is_both_refers_to_its_quote():
    assert values("price", tick(price=105, **QUOTE)) == [100]


def test_a_late_tick_has_not_waited():
    assert values("wait", tick(5), tick(3)) == [0, 0]
    assert values("session_time", tick(5), tick(3)) == [0, 0]


@pytest.mark.parametrize("feature", ["return", "change", "wait", "session_time", "diff:price", "return:price"])
def test_the_first_tick_of_a_session_has_no_difference_to_the_one_before(feature):
    assert values(feature, tick(0, price=50), tick(9, price=99, session="B")) == [0, 0]


def test_an_average_goes_on_across_a_session():
    assert values("ema:3:price", tick(0, price=8), tick(9, price=4, session="B")) == [4, 4]


def test_fields_come_from_the_producer():
    ticks = [tick(fields={"oi": 2.0}), tick(fields={"oi": 6.0, "x": 1})]
    assert values("field:oi", *ticks) == [2, 6]
    assert values("return:field:oi", *ticks) == pytest.approx([0, log(3)])


@pytest.mark.parametrize(
    ("feature", "bad", "reason"),
    [
        ("field:oi", tick(1), "missing_field"),
        ("ema:3:diff:field:oi", tick(1, fields={"other": 1}), "missing_field"),
        ("log:field:oi", tick(1, fields={"oi": 0}), "invalid_value"),
        ("return:field:oi", tick(1, fields={"oi": -1}), "invalid_value"),
        ("ema:9:change", tick(1, price=-1.7e308, fields={"oi": 1}), "invalid_value"),
    ],
)
def test_a_tick_that_cannot_give_a_feature_is_refused_and_leaves_every_cell(feature, bad, reason):
    watch = Watch(Column("diff:price"), Column(feature), Column("spread", "running"))
    watch.row(tick(0, price=1.7e308, fields={"oi": 1}))
    before = {name: getattr(watch.instrument, name) for name in FIELDS}
    cells = list(watch.cells)
    with pytest.raises(Rejected) as caught:
        watch.row(bad)
    assert caught.value.reason == reason
    assert watch.cells == cells
    assert {name: getattr(watch.instrument, name) for name in FIELDS} == before


@pytest.mark.parametrize(
    "name",
    [
        "x",
        "field:",
        "field",
        "log:",
        "diff",
        "log:x",
        "ema:0:return",
        "ema:x:return",
        "ema:²:return",
        "ema:3:",
        "ema:3",
    ],
)
def test_an_unknown_feature_is_named(name):
    with pytest.raises(ValueError, match=r"feature '.*'"):
        parse_feature(name)
    assert set(TRANSFORMS) == {"log", "diff", "return", "ema:N"}


def test_a_frozen_scale_stays():
    watch = Watch(Column("price", mean=100, std=4))
    assert [watch.row(tick(price=price))[0] for price in (108, 1000, 108)] == [2, 225, 2]


def test_a_running_scale_standardises_by_what_was_before_and_then_moves():
    watch = Watch(Column("price", "running", mean=100, std=4))
    assert watch.row(tick(price=108)) == [2]  # by the prior alone
    mean = 100 + RUNNING_WEIGHT * 8
    variance = (1 - RUNNING_WEIGHT) * (16 + RUNNING_WEIGHT * 64)
    assert watch.row(tick(price=90)) == [pytest.approx((90 - mean) / sqrt(variance), rel=1e-14)]


def test_a_running_scale_finds_mean_and_deviation_of_an_instrument_never_seen():
    watch = Watch(Column("price", "running", mean=0, std=1e-6))
    rows = [watch.row(tick(price=5000 + 30 * (-1) ** n))[0] for n in range(80_000)]
    assert rows[0] == CLIP  # the prior is far off
    assert rows[-2:] == pytest.approx([1, -1], abs=0.05)


@pytest.mark.parametrize("outlier", [1e300, -1e300, 1.7e308])
def test_an_outlier_moves_a_running_scale_no_more_than_the_clip_does(outlier):
    watch = Watch(Column("price", "running", mean=100, std=1), Column("change", "running", std=1))
    for n in range(50):
        watch.row(tick(price=100 + n % 2))
    before = list(watch.cells)
    assert watch.row(tick(price=outlier)) == [CLIP if outlier > 0 else -CLIP] * 2
    assert watch.cells[1] == pytest.approx(
        before[1] + RUNNING_WEIGHT * CLIP * sqrt(before[2]) * (1 if outlier > 0 else -1)
    )
    assert watch.cells[2] < before[2] * (1 + RUNNING_WEIGHT * CLIP**2)
    assert abs(watch.row(tick(price=100))[0]) < CLIP


def test_an_outlier_moves_the_volatility_no_more_than_the_clip_does_and_a_flat_price_not_below_its_floor():
    watch = Watch(Column("return"))
    watch.row(tick(price=100))
    watch.row(tick(price=1e300))
    assert watch.cells[0] == pytest.approx(PRIOR**2 * (1 + VOLATILITY_WEIGHT * (CLIP**2 - 1)))
    for _ in range(100_000):
        watch.row(tick(price=1e300))
    assert sqrt(watch.cells[0]) == pytest.approx(PRIOR / 100)


def test_the_volatility_is_that_of_one_tick_returns():
    watch = Watch(Column("return"))
    for n in range(60_000):
        watch.row(tick(price=100 * exp(3e-4 * (n % 2))))
    assert sqrt(watch.cells[0]) == pytest.approx(3e-4, rel=0.01)


@given(st.lists(st.floats(0.01, 1e6), min_size=2, max_size=20), st.lists(st.floats(0.01, 1e6), max_size=5))
def test_rows_do_not_depend_on_what_comes_later(past, future):
    columns = [Column("return", "running"), Column("ema:4:price", "running"), Column("diff:log:price")]
    short, long = Watch(*columns), Watch(*columns)
    rows = [short.row(tick(price=price)) for price in past]
    assert [long.row(tick(price=price)) for price in past + future][: len(past)] == rows
    assert all(-inf < value < inf for row in rows for value in row)


WITHOUT = [tick(0, fields={"oi": 3.0}), tick(1), tick(2, fields={"oi": 5.0}), tick(3, fields={"other": 1.0})]


@pytest.mark.parametrize(
    ("feature", "missing", "expected"),
    [
        ("field:oi", "last", [3, 3, 5, 5]),
        ("diff:field:oi", "last", [0, 0, 2, 0]),
        ("log:field:oi", "last", [log(3), log(3), log(5), log(5)]),
        ("ema:3:field:oi", "last", [1.5, 2.25, 3.625, 4.3125]),
        ("field:oi", 7.0, [3, 7, 5, 7]),
        ("diff:field:oi", 7.0, [0, 4, -2, 2]),
        ("field:oi", 0.0, [3, 0, 5, 0]),
    ],
)
def test_a_missing_field_keeps_its_last_value_or_is_a_number(feature, missing, expected):
    assert values(feature, *WITHOUT, missing=missing) == pytest.approx(expected)


def test_the_first_tick_without_a_field_has_no_last_value():
    watch = Watch(Column("field:oi"), Column("field:other"), missing="last")
    before = list(watch.cells)
    with pytest.raises(Rejected) as caught:
        watch.row(tick(0, fields={"oi": 3.0}))
    assert (caught.value.reason, watch.cells) == ("missing_field", before)  # nothing of it is remembered
    with pytest.raises(Rejected, match="missing_field"):
        watch.row(tick(0, fields={"other": 1.0}))
    assert watch.row(tick(0, fields={"oi": 1.0, "other": 2.0})) == [1, 2]
    assert watch.row(tick(0)) == [1, 2]


def test_the_last_value_of_a_field_outlives_the_session():
    table = FeatureTable([Column("field:oi")], PRIOR, "last")
    intake = Intake(table, Rules((), Field()), OrderLimits(0, 2**62, 0))
    instrument = newcomer(table.start)
    for session, fields in (("one", {"oi": 3.0}), ("two", None)):
        row = intake.accept(tick(0, session=session, fields=fields), instrument, offset=0, timestamp=-1)
        assert row.reset is not None
        assert row.features.tolist() == [3.0]


@pytest.mark.parametrize(
    ("price", "swept"),
    [(100.0, 0.0), (101.0, 0.0), (99.0, 0.0), (102.0, 0.01), (96.0, -0.03), (None, 0.0)],
)
def test_a_sweep_is_how_far_a_trade_printed_beyond_the_quote(price, swept):
    watch = Watch(Column("sweep"))
    watch.row(tick(bid=99, ask=101))
    row = watch.row(tick(bid=99, ask=101) if price is None else tick(price=price))
    assert row == [pytest.approx(swept)]
