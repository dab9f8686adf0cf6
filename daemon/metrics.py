"""Prometheus metrics, prefix `tickcast_`, on an injected registry.

The loop writes plain numbers and arrays; the scrape thread reads them and computes what is costly. What is counted per
tick is counted per batch with numpy: one `observe` per tick would cost a microsecond of the thirty that a tick has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from daemon import __version__
from daemon.core.pipeline import Batch
from daemon.core.sessions import Table
from daemon.histogram import RESTORE_BUCKETS, SECONDS_BUCKETS, TICKS_BUCKETS, BatchHistogram
from daemon.watched import PREFIX, Watch, WatchCollector
from schemas import Reason, ResetCause

#: The library adds to every counter and histogram a series of when it began: half as many again, and nobody asks them.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: The unit of a metric is the last word of its name, without `_total`; these are the words.
UNITS = {
    *("bytes", "ratio", "seconds"),
    *("evictions", "instruments", "letters", "partitions", "rebalances", "resets", "runs", "snapshots", "switches"),
    *("ticks", "transactions"),
}
#: Where the last word does not say it.
OTHER_UNITS = {
    "build_info": "-",
    "bundles_refused": "bundles",
    "calendar_end_timestamp_seconds": "Unix time, seconds",
    "instruments_in_two_partitions": "instruments",
    "last_progress_timestamp_seconds": "Unix time, seconds",
    "negative_latency": "ticks",
    "prediction_variance": "squared output",
    "probe_max_difference": "output",
    "probe_variance": "squared output",
}


def unit_of(name: str) -> str:
    """Return the unit of one of our metrics.

    Raises
    ------
    KeyError : its name says none
    """
    stem = name.removeprefix(PREFIX).removesuffix("_total")
    word = stem.rpartition("_")[2]
    return OTHER_UNITS[stem] if word not in UNITS or stem in OTHER_UNITS else word


class Metrics:
    """All series of the daemon.

    Parameters
    ----------
    registry : where they are registered
    watch : what of the model's forecasts is looked at
    """

    def __init__(self, registry: CollectorRegistry, watch: Watch) -> None:
        self._watch = watch
        ticks = _counter(registry, "ticks", "Ticks by outcome.", ["outcome"])
        self._forecast_ticks = ticks.labels("forecast")
        self._dead_letter_ticks = ticks.labels("dead_letter")
        self._catch_up_ticks = ticks.labels("catch_up")
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
        self._lagging: set[int] = set()
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
        self._transactions = _counter(registry, "transactions", "Transactions by outcome.", ["outcome"])
        self._rebalances = _counter(registry, "rebalances", "Changes of assignment by kind.", ["kind"])
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
        self.coverage_target = _gauge(
            registry, "interval_coverage_target_ratio", "Share of outcomes that the interval shall hold."
        )
        self._calendar_end = _gauge(
            registry,
            "calendar_end_timestamp_seconds",
            "Where the table of a session rule ends; behind it the gap rule decides. Unix time.",
            ["calendar"],
        )
        self._build = _gauge(registry, "build_info", "Always 1; what runs here.", ["version", "model", "revision"])
        self._switches = _counter(registry, "bundle_switches", "Models that took over while ticks flowed.")
        self._refused = _counter(registry, "bundles_refused", "Pinned bundles that could not be run, by reason once.")
        self._refused_count = 0
        registry.register(WatchCollector(lambda: self._watch))
        # What has not happened yet counts 0, so that the first one is an increase.
        _begin(self._dead_letters, (reason.value for reason in Reason))
        _begin(self._resets, (cause.value for cause in ResetCause))
        _begin(self._transactions, ("committed", "failed"))
        _begin(self._rebalances, ("assigned", "revoked", "lost"))

    def calendars(self, tables: Iterable[Table]) -> None:
        """Say where the tables of the session rules end."""
        for table in tables:
            self._calendar_end.labels(table.name).set(table.end / 1e9)

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
        self._transactions.labels("committed").inc()
        self._commit_seconds.observe(seconds)
        if snapshots:
            self._checkpoint_seconds.observe(seconds)
            self._snapshots.inc(snapshots)

    def transaction_failed(self) -> None:
        """Count a transaction of which nothing is visible."""
        self._transactions.labels("failed").inc()

    def rebalanced(self, kind: str) -> None:
        """Count a change of assignment: assigned, revoked or lost."""
        self._rebalances.labels(kind).inc()

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
        watch = self._watch
        watch.spread.observe(batch.instruments, batch.outputs)
        if watch.drift is not None:
            watch.drift.observe(batch.inputs)
        if watch.scores is not None and batch.scored:
            watch.scores.observe(batch.scored)
        if batch.probe is not None:
            self._probe_runs.inc()
            self._probe_variance.set(batch.probe.variance)
            self._probe_max_difference.set(batch.probe.max_difference)

    def lags(self, lags: Mapping[int, int]) -> None:
        """Set the lag of the partitions that are ours; those given up disappear."""
        for partition, lag in lags.items():
            self._lag.labels(partition).set(lag)
        for partition in self._lagging - lags.keys():
            self._lag.remove(partition)
        self._lagging = set(lags)


def _begin(counter: Counter, values: Iterable[str]) -> None:
    """Let a counter begin at 0 for every value of its label."""
    for value in values:
        counter.labels(value)


def _counter(registry: CollectorRegistry, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
    return Counter(PREFIX + name, help_text, labels, registry=registry)


def _gauge(registry: CollectorRegistry, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
    return Gauge(PREFIX + name, help_text, labels, registry=registry)


def _histogram(
    registry: CollectorRegistry, name: str, help_text: str, buckets: Sequence[float] = SECONDS_BUCKETS
) -> Histogram:
    return Histogram(PREFIX + name, help_text, registry=registry, buckets=buckets)
