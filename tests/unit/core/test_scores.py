"""Scores in the pipeline: which forecasts are sampled, when their truth comes, and what it changes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from daemon.core.features import FeatureTable
from daemon.core.kept_scores import unpack
from daemon.core.pipeline import Batch, Pipeline
from daemon.core.scores import PENDING_MAX, STRIDE_MAX, stride
from daemon.core.snapshot import decode
from daemon.core.spec import Column, Output
from daemon.training.options import DEFAULT_COLUMNS
from schemas import ResetCause, Score
from tests.steps import RandomStep
from tests.ticks import model, payloads, pipeline, raw, records

HORIZONS = (1, 5, 10, 50)
KNOWN = [Output(h, scale=1e-4, residual_variance=float(h)) for h in HORIZONS]
PRICES = 100 * np.exp(np.cumsum(np.random.default_rng(3).standard_normal(2000)) * 1e-4)


def ticks(count: int, instrument: str = "A", start: int = 0, **facts: Any) -> list[dict[str, Any]]:
    return [raw(n, instrument, price=float(PRICES[n]), **facts) for n in range(start, start + count)]


def run(made: Pipeline, values: list[dict[str, Any]], cut: int = 100) -> list[Batch]:
    log = records(values)
    return [made.advance(log[at : at + cut]) for at in range(0, len(log), cut)]


def scores(batches: list[Batch]) -> list[Score]:
    return [Score.model_validate_json(message.value or b"") for batch in batches for message in batch.scores]


def test_a_score_says_what_was_published_and_what_came() -> None:
    batches = run(pipeline(model(outputs=KNOWN), scores=True), ticks(400))
    forecasts = {each["id"]: each for batch in batches for each in payloads(batch)}
    found = scores(batches)
    assert {score.horizon for score in found} == set(HORIZONS)
    for score in found:
        made, truth = forecasts[score.id], forecasts[score.outcome_id]
        column = made["horizons"].index(score.horizon)
        assert truth["step"] == made["step"] + score.horizon
        assert (score.price, score.outcome) == (made["price"], truth["price"])
        assert (score.ts, score.outcome_ts) == (made["ts"], truth["ts"])
        for name in ("mean", "lower", "upper"):
            assert getattr(score, name) == made[name][column]
        assert score.below == (score.outcome < score.lower)
        assert score.above == (score.outcome > score.upper)


def test_every_sampled_forecast_is_scored_once_at_its_horizon_however_the_ticks_are_cut() -> None:
    expected = [message.value for batch in run(pipeline(model(outputs=KNOWN), scores=True), ticks(600), 1)
                for message in batch.scores]  # fmt: skip
    found = [message.value for batch in run(pipeline(model(outputs=KNOWN), scores=True), ticks(600), 37)
             for message in batch.scores]  # fmt: skip
    assert found == expected
    ids = Counter((json.loads(value)["id"], json.loads(value)["horizon"]) for value in expected)
    assert set(ids.values()) == {1}
    # Every 8th tick.
    assert Counter(horizon for _, horizon in ids) == {1: 74, 5: 74, 10: 73, 50: 68}


def test_what_is_sampled_is_a_function_of_the_instruments_own_ticks() -> None:
    alone = scores(run(pipeline(model(outputs=KNOWN), scores=True), ticks(300)))
    made = pipeline(model(outputs=KNOWN), scores=True)
    crowd = [tick for n in range(300) for tick in (*ticks(1, "A", n), *ticks(1 + n % 3, f"B{n % 7}", n))]
    crowd.sort(key=lambda tick: tick["ts"])
    among = [score for score in scores(run(made, crowd)) if score.instrument == "A"]
    assert [(s.ts, s.horizon, s.lower, s.upper) for s in among] == [(s.ts, s.horizon, s.lower, s.upper) for s in alone]


def test_a_session_drops_what_is_pending_and_keeps_what_was_learned() -> None:
    made = pipeline(model(outputs=KNOWN), scores=True)
    run(made, ticks(504, session="a"))
    kept = made.held(0, "A").scores
    columns = range(len(KNOWN))
    assert all(kept.waiting(column) for column in columns)
    learned = [kept.track(column) for column in columns]
    (first,) = payloads(made.advance(records([raw(600, price=100.0, session="b")], start=504)))
    assert first["reset"] == ResetCause.SESSION
    assert not any(kept.waiting(column) for column in columns)
    assert [kept.track(column) for column in columns] == learned
    later = [made.advance(records([raw(601 + n, price=200.0, session="b")], start=505 + n)) for n in range(60)]
    assert {score.id for score in scores(later)} <= {f"ticks-0-{offset}" for offset in range(504, 565)}


def test_an_operators_reset_forgets_all_of_it() -> None:
    made = pipeline(model(outputs=KNOWN))
    run(made, ticks(500))
    made.reset(0, "A", ResetCause.OPERATOR)
    assert made.held(0, "A").scores is None


def test_a_model_without_figures_has_an_interval_once_enough_outcomes_came() -> None:
    found = [each for batch in run(pipeline(), ticks(400)) for each in payloads(batch)]
    known = [each["lower"] is not None for each in found]
    assert not any(known[:256])
    assert all(known[270:])
    assert [each["variance"] is not None for each in found] == known
    assert found[-1]["lower"] < found[-1]["mean"] < found[-1]["upper"]  # type: ignore[operator]


def test_the_interval_holds_the_price_where_it_mostly_stands_still_and_never_crosses() -> None:
    rng = np.random.default_rng(5)
    price, values = 100.0, []
    for n in range(3000):
        price += 0.01 * (rng.random() < 0.03) * rng.choice((-1, 1))
        values.append(raw(n, price=round(price, 2)))
    found = [each for batch in run(pipeline(model(outputs=KNOWN)), values) for each in payloads(batch)]
    for each in found:
        assert all(low <= mean <= up for low, mean, up in zip(each["lower"], each["mean"], each["upper"], strict=True))
    for each in found[1500:]:
        assert each["lower"][0] <= each["price"] <= each["upper"][0]


def test_either_side_misses_a_twentieth_of_all_ticks_not_only_of_the_sampled_ones() -> None:
    rng = np.random.default_rng(11)
    price = 100 * np.exp(np.cumsum(rng.standard_normal(24_000) * np.repeat([1e-4, 5e-4, 2e-4], 8000)))
    values = [raw(n, price=float(each)) for n, each in enumerate(price)]
    # Means next to nothing: an interval that holds its mean misses less on one side where the model is far off.
    outputs = [Output(h, scale=1e-7, residual_variance=1e6 * h) for h in HORIZONS]
    found = [each for batch in run(pipeline(model(outputs=outputs)), values, 2000) for each in payloads(batch)]
    for column, horizon in enumerate(HORIZONS):
        lower, upper = (np.array([each[name][column] for each in found[500:-horizon]]) for name in ("lower", "upper"))
        outcome = price[500 + horizon :]
        assert (outcome < lower).mean() == pytest.approx(0.05, abs=0.01)
        assert (outcome > upper).mean() == pytest.approx(0.05, abs=0.01)


def test_the_canary_is_not_scored() -> None:
    canary = [json.dumps(raw(n, price=100 + n % 3)).encode() for n in range(200)]
    batches = run(pipeline(model(outputs=KNOWN), scores=True, canary_ticks=canary), ticks(300), 1)
    assert {score.instrument for score in scores(batches)} == {"A"}
    assert {row.instrument.name for batch in batches for row, _, _ in batch.scored} == {"A"}


def test_a_replay_scores_silently() -> None:
    answered, replayed = pipeline(model(outputs=KNOWN)), pipeline(model(outputs=KNOWN))
    run(answered, ticks(500))
    replayed.replay(records(ticks(500)))
    assert replayed.held(0, "A").scores == answered.held(0, "A").scores


@pytest.mark.parametrize("horizon", [1, 4, 7, 50, 1000, 10**6])
def test_no_horizon_has_more_forecasts_waiting_than_there_is_room_for(horizon: int) -> None:
    made = pipeline(model(outputs=[Output(horizon, scale=1e-4, residual_variance=1.0)]))
    for at in range(0, 2000, 100):
        made.advance(records(ticks(100, start=at), start=at))
        assert len(made.held(0, "A").scores.waiting(0)) <= PENDING_MAX
    assert stride(horizon) <= STRIDE_MAX


def test_a_snapshot_of_the_default_model_stays_under_4_kib() -> None:
    """2 x LSTM(64) has 256 numbers of state; columns and horizons are the default ones."""
    columns = [Column(name, "running") for name in DEFAULT_COLUMNS]
    made = pipeline(model(columns, KNOWN), step=RandomStep(len(columns), len(KNOWN), units=128))
    sizes = defaultdict(int)
    for n, tick in enumerate(ticks(150, "X" * 64, session="2024-08-08")):
        made.advance(records([tick], start=n))
        (message,) = made.checkpoint(0, "0123456789ab", n + 1)
        kept = unpack(decode("X", message.value).instrument.packed_scores)
        sizes[sum(len(kept.waiting(column)) for column in range(len(KNOWN)))] = len(message.value)
    assert len(FeatureTable(columns, 1e-4).start) > 30
    assert max(sizes) == 1 + 1 + 2 + 7
    assert 2500 < max(sizes.values()) < 4096


def test_a_log_variance_column_makes_the_interval_wide_or_narrow_and_is_no_horizon() -> None:
    outputs = [Output(1, scale=1e-4), Output(1, scale=1e-4, of="log_variance")]
    batches = run(pipeline(model(outputs=outputs)), ticks(300))
    found = [each for batch in batches for each in payloads(batch)]
    assert {len(each["mean"]) for each in found} == {1}
    assert all(each["lower"][0] < each["upper"][0] for each in found)
    assert all(batch.outputs.shape == (100, 1) for batch in batches)
