"""What training makes of ticks, without TensorFlow: rows as in the daemon, splits that do not leak, scales, scores."""

from __future__ import annotations

import copy
import json

import numpy as np
import orjson
import pytest

from daemon.boundaries import resolve_rules
from daemon.core.features import FeatureTable
from daemon.core.instrument import Instrument
from daemon.core.intake import Intake
from daemon.core.pipeline import Pipeline, PipelineOptions
from daemon.core.spec import ModelSpec
from daemon.errors import SettingsError, TickFileError
from daemon.training import DEFAULT_COLUMNS, TrainingOptions
from daemon.training.collect import LIMITS, collect
from daemon.training.dataset import split_in_time
from daemon.training.options import read_options
from daemon.training.scales import (
    columns_of,
    in_returns,
    in_units,
    outputs_of,
    running_rows,
    running_volatility,
    volatility_of,
)
from daemon.training.scores import LEVELS, mean_skill, residual_figures, skill
from daemon.training.series import loss_weights, series_of, training_rows
from schemas import ResetCause, TickDecoder
from tests.steps import RandomStep
from tests.ticks import raw, record
from tests.training.market_ticks import market_ticks

HORIZONS = (1, 5, 20)
RULES = resolve_rules(())


def collected(ticks, columns=DEFAULT_COLUMNS):
    return collect(ticks, columns, resolve_rules(()))


def ready(splits, columns=DEFAULT_COLUMNS):
    """Return the series, the outputs and the volatility they start from."""
    prior = volatility_of(splits)
    volatilities = [running_volatility(split.track, prior) for split in splits]
    outputs = outputs_of(splits, volatilities, HORIZONS)
    return series_of(splits, columns_of(splits, columns), volatilities), outputs, prior


class RecordingStep(RandomStep):
    """Keeps the rows that reach the model."""

    def __init__(self, n_features: int, n_outputs: int) -> None:
        super().__init__(n_features, n_outputs)
        self.rows: list[np.ndarray] = []

    def scan(self, x, start, waves):
        self.rows += list(x.copy())
        return super().scan(x, start, waves)


def test_training_rows_have_the_bits_of_the_rows_in_the_daemon():
    ticks = market_ticks(1500)
    columns = (*DEFAULT_COLUMNS, "session_time", "change", "price", "ema:7:micro", "diff:wait")
    found = collected(ticks, columns)
    splits = split_in_time(found, 0.7, HORIZONS)
    _, outputs, prior = ready(splits, columns)
    spec = ModelSpec("m", columns_of(splits, columns), outputs, volatility_prior=prior)
    step = RecordingStep(len(columns), len(HORIZONS))
    pipeline = Pipeline(spec, step, RULES, PipelineOptions(LIMITS))
    pipeline.assign(0)
    intake = Intake(FeatureTable(spec.columns, prior), RULES, LIMITS)
    held = {}
    seen = {track.name: [] for track in found.tracks}
    volatilities = {track.name: [] for track in found.tracks}
    for offset, tick in enumerate(ticks):
        assert pipeline.advance([record(tick, offset)]).forecasts
        name = tick["instrument"]
        seen[name].append(step.rows[-1])
        instrument = held.setdefault(name, Instrument(name, -1, list(intake.features.start), ResetCause.FIRST))
        row = intake.accept(TickDecoder().decode(orjson.dumps(tick)), instrument, offset=offset, timestamp=-1)
        volatilities[name].append(row.volatility)
    for track in found.tracks:
        ours = running_rows(track, spec.columns)
        assert ours.dtype == np.float32
        assert ours.tobytes() == np.array(seen[track.name]).tobytes()
        assert running_volatility(track, prior).tobytes() == np.array(volatilities[track.name]).tobytes()


def test_ticks_the_daemon_would_refuse_are_left_out_and_counted():
    ticks = [raw(second) for second in range(200)]
    ticks[50] |= {"price": -1.0}
    ticks[60:60] = [raw(59.5, bid=2.0, ask=1.0), raw(3)]
    found = collected(ticks)
    assert found.refused == {"price_not_positive": 1, "crossed_quote": 1, "late": 1}
    assert found.tick_count == 199


def test_more_refused_than_accepted_ticks_are_an_error_that_says_why():
    ticks = [raw(second) for second in range(200)]
    with pytest.raises(TickFileError, match=r"200 of 200 ticks were refused, 200 as missing_field: .*fields.open"):
        collected(ticks, ["field:open"])


def test_an_unknown_feature_is_named():
    with pytest.raises(SettingsError, match="unknown feature 'retrun'; known are return"):
        collected([], ["retrun"])


def test_parts_follow_each_other_in_time_for_all_instruments():
    splits = split_in_time(collected(market_ticks(6000)), 0.7, HORIZONS)
    for split in splits:
        assert (split.train.begin, split.train.end) == (0, split.validation.begin)
        assert (split.validation.end, split.test.end) == (split.test.begin, len(split.track.ts))
    for before, after in (("train", "validation"), ("validation", "test")):
        last = max(split.track.ts[getattr(split, before).end - 1] for split in splits)
        first = min(split.track.ts[getattr(split, after).begin] for split in splits)
        assert last < first
    sizes = [sum(len(getattr(split, part).target) for split in splits) for part in ("train", "validation", "test")]
    assert np.allclose(np.array(sizes) / 6000, [0.595, 0.105, 0.3], atol=0.001)


def test_targets_are_log_returns_within_the_part_and_the_session():
    splits = split_in_time(collected(market_ticks(6000)), 0.7, HORIZONS)
    for split in splits:
        session = np.cumsum(split.track.resets)
        for part in (split.train, split.validation, split.test):
            for row in range(part.begin, part.end):
                for column, horizon in enumerate(HORIZONS):
                    found, later = part.target[row - part.begin, column], row + horizon
                    if later < part.end and session[later] == session[row]:
                        assert found == np.log(split.track.price[later]) - np.log(split.track.price[row])
                    else:
                        assert np.isnan(found)


def test_nothing_after_the_split_reaches_columns_scales_or_training_rows():
    ticks = market_ticks(4000)
    poisoned = copy.deepcopy(ticks)
    for tick in poisoned[int(4000 * 0.85 * 0.7) :]:
        for key in ("price", "bid", "ask"):
            if key in tick:
                tick[key] *= 3.0
    results = []
    for each in (ticks, poisoned):
        splits = split_in_time(collected(each), 0.7, HORIZONS)
        series, outputs, prior = ready(splits)
        rows = training_rows(series, outputs)
        blobs = [(session.x.tobytes(), session.y.tobytes(), session.weight.tobytes()) for session in rows]
        results.append((columns_of(splits, DEFAULT_COLUMNS), outputs, prior, blobs))
    assert results[0] == results[1]


def test_training_rows_are_sessions_about_standardised_with_weightless_unknown_targets():
    splits = split_in_time(collected(market_ticks(6000)), 0.7, HORIZONS)
    series, outputs, _ = ready(splits)
    rows = training_rows(series, outputs)
    starts = sum(int(split.track.resets[: split.train.end].sum()) for split in splits)
    assert len(rows) == starts > 3
    x = np.concatenate([session.x for session in rows])
    assert np.abs(x.mean(axis=0)).max() < 0.2
    often = [column for column, name in enumerate(DEFAULT_COLUMNS) if not name.endswith("sweep")]
    assert np.allclose(x.std(axis=0)[often], 1, atol=0.2)
    for session in rows:
        for column, horizon in enumerate(HORIZONS):
            assert not session.weight[-horizon:, column].any()
            assert session.weight[:-horizon, column].all()
        assert not session.y[session.weight == 0].any()
    y = np.concatenate([session.y[session.weight[:, 2] > 0, 2] for session in rows])
    assert np.sqrt(np.mean(y**2)) == pytest.approx(1, abs=1e-3)


def test_units_and_returns_are_each_other_s_inverse():
    splits = split_in_time(collected(market_ticks(3000)), 0.7, HORIZONS)
    series, outputs, _ = ready(splits)
    assert all(output.volatile for output in outputs)
    one = series[0]
    part = one.split.test
    volatility = one.volatility[part.begin : part.end]
    y = in_units(part.target, outputs, volatility).astype(np.float32)
    assert np.allclose(in_returns(y, outputs, volatility), part.target, rtol=1e-5, atol=0, equal_nan=True)


def test_an_instrument_counts_by_the_share_of_its_variance_however_restless_it_is():
    ticks = market_ticks(6000)
    calm = [tick for tick in ticks if tick["instrument"] == "FLOW1"]
    start = next(tick["bid"] for tick in calm if "bid" in tick)
    wilder = lambda price: start * 50 + 30 * (price - start)  # noqa: E731
    restless = [
        tick | {"instrument": "WILD"} | {key: wilder(tick[key]) for key in ("price", "bid", "ask") if key in tick}
        for tick in calm
    ]
    both = sorted(calm + restless, key=lambda tick: tick["ts"])
    series, outputs, _ = ready(split_in_time(collected(both), 0.7, HORIZONS))
    shares = []
    for one, weight in zip(series, loss_weights(series), strict=True):
        rows = slice(0, one.split.train.end)
        y = np.nan_to_num(in_units(one.split.train.target, outputs, one.volatility[rows]))
        shares.append((weight * y**2).sum(axis=0))
    assert np.allclose(shares[0], shares[1], rtol=1e-3)


def test_a_constant_column_keeps_a_scale_of_one():
    ticks = [tick | {"fields": {"flat": 3.0}} for tick in market_ticks(2000)]
    splits = split_in_time(collected(ticks, ["return", "field:flat"]), 0.7, HORIZONS)
    column = columns_of(splits, ["return", "field:flat"])[1]
    assert (column.mean, column.std) == (3.0, 1.0)


@pytest.mark.parametrize(
    ("ticks", "horizons", "error", "words"),
    [
        ([raw(second) for second in range(20)], (1,), TickFileError, "20 usable ticks are too few"),
        ([raw(second) for second in range(300)], (1,), TickFileError, "the validation part has 32 ticks"),
        ([raw(second) for second in range(3000)], (1, 5), TickFileError, "no price moves in the train part"),
        (market_ticks(3000), (1, 2000), SettingsError, "horizon 2000 is longer than any session in the train part"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_in_one_line(ticks, horizons, error, words):
    with pytest.raises(error, match=words):
        split_in_time(collected(ticks), 0.7, horizons)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"horizons": ()}, "horizons"),
        ({"horizons": (5, 1)}, "horizons"),
        ({"horizons": (0, 1)}, "horizons"),
        ({"split": 1.0}, "split = 1.0: give a share from 0.2 to 0.95"),
        ({"units": 0}, "units = 0: give a whole number"),
        ({"epochs": 0}, "epochs = 0"),
        ({"minutes": 0.0}, "minutes"),
        ({"cell": "rnn"}, "cell = rnn: give one of lstm, gru"),
        ({"loss": "mse"}, "loss = mse: give one of huber, gaussian, quantiles"),
        ({"dropout": 1.0}, "dropout = 1.0: give a share"),
        ({"columns": ()}, "columns"),
    ],
)
def test_options_that_make_no_sense_name_the_value_allowed(option, words):
    with pytest.raises(SettingsError, match=words):
        TrainingOptions(**option)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("unit = 8", "unknown key unit; known are horizons"),
        ('units = "8"', "units = '8': give something like 64"),
        ("units = true", "units = True: give something like 64"),
        ("horizons = [1, 2.5]", r"horizons = \[1, 2.5\]: give something like \[1, 5, 10, 50\]"),
        ("units =", "cannot be read"),
    ],
)
def test_a_file_of_options_is_refused_by_the_key(tmp_path, text, words):
    file = tmp_path / "options.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        read_options(file)


def test_ticks_with_gaps_and_a_lone_tick_of_an_instrument_are_no_obstacle():
    ticks = [tick for number, tick in enumerate(market_ticks(6000)) if number % 7]
    ticks.insert(100, raw(0, instrument="LONE") | {"ts": ticks[100]["ts"]})
    series, outputs, _ = ready(split_in_time(collected(ticks), 0.7, HORIZONS))
    assert "LONE" in [one.split.track.name for one in series]
    rows = training_rows(series, outputs)
    assert all(np.isfinite(session.y).all() and np.isfinite(session.weight).all() for session in rows)


def test_one_tick_per_instrument_is_refused():
    ticks = [raw(second, instrument=f"I{second}") for second in range(2000)]
    with pytest.raises(SettingsError, match="horizon 1 is longer than any session in the train part"):
        split_in_time(collected(ticks), 0.7, (1,))


def test_what_becomes_of_later_ticks_moves_no_cut():
    ticks = market_ticks(4000)
    refused = [tick | {"price": -1.0, "bid": -1.0} if number > 3000 else tick for number, tick in enumerate(ticks)]
    ends = [
        [split.validation.end for split in split_in_time(collected(each), 0.7, HORIZONS)] for each in (ticks, refused)
    ]
    assert ends[0] == ends[1]


def test_skill_is_one_for_truth_zero_for_no_change_and_unknown_where_nothing_moves():
    target = np.array([[1.0, 0.0], [-2.0, 0.0], [np.nan, np.nan]])
    assert skill(target, np.nan_to_num(target)) == [1.0, None]
    assert skill(target, np.zeros_like(target)) == [0.0, None]
    assert skill(target, -np.nan_to_num(target))[0] == -3.0
    assert mean_skill([(0.1, None), (0.3, None), (None, None)], 2) == (pytest.approx(0.2), None)


def test_residual_figures_are_mean_square_and_quantiles_of_known_errors():
    errors = np.append(np.random.default_rng(0).normal(0.5, 2.0, 100_000), np.nan)
    variance, quantiles = residual_figures(errors)
    assert variance == pytest.approx(4.25, rel=0.02)
    assert [level for level, _ in quantiles] == list(LEVELS)
    assert dict(quantiles)[0.975] == pytest.approx(0.5 + 1.96 * 2, abs=0.05)
    assert json.loads(json.dumps(quantiles))
