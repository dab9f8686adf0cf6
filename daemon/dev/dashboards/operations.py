"""What the machine does: batches, transactions, rebalances, restores, state, memory."""

from __future__ import annotations

from daemon.dev.dashboards.grafana import PLAIN, Dashboard, Panel, Query, Row, Steps, bad_below, bad_from


def quantiles(metric: str) -> tuple[Query, Query]:
    """Return the median and the 99th percentile of a histogram."""
    rates = f"sum by (le) (rate({metric}_bucket{{@}}[$__rate_interval]))"
    return (Query(f"histogram_quantile(0.5, {rates})", "p50"), Query(f"histogram_quantile(0.99, {rates})", "p99"))


def by_instance(title: str, description: str, expr: str, unit: str, thresholds: Steps = PLAIN) -> Panel:
    """Return a panel with a line for each instance."""
    return Panel(title, description, (Query(expr, "{{instance}}"),), unit, thresholds=thresholds, minimum=0)


OPERATIONS = Dashboard(
    uid="tickcast-operations",
    title="tickcast / Operations",
    description="Batches, transactions, rebalances, restores, state, memory.",
    rows=(
        Row(
            "Alive",
            (
                Panel(
                    "Up",
                    "Targets that answer the scrape.",
                    (Query("sum(up{@})"),),
                    unit="suffix: instances",
                    kind="stat",
                    thresholds=bad_below(1),
                    width=4,
                    height=5,
                ),
                Panel(
                    "Since the loop turned",
                    "The longest time since a loop has turned.",
                    (Query("max(time() - tickcast_last_progress_timestamp_seconds{@})"),),
                    unit="s",
                    kind="stat",
                    thresholds=bad_from(60),
                    width=4,
                    height=5,
                ),
                Panel(
                    "Running for",
                    "Time since the youngest process started.",
                    (Query("min(time() - process_start_time_seconds{@})"),),
                    unit="s",
                    kind="stat",
                    width=4,
                    height=5,
                ),
                Panel(
                    "Starts",
                    "Restarts within the last hour.",
                    (Query("sum(changes(process_start_time_seconds{@}[1h]))"),),
                    unit="suffix: starts",
                    kind="stat",
                    thresholds=bad_from(3),
                    width=4,
                    height=5,
                ),
                Panel(
                    "Calendar ends in",
                    "Time until the first table of a session rule ends; behind it the gap rule decides.",
                    (Query("min(tickcast_calendar_end_timestamp_seconds{@}) - time()"),),
                    unit="s",
                    kind="stat",
                    thresholds=((None, "red"), (30 * 86400, "green")),
                    width=4,
                    height=5,
                ),
                Panel(
                    "In two partitions",
                    "Instruments whose ticks came in more than one partition: producers that key differently.",
                    (Query("sum(tickcast_instruments_in_two_partitions{@})"),),
                    unit="suffix: instruments",
                    kind="stat",
                    thresholds=bad_from(1),
                    width=4,
                    height=5,
                ),
            ),
        ),
        Row(
            "Batches and transactions",
            (
                Panel(
                    "Ticks per batch",
                    "One poll is one batch is one transaction; batches grow by themselves under load.",
                    quantiles("tickcast_batch_ticks"),
                    unit="suffix: ticks",
                    minimum=0,
                ),
                Panel(
                    "Commit",
                    "Time of one transaction, flush to commit.",
                    quantiles("tickcast_commit_seconds"),
                    unit="s",
                    thresholds=bad_from(1),
                    minimum=0,
                ),
                Panel(
                    "Transactions",
                    "Transactions per second by outcome. After a failed one all partitions start over from their last "
                    "checkpoints.",
                    (
                        Query(
                            "sum by (outcome) (rate(tickcast_transactions_total{@}[$__rate_interval]))", "{{outcome}}"
                        ),
                    ),
                    unit="suffix: /s",
                    minimum=0,
                ),
                Panel(
                    "Ticks by outcome",
                    "Ticks per second; catch_up are those that were replayed silently to restore states.",
                    (Query("sum by (outcome) (rate(tickcast_ticks_total{@}[$__rate_interval]))", "{{outcome}}"),),
                    unit="suffix: /s",
                    minimum=0,
                ),
                Panel(
                    "Lag by partition",
                    "Ticks behind the end of the log, by the partition that they are in.",
                    (Query("sum by (partition) (tickcast_consumer_lag_ticks{@})", "{{partition}}"),),
                    unit="suffix: ticks",
                    thresholds=bad_from(1000),
                    minimum=0,
                ),
                by_instance(
                    "Ticks from the future",
                    "Ticks per second whose Kafka timestamp was ahead of our clock when they were committed.",
                    "sum by (instance) (rate(tickcast_negative_latency_total{@}[$__rate_interval]))",
                    "suffix: /s",
                    bad_from(1),
                ),
            ),
        ),
        Row(
            "Rebalances and restores",
            (
                Panel(
                    "Rebalances",
                    "Changes of assignment, by kind. Lost partitions went to somebody else without our leave.",
                    (Query("sum by (kind) (increase(tickcast_rebalances_total{@}[$__rate_interval]))", "{{kind}}"),),
                    unit="suffix: rebalances",
                    minimum=0,
                ),
                by_instance(
                    "Assigned partitions",
                    "Partitions that an instance owns.",
                    "sum by (instance) (tickcast_assigned_partitions{@})",
                    "suffix: partitions",
                ),
                by_instance(
                    "Still to restore",
                    "Ticks still to replay before all partitions of an instance run.",
                    "sum by (instance) (tickcast_restore_remaining_ticks{@})",
                    "suffix: ticks",
                    bad_from(1),
                ),
                Panel(
                    "Restores",
                    "From a partition's assignment to its first live tick, since the processes started.",
                    (
                        Query("histogram_quantile(0.5, sum by (le) (tickcast_restore_seconds_bucket{@}))", "p50"),
                        Query("histogram_quantile(0.99, sum by (le) (tickcast_restore_seconds_bucket{@}))", "p99"),
                    ),
                    unit="s",
                    thresholds=bad_from(30),
                    minimum=0,
                ),
                Panel(
                    "Checkpoints",
                    "Mean time of a transaction that holds a checkpoint.",
                    (
                        Query(
                            "sum(rate(tickcast_checkpoint_seconds_sum{@}[5m])) "
                            "/ sum(rate(tickcast_checkpoint_seconds_count{@}[5m]))",
                            "mean",
                        ),
                    ),
                    unit="s",
                    thresholds=bad_from(1),
                    minimum=0,
                ),
                by_instance(
                    "Snapshots",
                    "Records written to the state topic per second.",
                    "sum by (instance) (rate(tickcast_snapshots_total{@}[$__rate_interval]))",
                    "suffix: /s",
                ),
            ),
        ),
        Row(
            "State and memory",
            (
                by_instance(
                    "State",
                    "Recurrent state in memory.",
                    "sum by (instance) (tickcast_state_bytes{@})",
                    "bytes",
                ),
                by_instance(
                    "Instruments",
                    "Instruments with state.",
                    "sum by (instance) (tickcast_active_instruments{@})",
                    "suffix: instruments",
                ),
                by_instance(
                    "Evictions",
                    "States given up to make room for others, per second.",
                    "sum by (instance) (rate(tickcast_evictions_total{@}[$__rate_interval]))",
                    "suffix: /s",
                    bad_from(1),
                ),
                by_instance(
                    "Resident memory",
                    "Resident memory of the process.",
                    "sum by (instance) (process_resident_memory_bytes{@})",
                    "bytes",
                ),
                by_instance(
                    "Processor",
                    "Processor seconds per second; the loop is one thread, so 1 is all it can use.",
                    "sum by (instance) (rate(process_cpu_seconds_total{@}[$__rate_interval]))",
                    "percentunit",
                    bad_from(0.9),
                ),
                by_instance(
                    "Scrapes",
                    "How long a scrape takes, with its way.",
                    "sum by (instance) (scrape_duration_seconds{@})",
                    "s",
                    bad_from(0.05),
                ),
                by_instance(
                    "Series",
                    "Samples of one scrape; bounded whatever instruments come.",
                    "sum by (instance) (scrape_samples_scraped{@})",
                    "suffix: series",
                ),
                by_instance(
                    "Beyond the calendar",
                    "Ticks so far outside the span of their calendar, judged by the gap rule.",
                    "sum by (instance) (tickcast_beyond_calendar_ticks{@})",
                    "suffix: ticks",
                    bad_from(1),
                ),
                by_instance(
                    "Confluent framing",
                    "Ticks so far that came in Confluent's framing.",
                    "sum by (instance) (tickcast_confluent_framed_ticks{@})",
                    "suffix: ticks",
                ),
            ),
        ),
    ),
)
