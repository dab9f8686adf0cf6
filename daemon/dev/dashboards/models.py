"""What a model is worth while it runs: its spread, its skill, its intervals, its inputs, and which one it is."""

from __future__ import annotations

from daemon.dev.dashboards.grafana import Dashboard, Panel, Row, bad_below, bad_from, lines, stat

_ONES = '{@, instrument=~"$instrument"}'
_INFERENCE = "sum by (le) (rate(tickcast_inference_seconds_bucket{@}[$__rate_interval]))"

SPREAD = Row(
    "Spread of forecasts",
    (
        lines(
            "Prediction variance",
            "Variance of an instrument's last 256 forecasts, in the model's output units; must not be 0. Those beyond "
            "instruments_max are summed up as `other`.",
            "none",
            {"{{instrument}}": f"avg by (instrument) (tickcast_prediction_variance{_ONES})"},
            width=12,
        ),
        lines(
            "Prediction variance over validation",
            "The same over its value on the validation part of training. Below 1 % an instrument has collapsed.",
            "percentunit",
            {"{{instrument}}": f"avg by (instrument) (tickcast_prediction_variance_ratio{_ONES})"},
            thresholds=bad_below(0.01),
            width=12,
        ),
        Panel(
            "Distribution of spreads",
            "How many of the watched instruments have which share of the spread in validation; all of them, not only "
            "those with series of their own.",
            "suffix:instruments",
            {"up to {{le}}": "sum by (le) (tickcast_instrument_variance_ratio_bucket{@})"},
            kind="bargauge",
            width=12,
            minimum=0,
            buckets=True,
        ),
        stat(
            "Collapsed instruments",
            "Instruments whose forecasts spread less than 1 % of validation.",
            "suffix:instruments",
            "sum(tickcast_collapsed_instruments{@})",
            thresholds=bad_from(1),
            width=6,
            height=8,
        ),
        stat(
            "Canary",
            "Finished runs in the last hour. While the canary does not run, a probe variance of 0 proves nothing.",
            "suffix:runs",
            "sum(increase(tickcast_probe_runs_total{@}[1h]))",
            thresholds=bad_below(1),
            width=6,
            height=8,
            decimals=0,
        ),
    ),
)

SKILL = lines(
    "Skill",
    "1 - MSE / MSE of no change, by horizon in ticks, of the last scored forecasts; above 0 they are worth something.",
    "percentunit",
    {"{{horizon}} ticks": "avg by (horizon) (tickcast_forecast_skill_ratio{@})"},
    thresholds=bad_below(0),
    minimum=None,
)
COVERAGE = lines(
    "Coverage",
    "Share of outcomes that the interval held, by horizon in ticks, and the share that it shall hold.",
    "percentunit",
    {
        "{{horizon}} ticks": "avg by (horizon) (tickcast_interval_coverage_ratio{@})",
        "target": "avg(tickcast_interval_coverage_target_ratio{@})",
    },
    minimum=None,
)

OUTCOMES = Row(
    "Skill and intervals",
    (
        SKILL,
        lines(
            "Skill, at most",
            "Upper end of the 95 % interval of the skill. Below 0 the forecasts are worse than none, beyond chance.",
            "percentunit",
            {"{{horizon}} ticks": "min by (horizon) (tickcast_forecast_skill_upper_ratio{@})"},
            thresholds=bad_below(0),
            minimum=None,
        ),
        COVERAGE,
        lines(
            "Width of intervals",
            "Mean width of the interval over the price, by horizon in ticks.",
            "percentunit",
            {"{{horizon}} ticks": "avg by (horizon) (tickcast_interval_width_ratio{@})"},
        ),
        lines(
            "Inference",
            "Time in the model's step per batch.",
            "s",
            {
                "p50": f"histogram_quantile(0.5, {_INFERENCE})",
                "p99": f"histogram_quantile(0.99, {_INFERENCE})",
            },
            thresholds=bad_from(0.1),
        ),
        lines(
            "Resets of states",
            "Recurrent states that started anew, by cause.",
            "suffix:resets",
            {"{{cause}}": "sum by (cause) (increase(tickcast_session_resets_total{@}[$__rate_interval]))"},
        ),
    ),
)

INPUTS = Row(
    "Inputs against training",
    (
        Panel(
            "Shift of inputs",
            "How far the mean of an input has moved since training, in standard deviations of training: of what the "
            "model sees where the scale is frozen, of the scale itself where it runs along.",
            "none",
            {"{{feature}}": "avg by (column, feature) (tickcast_input_shift_ratio{@})"},
            kind="bargauge",
            thresholds=((None, "red"), (-3, "orange"), (-1, "green"), (1, "orange"), (3, "red")),
            width=12,
            height=10,
            decimals=2,
        ),
        Panel(
            "Scale of inputs",
            "Standard deviation of an input over that in training.",
            "none",
            {"{{feature}}": "avg by (column, feature) (tickcast_input_scale_ratio{@})"},
            kind="bargauge",
            thresholds=((None, "red"), (0.1, "orange"), (0.3, "green"), (3, "orange"), (10, "red")),
            width=12,
            height=10,
            decimals=2,
            minimum=0,
        ),
    ),
)

VERSIONS = Row(
    "Versions",
    (
        Panel(
            "What runs",
            "Version of tickcast, bundle and revision of every instance. Instances of one group run the same.",
            "none",
            {"": "tickcast_build_info{@}"},
            kind="table",
            width=12,
            height=5,
        ),
        stat(
            "Different models",
            "How many bundles run at once; more than one only while a promoted bundle is taking over.",
            "suffix:models",
            "count(count by (model) (tickcast_build_info{@}))",
            thresholds=((None, "green"), (2, "orange")),
        ),
        stat(
            "Switches",
            "Models that took over while ticks flowed, in the last 24 hours.",
            "suffix:switches",
            "sum(increase(tickcast_bundle_switches_total{@}[24h]))",
            decimals=0,
        ),
        stat(
            "Refused bundles",
            "Pinned bundles that could not be run, in the last 24 hours.",
            "suffix:bundles",
            "sum(increase(tickcast_bundles_refused_total{@}[24h]))",
            thresholds=bad_from(0.5),
            decimals=0,
        ),
    ),
)

MODELS = Dashboard(
    uid="tickcast-models",
    title="tickcast / Models",
    description="Whether forecasts spread, hit, and rest on the inputs that the model was trained on.",
    rows=(SPREAD, OUTCOMES, INPUTS, VERSIONS),
    instruments=True,
)
