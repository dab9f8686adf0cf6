"""The answer in 30 seconds: does it leak, does it say anything, is it in time; then how much, and what it is worth."""

from __future__ import annotations

from dataclasses import replace

from daemon.dev.dashboards.grafana import Dashboard, Row, bad_from, lines, stat
from daemon.dev.dashboards.models import COVERAGE, SKILL

#: The promise that the alerts on latency hold us to.
LATENCY_TARGET_SECONDS = 0.25
_LATENCY = "sum by (le) (rate(tickcast_end_to_end_latency_seconds_bucket{@}[$__rate_interval]))"
_IN_TIME = f'tickcast_end_to_end_latency_seconds_bucket{{@, le="{LATENCY_TARGET_SECONDS}"}}'

SECONDS_30 = Row(
    "In 30 seconds",
    (
        stat(
            "Same input again, must be 0",
            "Variance of the canary's answers to one fixed sequence of ticks that runs inside live batches. Anything "
            "above 0 means that state leaks between instruments.",
            "none",
            "max(tickcast_probe_variance{@})",
            thresholds=bad_from(1e-300),
            width=6,
        ),
        stat(
            "Spread of different forecasts, must not be 0",
            "The smallest spread of any instrument's last forecasts over the spread in validation. Below 1 % the model "
            "says the same whatever comes.",
            "percentunit",
            "min(tickcast_prediction_variance_ratio{@})",
            thresholds=((None, "red"), (0.01, "orange"), (0.1, "green")),
            width=6,
        ),
        stat(
            "End-to-end latency, p99",
            "From a tick's Kafka timestamp to its committed forecast: 99 of 100 were faster.",
            "s",
            f"histogram_quantile(0.99, {_LATENCY})",
            thresholds=bad_from(LATENCY_TARGET_SECONDS),
            width=6,
        ),
        stat(
            "In time",
            f"Share of forecasts committed within {LATENCY_TARGET_SECONDS} s; 99 % are promised.",
            "percentunit",
            f"sum(rate({_IN_TIME}[$__rate_interval])) "
            "/ sum(rate(tickcast_end_to_end_latency_seconds_count{@}[$__rate_interval]))",
            thresholds=((None, "red"), (0.94, "orange"), (0.99, "green")),
            width=6,
        ),
    ),
)

FLOW = Row(
    "Flow",
    (
        lines(
            "Lag",
            "Ticks behind the end of the log. What an open transaction of the producer hides counts too.",
            "suffix:ticks",
            {"{{instance}}": "sum by (instance) (tickcast_consumer_lag_ticks{@})"},
            thresholds=bad_from(1000),
        ),
        lines(
            "Forecasts",
            "Forecasts committed per second.",
            "suffix:/s",
            {"{{instance}}": 'sum by (instance) (rate(tickcast_ticks_total{@, outcome="forecast"}[$__rate_interval]))'},
        ),
        lines(
            "Dead letters",
            "Ticks per second that could not be used, by reason.",
            "suffix:/s",
            {"{{reason}}": "sum by (reason) (rate(tickcast_dead_letters_total{@}[$__rate_interval]))"},
            thresholds=bad_from(1),
        ),
        lines(
            "End-to-end latency",
            "From a tick's Kafka timestamp to its committed forecast. The dashed line is the bound of the promise.",
            "s",
            {
                "p50": f"histogram_quantile(0.5, {_LATENCY})",
                "p90": f"histogram_quantile(0.9, {_LATENCY})",
                "p99": f"histogram_quantile(0.99, {_LATENCY})",
            },
            thresholds=bad_from(LATENCY_TARGET_SECONDS),
            width=12,
        ),
        lines(
            "Instruments",
            "Those with state, and those that are to tick now by the hours of their session rule.",
            "suffix:instruments",
            {
                "with state": "sum(tickcast_active_instruments{@})",
                "expected, rule {{rule}}": "sum by (rule) (tickcast_expected_instruments{@})",
            },
            width=12,
        ),
    ),
)

WORTH = Row("Worth", (replace(SKILL, width=12), replace(COVERAGE, width=12)))

OVERVIEW = Dashboard(
    uid="tickcast-overview",
    title="tickcast / Overview",
    description="The answer in 30 seconds. The first two figures: the same input again must give the same answer, and "
    "different inputs must give different ones.",
    rows=(SECONDS_30, FLOW, WORTH),
)
