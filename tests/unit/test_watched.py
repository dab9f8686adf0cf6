"""What a scrape computes: bounded series, counters that begin at 0, units, and a loop that goes on meanwhile."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from threading import Thread

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from daemon.boundaries import resolve_rules
from daemon.config import SessionSettings
from daemon.core.sessions import Gap, Never, Rules
from daemon.core.spec import Column
from daemon.drift import InputDrift
from daemon.expected import ExpectedInstruments
from daemon.metrics import PREFIX, Metrics, unit_of
from daemon.spread import FEWEST, INSTRUMENTS_MAX, OTHER, PredictionSpread
from daemon.watched import RATIO_BUCKETS, Watch
from schemas import Reason, ResetCause
from tests.ticks import model, pipeline, raw, records
from tests.unit.test_metrics import batch_of, samples


def spread_of(*scales: float) -> tuple[list[str], np.ndarray]:
    """Return outputs of instruments I0, I1, ... whose spread is the square of each scale."""
    rows = np.linspace(-np.sqrt(3), np.sqrt(3), 2 * FEWEST)[:, None]
    rows /= rows.std()
    return [f"I{n}" for n in range(len(scales)) for _ in rows], np.concatenate([rows * scale for scale in scales])


def scraped(watch: Watch, names: list[str], outputs: np.ndarray) -> dict[tuple[str, tuple[str, ...]], float]:
    registry = CollectorRegistry()
    Metrics(registry, watch).committed(batch_of(names, outputs), now=0)
    return samples(registry)


def test_instruments_beyond_the_bound_are_one_series_their_mean() -> None:
    watch = Watch(PredictionSpread(1), validation_variance=4.0, instruments_max=2)
    found = scraped(watch, *spread_of(1.0, 2.0, 3.0, 5.0))
    shown = {labels[0]: value for (name, labels), value in found.items() if name == "tickcast_prediction_variance"}
    assert shown == pytest.approx({"I0": 1.0, "I1": 4.0, OTHER: (9 + 25) / 2}, rel=1e-5)
    ratios = {labels[0]: v for (name, labels), v in found.items() if name == "tickcast_prediction_variance_ratio"}
    assert ratios == pytest.approx({name: value / 4 for name, value in shown.items()})


def test_one_without_series_of_its_own_is_seen_to_collapse_all_the_same() -> None:
    watch = Watch(PredictionSpread(1), validation_variance=1.0, instruments_max=1)
    found = scraped(watch, *spread_of(1.0, 1.0, 0.0, 0.05))
    assert found["tickcast_collapsed_instruments", ()] == 2


def test_spreads_are_distributed_over_the_buckets_of_their_ratio() -> None:
    found = scraped(Watch(PredictionSpread(1), validation_variance=1.0), *spread_of(0.0, 0.1, 1.1, 1.2, 20.0))
    counts = [found["tickcast_instrument_variance_ratio_bucket", (str(bound),)] for bound in (*RATIO_BUCKETS, "+Inf")]
    assert counts == [1, 2, 2, 2, 2, 4, 4, 4, 4, 5]


def test_without_a_figure_of_validation_nothing_is_said_to_have_collapsed() -> None:
    found = scraped(Watch(PredictionSpread(1)), *spread_of(0.0))
    assert found["tickcast_collapsed_instruments", ()] == 0
    assert found["tickcast_instrument_variance_ratio_bucket", ("+Inf",)] == 0
    assert not any(name == "tickcast_prediction_variance_ratio" for name, _ in found)


def watch_over(names: Sequence[str]) -> Watch:
    """Return all that is watched, over instruments with state."""
    spec = model(columns=(Column("return", "running"), Column("wait"), Column("wait", mean=1.0)))
    made = pipeline(spec)
    made.advance(records([raw(n, name) for n, name in enumerate(names)]))
    return Watch(
        PredictionSpread(1),
        validation_variance=1.0,
        drift=InputDrift(spec),
        expected=ExpectedInstruments(Rules([("I1*", Gap(5))], Never())),
        pipeline=made,
    )


def series_with(instruments: int) -> Counter[str]:
    registry = CollectorRegistry()
    names = [f"I{n}" for n in range(instruments)]
    metrics = Metrics(registry, watch_over(names))
    rng = np.random.default_rng(0)
    outputs = rng.standard_normal((FEWEST * instruments, 1))
    metrics.committed(batch_of(names * FEWEST, outputs, inputs=rng.standard_normal((len(outputs), 3))), now=0)
    return Counter(name for name, _ in samples(registry))


def test_five_thousand_instruments_have_no_more_series_than_a_hundred() -> None:
    few, many = series_with(100), series_with(5000)
    assert many == few
    assert sum(many.values()) < 400
    assert many["tickcast_input_shift_ratio"] == 3, "columns of the same feature are told apart"
    assert many["tickcast_prediction_variance"] == 51


def test_instruments_that_went_to_another_instance_are_not_judged_here() -> None:
    watch = watch_over(["I0", "I2"])
    found = scraped(watch, *spread_of(1.0, 0.0, 1.0))
    shown = {labels[0] for name, labels in found if name == "tickcast_prediction_variance"}
    assert shown == {"I0", "I2"}
    assert found["tickcast_collapsed_instruments", ()] == 0
    assert watch.pipeline is not None
    watch.pipeline.drop(0)
    assert not any(name == "tickcast_prediction_variance" for name, _ in scraped(watch, [], np.zeros((0, 1))))


def test_more_instruments_than_are_watched_are_one_ring() -> None:
    spread = PredictionSpread(1, 3)
    names, outputs = spread_of(1.0, 1.0, 1.0, 2.0, 2.0)
    spread.observe(names, outputs)
    assert spread.variances() == pytest.approx({"I0": 1.0, "I1": 1.0, "I2": 1.0, OTHER: 4.0}, rel=1e-5)
    assert INSTRUMENTS_MAX >= 1000


def test_what_has_not_happened_yet_counts_zero() -> None:
    found = scraped(Watch(PredictionSpread(1)), [], np.zeros((0, 1)))
    expected = {
        "tickcast_ticks_total": {"forecast", "dead_letter", "catch_up"},
        "tickcast_dead_letters_total": {reason.value for reason in Reason},
        "tickcast_session_resets_total": {cause.value for cause in ResetCause},
        "tickcast_transactions_total": {"committed", "failed"},
        "tickcast_rebalances_total": {"assigned", "revoked", "lost"},
    }
    for name, values in expected.items():
        counted = {labels[0]: value for (of, labels), value in found.items() if of == name}
        assert counted == dict.fromkeys(values, 0)


def test_counters_bring_no_second_series_that_says_when_they_began() -> None:
    registry = CollectorRegistry()
    Metrics(registry, Watch(PredictionSpread(1)))
    assert b"_created" not in generate_latest(registry)


def test_every_metric_has_help_and_a_unit() -> None:
    registry = CollectorRegistry()
    Metrics(registry, watch_over(["A"]))
    families = list(registry.collect())
    assert len(families) > 30
    for family in families:
        assert family.name.startswith(PREFIX)
        assert family.documentation.endswith(".")
        assert unit_of(family.name)


def test_a_metric_whose_name_says_no_unit_is_refused() -> None:
    assert unit_of("tickcast_ticks_total") == "ticks"
    assert unit_of("tickcast_negative_latency_total") == "ticks"
    with pytest.raises(KeyError):
        unit_of("tickcast_speed")


def test_the_ends_of_calendars_are_told_once_each() -> None:
    registry = CollectorRegistry()
    rule = {"rule": "daily", "time": "17:00", "zone": "America/New_York"}
    rules = resolve_rules(
        [SessionSettings(match=match, **rule) for match in ("A*", "B*")] + [SessionSettings(rule="gap")]
    )
    Metrics(registry, Watch(PredictionSpread(1))).calendars(rules.tables)
    found = {key: value for key, value in samples(registry).items() if "calendar_end" in key[0]}
    end = datetime(2040, 12, 31, 22, tzinfo=UTC).timestamp()
    assert found == {("tickcast_calendar_end_timestamp_seconds", ("daily 17:00 America/New_York",)): end}


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("quick_switches")
def test_instruments_can_be_looked_at_while_the_loop_takes_and_evicts_them() -> None:
    made = pipeline(instruments_per_partition_max=40)
    done = False

    def turn() -> None:
        nonlocal done
        for offset in range(0, 6000, 20):
            made.advance(records([raw(n, f"I{n * 7 % 61}") for n in range(offset, offset + 20)], offset))
        done = True

    loop = Thread(target=turn)
    loop.start()
    looks = 0
    while not done:
        names = [instrument.name for instrument in made.instruments(1000)]
        assert len(set(names)) == len(names) <= 41
        looks += 1
    loop.join()
    assert looks > 10
