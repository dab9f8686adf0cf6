"""What a model is worth while it runs: its spread, its skill, its intervals, its inputs, and which one it is."""

from __future__ import annotations

from daemon.dev.dashboards.grafana import PLAIN, Dashboard, Panel, Query, Row, bad_below, bad_from

_BY_INSTRUMENT = '{@, instrument=~"$instrument"}'

MODELS = Dashboard(
    uid="tickcast-models",
    title="tickcast / Models",
    description="Whether forecasts spread, hit, and rest on the inputs that the model was trained on.",
    instruments=True,
    rows=(
        Row(
            "Spread of forecasts",
            (
                Panel(
                    "Prediction variance",
                    "Variance of an instrument's last 256 forecasts, in the model's output units; must not be 0. "
                    "Those beyond instruments_max are summed up as `other`.",
                    (Query(f"avg by (instrument) (tickcast_prediction_variance{_BY_INSTRUMENT})", "{{instrument}}"),),
                    unit="none",
                    width=12,
                    minimum=0,
                ),
                Panel(
                    "Prediction variance over validation",
                    "The same over its value on the validation part of training. Below 1 % an instrument has collapsed.",
                    (
                        Query(
                            f"avg by (instrument) (tickcast_prediction_variance_ratio{_BY_INSTRUMENT})",
                            "{{instrument}}",
                        ),
                    ),
                    unit="percentunit",
                    thresholds=bad_below(0.01),
                    width=12,
                    minimum=0,
                ),
                Panel(
                    "Distribution of spreads",
                    "How many of the watched instruments have which share of the spread in validation; all of them, not "
                    "only those with series of their own.",
                    (Query("sum by (le) (tickcast_instrument_variance_ratio_bucket{@})", "up to {{le}}"),),
                    unit="suffix: instruments",
                    kind="bargauge",
                    heatmap=True,
                    width=12,
                    minimum=0,
                ),
                Panel(
                    "Collapsed instruments",
                    "Instruments whose forecasts spread less than 1 % of validation.",
                    (Query("sum(tickcast_collapsed_instruments{@})"),),
                    unit="suffix: instruments",
                    kind="stat",
                    thresholds=bad_from(1),
                    width=6,
                ),
                Panel(
                    "Canary",
                    "Finished runs of the canary in the last hour. While it does not run, a probe variance of 0 proves "
                    "nothing.",
                    (Query("sum(increase(tickcast_probe_runs_total{@}[1h]))"),),
                    unit="suffix: runs",
                    kind="stat",
                    thresholds=bad_below(1),
                    width=6,
                    decimals=0,
                ),
            ),
        ),
        Row(
            "Skill and intervals",
            (
                Panel(
                    "Skill",
                    "1 - MSE / MSE of no change, by horizon in ticks, over the last scored forecasts.",
                    (Query("avg by (horizon) (tickcast_forecast_skill_ratio{@})", "{{horizon}} ticks"),),
                    unit="percentunit",
                    thresholds=bad_below(0),
                ),
                Panel(
                    "Skill, at most",
                    "Upper end of the 95 % interval of the skill. Below 0 the forecasts are worse than none, beyond chance.",
                    (Query("min by (horizon) (tickcast_forecast_skill_upper_ratio{@})", "{{horizon}} ticks"),),
                    unit="percentunit",
                    thresholds=bad_below(0),
                ),
                Panel(
                    "Coverage",
                    "Share of outcomes that the interval held, by horizon in ticks, and the share that it shall hold.",
                    (
                        Query("avg by (horizon) (tickcast_interval_coverage_ratio{@})", "{{horizon}} ticks"),
                        Query("avg(tickcast_interval_coverage_target_ratio{@})", "target"),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    "Width of intervals",
                    "Mean width of the interval over the price, by horizon in ticks.",
                    (Query("avg by (horizon) (tickcast_interval_width_ratio{@})", "{{horizon}} ticks"),),
                    unit="percentunit",
                    minimum=0,
                ),
                Panel(
                    "Inference",
                    "Time in the model's step per batch.",
                    (
                        Query(
                            "histogram_quantile(0.5, sum by (le) "
                            "(rate(tickcast_inference_seconds_bucket{@}[$__rate_interval])))",
                            "p50",
                        ),
                        Query(
                            "histogram_quantile(0.99, sum by (le) "
                            "(rate(tickcast_inference_seconds_bucket{@}[$__rate_interval])))",
                            "p99",
                        ),
                    ),
                    unit="s",
                    thresholds=bad_from(0.1),
                    minimum=0,
                ),
                Panel(
                    "Resets of states",
                    "Recurrent states that started anew, by cause.",
                    (
                        Query(
                            "sum by (cause) (increase(tickcast_session_resets_total{@}[$__rate_interval]))", "{{cause}}"
                        ),
                    ),
                    unit="suffix: resets",
                    minimum=0,
                ),
            ),
        ),
        Row(
            "Inputs against training",
            (
                Panel(
                    "Shift of inputs",
                    "How far the mean of an input has moved since training, in standard deviations of training: of what "
                    "the model sees where the scale is frozen, of the scale itself where it runs along.",
                    (Query("avg by (column, feature) (tickcast_input_shift_ratio{@})", "{{feature}}"),),
                    unit="none",
                    kind="bargauge",
                    thresholds=((None, "red"), (-3, "orange"), (-1, "green"), (1, "orange"), (3, "red")),
                    width=12,
                    height=10,
                    decimals=2,
                ),
                Panel(
                    "Scale of inputs",
                    "Standard deviation of an input over that in training.",
                    (Query("avg by (column, feature) (tickcast_input_scale_ratio{@})", "{{feature}}"),),
                    unit="none",
                    kind="bargauge",
                    thresholds=((None, "red"), (0.1, "orange"), (0.3, "green"), (3, "orange"), (10, "red")),
                    width=12,
                    height=10,
                    decimals=2,
                    minimum=0,
                ),
            ),
        ),
        Row(
            "Versions",
            (
                Panel(
                    "What runs",
                    "Version of tickcast, bundle and revision of every instance. Instances of one group run the same.",
                    (Query("tickcast_build_info{@}"),),
                    unit="none",
                    kind="table",
                    thresholds=PLAIN,
                    width=12,
                    height=6,
                ),
                Panel(
                    "Different models",
                    "How many bundles run at once; more than one only while a promoted bundle is taking over.",
                    (Query("count(count by (model) (tickcast_build_info{@}))"),),
                    unit="suffix: models",
                    kind="stat",
                    thresholds=((None, "green"), (2, "orange")),
                    width=4,
                    height=6,
                ),
                Panel(
                    "Switches",
                    "Models that took over while ticks flowed, in the last 24 hours.",
                    (Query("sum(increase(tickcast_bundle_switches_total{@}[24h]))"),),
                    unit="suffix: switches",
                    kind="stat",
                    width=4,
                    height=6,
                    decimals=0,
                ),
                Panel(
                    "Refused bundles",
                    "Pinned bundles that could not be run, in the last 24 hours.",
                    (Query("sum(increase(tickcast_bundles_refused_total{@}[24h]))"),),
                    unit="suffix: bundles",
                    kind="stat",
                    thresholds=bad_from(0.5),
                    width=4,
                    height=6,
                    decimals=0,
                ),
            ),
        ),
    ),
)
