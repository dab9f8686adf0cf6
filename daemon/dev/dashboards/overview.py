"""The answer in 30 seconds: does it leak, does it say anything, is it in time; then how much, and what it is worth."""

from __future__ import annotations

from daemon.dev.dashboards.grafana import Dashboard, Panel, Query, Row, bad_below, bad_from

#: The promise that the alerts on latency hold us to.
LATENCY_TARGET_SECONDS = 0.25
_LATENCY = "sum by (le) (rate(tickcast_end_to_end_latency_seconds_bucket{@}[$__rate_interval]))"

OVERVIEW = Dashboard(
    uid="tickcast-overview",
    title="tickcast / Overview",
    description="The answer in 30 seconds. The first two figures: the same input again must give the same answer, and "
    "different inputs must give different ones.",
    rows=(
        Row(
            "In 30 seconds",
            (
                Panel(
                    "Same input again, must be 0",
                    "Variance of the canary's answers to one fixed sequence of ticks that runs inside live batches. "
                    "Anything above 0 means that state leaks between instruments.",
                    (Query("max(tickcast_probe_variance{@})"),),
                    unit="none",
                    kind="stat",
                    thresholds=bad_from(1e-300),
                    width=6,
                    height=5,
                ),
                Panel(
                    "Spread of different forecasts, must not be 0",
                    "The smallest spread of any instrument's last forecasts over the spread in validation. Below 1 % "
                    "the model says the same whatever comes.",
                    (Query("min(tickcast_prediction_variance_ratio{@})"),),
                    unit="percentunit",
                    kind="stat",
                    thresholds=((None, "red"), (0.01, "orange"), (0.1, "green")),
                    width=6,
                    height=5,
                ),
                Panel(
                    "End-to-end latency, p99",
                    "From a tick's Kafka timestamp to its committed forecast: 99 of 100 were faster.",
                    (Query(f"histogram_quantile(0.99, {_LATENCY})"),),
                    unit="s",
                    kind="stat",
                    thresholds=bad_from(LATENCY_TARGET_SECONDS),
                    width=6,
                    height=5,
                ),
                Panel(
                    "In time",
                    "Share of forecasts committed within 0.25 s; 99 % are promised.",
                    (
                        Query(
                            "sum(rate(tickcast_end_to_end_latency_seconds_bucket"
                            f'{{@, le="{LATENCY_TARGET_SECONDS}"}}[$__rate_interval])) '
                            "/ sum(rate(tickcast_end_to_end_latency_seconds_count{@}[$__rate_interval]))"
                        ),
                    ),
                    unit="percentunit",
                    kind="stat",
                    thresholds=((None, "red"), (0.94, "orange"), (0.99, "green")),
                    width=6,
                    height=5,
                ),
            ),
        ),
        Row(
            "Flow",
            (
                Panel(
                    "Lag",
                    "Ticks behind the end of the log, over all partitions. What an open transaction of the producer "
                    "hides counts too.",
                    (Query("sum by (instance) (tickcast_consumer_lag_ticks{@})", "{{instance}}"),),
                    unit="suffix: ticks",
                    thresholds=bad_from(1000),
                    minimum=0,
                ),
                Panel(
                    "Forecasts",
                    "Forecasts committed per second.",
                    (
                        Query(
                            'sum by (instance) (rate(tickcast_ticks_total{@, outcome="forecast"}[$__rate_interval]))',
                            "{{instance}}",
                        ),
                    ),
                    unit="suffix: /s",
                    minimum=0,
                ),
                Panel(
                    "Dead letters",
                    "Ticks per second that could not be used, by reason.",
                    (Query("sum by (reason) (rate(tickcast_dead_letters_total{@}[$__rate_interval]))", "{{reason}}"),),
                    unit="suffix: /s",
                    thresholds=bad_from(1),
                    minimum=0,
                ),
                Panel(
                    "End-to-end latency",
                    "From a tick's Kafka timestamp to its committed forecast. The line is the bound of the promise.",
                    (
                        Query(f"histogram_quantile(0.5, {_LATENCY})", "p50"),
                        Query(f"histogram_quantile(0.9, {_LATENCY})", "p90"),
                        Query(f"histogram_quantile(0.99, {_LATENCY})", "p99"),
                    ),
                    unit="s",
                    thresholds=bad_from(LATENCY_TARGET_SECONDS),
                    width=12,
                    minimum=0,
                ),
                Panel(
                    "Instruments",
                    "Those with state, and those that are to tick now by the hours of their session rule.",
                    (
                        Query("sum(tickcast_active_instruments{@})", "with state"),
                        Query("sum by (rule) (tickcast_expected_instruments{@})", "expected, rule {{rule}}"),
                    ),
                    unit="suffix: instruments",
                    width=12,
                    minimum=0,
                ),
            ),
        ),
        Row(
            "Worth",
            (
                Panel(
                    "Skill",
                    "1 - MSE / MSE of no change, by horizon in ticks; above 0 the forecasts are worth something.",
                    (Query("avg by (horizon) (tickcast_forecast_skill_ratio{@})", "{{horizon}} ticks"),),
                    unit="percentunit",
                    thresholds=bad_below(0),
                    width=12,
                ),
                Panel(
                    "Coverage",
                    "Share of outcomes that the interval held, by horizon in ticks, and the share that it shall hold.",
                    (
                        Query("avg by (horizon) (tickcast_interval_coverage_ratio{@})", "{{horizon}} ticks"),
                        Query("avg(tickcast_interval_coverage_target_ratio{@})", "target"),
                    ),
                    unit="percentunit",
                    width=12,
                ),
            ),
        ),
    ),
)
