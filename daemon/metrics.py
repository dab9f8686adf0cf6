"""Prometheus metrics, prefix `tickcast_`, on an injected registry.

The loop writes plain numbers and arrays; the scrape thread reads them and computes what is costly. What is counted per
tick is counted per batch with numpy: one `observe` per tick would cost a microsecond of the thirty that a tick has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric

from daemon import __version__
from daemon.core.pipeline import Batch
from daemon.skill import LiveScores
from daemon.spread import PredictionSpread

PREFIX = "tickcast_"
#: Seconds. The library's own start at 5 ms, where our median would drown.
SECONDS_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
RESTORE_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
TICKS_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
#: A spread below this share of its value in validation counts as collapsed.
COLLAPSED_RATIO = 0.01


@dataclass(frozen=True, slots=True)
class Watch:
    """What is looked at of one model's forecasts while it runs."""

    #: Spread of its forecasts per instrument.
    spread: PredictionSpread
    #: Its last scored forecasts; None where nobody looks at them.
    scores: LiveScores | None = None
    #: The spread on the validation part of training; None where the bundle does not say.
    validation_variance: float | None = None


class Metrics:
    """All series of the daemon.

    Parameters
    ----------
    registry : where they are registered
    watch : what of the model's forecasts is looked at
    """

    def __init__(self, registry: CollectorRegistry, watch: Watch) -> None:
        self._watch = watch
        self._ticks = _counter(registry, "ticks", "Ticks by outcome.", ["outcome"])
        self._forecast_ticks = self._ticks.labels("forecast")
        self._dead_letter_ticks = self._ticks.labels("dead_letter")
        self._catch_up_ticks = self._ticks.labels("catch_up")
        self._replayed_count = 0
        self._dead_letters = _counter(registry, "dead_letters", "Dead letters by reason.", ["reason"])
        self._negative_latency = _counter(
            registry, "negative_latency", "Ticks whose Kafka timestamp was ahead of our clock at commit."
        )
        self._end_to_end = BatchHistogram(
            PREFIX + "end_to_end_latency_seconds", "From a tick's Kafka timestamp to its committed forecast."
        )
        registry.register(self._end_to_end)
        self.inference_seconds = _histogram(registry, "inference_seconds", "Time in the model's step per batch.")
        self._commit_seconds = _histogram(registry, "commit_seconds", "Time of one transaction, flush to commit.")
        self._batch_ticks = _histogram(registry, "batch_ticks", "Ticks per batch.", TICKS_BUCKETS)
        self._lag = _gauge(registry, "consumer_lag_ticks", "Ticks behind the end of the log.", ["partition"])
        self.last_progress = _gauge(
            registry, "last_progress_timestamp_seconds", "When the loop last turned, Unix time."
        )
        self._checkpoint_seconds = _histogram(
            registry, "checkpoint_seconds", "Time of one transaction that holds a checkpoint."
        )
        self._snapshots = _counter(registry, "snapshots", "Records written to the state topic.")
        self.restore_seconds = _histogram(
            registry, "restore_seconds", "From a partition's assignment to its first live tick.", RESTORE_BUCKETS
        )
        self._restore_remaining_ticks = _gauge(
            registry, "restore_remaining_ticks", "Ticks still to replay before all our partitions run."
        )
        self.transactions = _counter(registry, "transactions", "Transactions by outcome.", ["outcome"])
        self.rebalances = _counter(registry, "rebalances", "Changes of assignment by kind.", ["kind"])
        self.assigned_partitions = _gauge(registry, "assigned_partitions", "Partitions that are ours.")
        self._resets = _counter(registry, "session_resets", "Resets of recurrent states by cause.", ["cause"])
        self.active_instruments = _gauge(registry, "active_instruments", "Instruments with state.")
        self._evictions = _counter(registry, "evictions", "States given up to make room for others.")
        self.instruments_in_two_partitions = _gauge(
            registry, "instruments_in_two_partitions", "Instruments whose ticks came in more than one partition."
        )
        self.state_bytes = _gauge(registry, "state_bytes", "Recurrent state in memory.")
        self._probe_variance = _gauge(
            registry, "probe_variance", "Variance of the canary's answers to the same input; must be 0."
        )
        self._probe_max_difference = _gauge(
            registry,
            "probe_max_difference",
            "Largest difference of the canary's answers to its golden ones; must be 0.",
        )
        self._probe_runs = _counter(registry, "probe_runs", "Finished runs of the canary.")
        self.confluent_framed = _gauge(
            registry, "confluent_framed_ticks", "Ticks so far that came in Confluent's framing."
        )
        self.beyond_calendar = _gauge(
            registry,
            "beyond_calendar_ticks",
            "Ticks so far outside the span of their calendar, judged by the gap rule.",
        )
        self._build = _gauge(registry, "build_info", "Always 1; what runs here.", ["version", "model", "revision"])
        self._switches = _counter(registry, "bundle_switches", "Models that took over while ticks flowed.")
        self._refused = _counter(registry, "bundles_refused", "Pinned bundles that could not be run, by reason once.")
        self._refused_count = 0
        registry.register(WatchCollector(lambda: self._watch))

    def follow(self, model: str, revision: str, watch: Watch) -> None:
        """Say what runs from here on, and look at its forecasts."""
        self._build.clear()
        self._build.labels(__version__, model, revision).set(1)
        self._watch = watch

    def switched(self) -> None:
        """Count a model that took over."""
        self._switches.inc()

    def bundles_refused(self, count: int) -> None:
        """Say how many pinned bundles were refused in the whole process."""
        self._refused.inc(count - self._refused_count)
        self._refused_count = count

    def transaction(self, seconds: float, *, snapshots: int) -> None:
        """Count a committed transaction, and the records of a checkpoint in it."""
        self.transactions.labels("committed").inc()
        self._commit_seconds.observe(seconds)
        if snapshots:
            self._checkpoint_seconds.observe(seconds)
            self._snapshots.inc(snapshots)

    def restoring(self, remaining_ticks: int, replayed_count: int) -> None:
        """Say how far recovery is; `replayed_count` is that of the whole process."""
        self._restore_remaining_ticks.set(remaining_ticks)
        self._catch_up_ticks.inc(replayed_count - self._replayed_count)
        self._replayed_count = replayed_count

    def committed(self, batch: Batch, now: float) -> None:
        """Count a batch whose transaction was committed.

        Parameters
        ----------
        now : Unix time of the commit, seconds
        """
        self._forecast_ticks.inc(len(batch.forecasts))
        self._dead_letter_ticks.inc(len(batch.dead_letters))
        for reason, count in batch.reasons.items():
            self._dead_letters.labels(reason.value).inc(count)
        for cause, resets in batch.resets.items():
            self._resets.labels(cause.value).inc(resets)
        self._evictions.inc(batch.evicted_count)
        if batch.timestamps or batch.dead_letters:
            self._batch_ticks.observe(len(batch.timestamps) + len(batch.dead_letters))
        latency = now - np.array(batch.timestamps, np.float64) / 1000
        self._negative_latency.inc(int((latency < 0).sum()))
        self._end_to_end.observe(np.maximum(latency, 0))
        self._watch.spread.observe(batch.instruments, batch.outputs)
        if self._watch.scores is not None and batch.scored:
            self._watch.scores.observe(batch.scored)
        if batch.probe is not None:
            self._probe_runs.inc()
            self._probe_variance.set(batch.probe.variance)
            self._probe_max_difference.set(batch.probe.max_difference)

    def lags(self, lags: dict[int, int]) -> None:
        """Set the lag of the partitions that are ours; those given up disappear."""
        self._lag.clear()
        for partition, lag in lags.items():
            self._lag.labels(partition).set(lag)


class BatchHistogram:
    """A histogram that takes a whole batch at once."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float] = SECONDS_BUCKETS) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.array(buckets)
        self._counts = np.zeros(len(buckets) + 1, np.int64)
        self._sum = 0.0

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count the values, float64 of any length."""
        self._counts += np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._counts))
        self._sum += float(values.sum())

    def collect(self) -> Iterable[Metric]:
        """Yield the one family."""
        counts = np.cumsum(self._counts).tolist()
        bounds = [*(str(bound) for bound in self._bounds.tolist()), "+Inf"]
        yield HistogramMetricFamily(
            self._name, self._documentation, buckets=list(zip(bounds, counts, strict=True)), sum_value=self._sum
        )


class WatchCollector:
    """Computes what the model's forecasts are worth when somebody looks."""

    def __init__(self, watched: Callable[[], Watch]) -> None:
        self._watched = watched

    def collect(self) -> Iterable[Metric]:
        """Yield the spread of forecasts, and what the last scored ones add up to."""
        watch = self._watched()
        yield from _spreads(watch.spread, watch.validation_variance)
        if watch.scores is not None:
            yield from _scores(watch.scores)


def _spreads(spread: PredictionSpread, validation_variance: float | None) -> Iterable[Metric]:
    """Yield the variance per instrument, its ratio to validation, and how many collapsed."""
    variance = GaugeMetricFamily(
        PREFIX + "prediction_variance",
        "Variance of an instrument's last forecasts, in the model's output units; must not be 0.",
        labels=["instrument"],
    )
    ratio = GaugeMetricFamily(
        PREFIX + "prediction_variance_ratio",
        "The same over its value in validation.",
        labels=["instrument"],
    )
    collapsed = 0
    for instrument, value in spread.variances():
        variance.add_metric([instrument], value)
        if validation_variance:
            share = value / validation_variance
            ratio.add_metric([instrument], share)
            collapsed += share < COLLAPSED_RATIO
    yield variance
    yield ratio
    yield GaugeMetricFamily(
        PREFIX + "collapsed_instruments",
        f"Instruments whose forecasts spread less than {COLLAPSED_RATIO:.0%} of validation.",
        value=collapsed,
    )


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


def _counter(registry: CollectorRegistry, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
    return Counter(PREFIX + name, help_text, labels, registry=registry)


def _gauge(registry: CollectorRegistry, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
    return Gauge(PREFIX + name, help_text, labels, registry=registry)


def _histogram(
    registry: CollectorRegistry, name: str, help_text: str, buckets: Sequence[float] = SECONDS_BUCKETS
) -> Histogram:
    return Histogram(PREFIX + name, help_text, registry=registry, buckets=buckets)
