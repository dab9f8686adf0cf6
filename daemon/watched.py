"""What is looked at of one model while it runs, computed when somebody looks: in the thread of the scrape.

The loop only puts rows into rings (`spread`, `skill`, `drift`). Series stay bounded whatever comes: an `instrument` has
series of its own up to `[metrics] instruments_max`, a column as many as the model has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import attrgetter
from statistics import fmean

import numpy as np
from prometheus_client.metrics_core import GaugeHistogramMetricFamily, GaugeMetricFamily, Metric

from daemon.core.pipeline import Pipeline
from daemon.core.sessions import Kind
from daemon.drift import ColumnDrift, InputDrift
from daemon.expected import ExpectedInstruments
from daemon.skill import LiveScores
from daemon.spread import OTHER, PredictionSpread

PREFIX = "tickcast_"
#: A spread below this share of its value in validation counts as collapsed.
COLLAPSED_RATIO = 0.01
#: Bounds of the distribution of that share; the first is the one that counts.
RATIO_BUCKETS = (COLLAPSED_RATIO, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
#: Instruments that a scrape looks at, those that ticked last: it holds up the loop, some 20 ms for so many.
LOOKED_AT_MAX = 50_000


@dataclass(frozen=True, slots=True)
class Watch:
    """What is looked at of one model while it runs; None where nobody looks."""

    #: Spread of its forecasts per instrument.
    spread: PredictionSpread
    #: Its last scored forecasts.
    scores: LiveScores | None = None
    #: The spread on the validation part of training; None where the bundle does not say.
    validation_variance: float | None = None
    #: Its inputs against those of training.
    drift: InputDrift | None = None
    #: Who is to tick now.
    expected: ExpectedInstruments | None = None
    #: Holds the states of its instruments.
    pipeline: Pipeline | None = None
    #: Instruments that get series of their own.
    instruments_max: int = 50


class WatchCollector:
    """Computes what the model's forecasts are worth when somebody looks.

    Parameters
    ----------
    watched : returns what is looked at; another model may take over between two scrapes
    """

    def __init__(self, watched: Callable[[], Watch]) -> None:
        self._watched = watched

    def collect(self) -> Iterable[Metric]:
        """Yield the spread of forecasts, what the last scored ones add up to, and what goes into the model."""
        watch = self._watched()
        instruments = [] if watch.pipeline is None else watch.pipeline.instruments(LOOKED_AT_MAX)
        yield from _spreads(watch)
        if watch.scores is not None:
            yield from _scores(watch.scores)
        if watch.drift is not None:
            yield from _drifts(watch.drift.columns(instruments))
        if watch.expected is not None:
            yield _expected(watch.expected.count(instruments, time.time_ns()))


def _spreads(watch: Watch) -> Iterable[Metric]:
    """Yield the variance per instrument, its ratio to validation, how that is distributed, and how many collapsed."""
    variances, pipeline = watch.spread.variances(), watch.pipeline
    if pipeline is not None:  # who went to another instance, or was evicted, is not ours to judge
        variances = {name: each for name, each in variances.items() if name == OTHER or pipeline.holds(name)}
    unit = watch.validation_variance
    ratios = {name: value / unit for name, value in variances.items()} if unit else {}
    yield _by_instrument(
        "prediction_variance",
        "Variance of an instrument's last forecasts, in the model's output units; must not be 0.",
        variances,
        watch.instruments_max,
    )
    yield _by_instrument(
        "prediction_variance_ratio", "The same over its value in validation.", ratios, watch.instruments_max
    )
    of_one = [ratio for name, ratio in ratios.items() if name != OTHER]
    yield _distribution(
        "instrument_variance_ratio", "Instruments by prediction_variance_ratio; those that are watched.", of_one
    )
    yield GaugeMetricFamily(
        PREFIX + "collapsed_instruments",
        f"Instruments whose forecasts spread less than {COLLAPSED_RATIO:.0%} of validation.",
        value=sum(ratio < COLLAPSED_RATIO for ratio in of_one),
    )


def _by_instrument(name: str, text: str, values: Mapping[str, float], instruments_max: int) -> GaugeMetricFamily:
    """Return a gauge per instrument; what is beyond the bound is one more, their mean."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=["instrument"])
    own = islice((item for item in values.items() if item[0] != OTHER), instruments_max)
    shown = dict(own)
    for instrument, value in shown.items():
        family.add_metric([instrument], value)
    rest = [value for instrument, value in values.items() if instrument not in shown]
    if rest:
        family.add_metric([OTHER], fmean(rest))
    return family


def _distribution(name: str, text: str, ratios: Sequence[float]) -> GaugeHistogramMetricFamily:
    """Return how many are at or below each bound, as a histogram that may fall again."""
    counts = np.cumsum(np.bincount(np.searchsorted(RATIO_BUCKETS, ratios), minlength=len(RATIO_BUCKETS) + 1))
    bounds = [*map(str, RATIO_BUCKETS), "+Inf"]
    buckets = list(zip(bounds, map(float, counts), strict=True))
    return GaugeHistogramMetricFamily(PREFIX + name, text, buckets=buckets, gsum_value=sum(ratios))


def _scores(scores: LiveScores) -> Iterable[Metric]:
    """Yield skill, coverage and width per horizon; no sample where one is not known yet."""
    figures = scores.figures()
    scores.warn(figures)
    for name, text, value in (
        ("forecast_skill_ratio", "1 - MSE / MSE of no change.", attrgetter("skill")),
        (
            "forecast_skill_upper_ratio",
            "Upper end of the 95 % interval of forecast_skill_ratio; below 0 the forecasts are worse than none.",
            attrgetter("skill_upper"),
        ),
        ("interval_coverage_ratio", "Share of outcomes that the interval held.", attrgetter("coverage")),
        ("interval_width_ratio", "Mean width of the interval over the price.", attrgetter("width")),
    ):
        family = GaugeMetricFamily(PREFIX + name, text, labels=["horizon"])
        for each in figures:
            if value(each) is not None:
                family.add_metric([str(each.horizon)], value(each))
        yield family


def _drifts(columns: Sequence[ColumnDrift]) -> Iterable[Metric]:
    """Yield how far each input is from training; the index tells columns of the same feature apart."""
    for name, text, value in (
        (
            "input_shift_ratio",
            "How far the mean of an input has moved since training, in standard deviations of training.",
            attrgetter("shift"),
        ),
        ("input_scale_ratio", "Standard deviation of an input over that in training.", attrgetter("scale")),
    ):
        family = GaugeMetricFamily(PREFIX + name, text, labels=["column", "feature"])
        for each in columns:
            family.add_metric([str(each.column), each.feature], value(each))
        yield family


def _expected(counts: Mapping[Kind, int]) -> Metric:
    family = GaugeMetricFamily(
        PREFIX + "expected_instruments",
        "Instruments that are to tick now, by the kind of their session rule; calendar and never know the hours. "
        f"Of more than {LOOKED_AT_MAX:,} those that ticked last are counted.",
        labels=["rule"],
    )
    for rule, count in counts.items():
        family.add_metric([rule], count)
    return family
