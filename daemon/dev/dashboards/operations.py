"""What the machine does: batches, transactions, rebalances, restores, state, memory."""

from __future__ import annotations

from daemon.dev.dashboards.grafana import PLAIN, Dashboard, Panel, Row, Steps, bad_below, bad_from, lines, stat


def quantiles(metric: str) -> dict[str, str]:
    """Return the queries for the median and the 99th percentile of a histogram."""
    rates = f"sum by (le) (rate({metric}_bucket{{@}}[$__rate_interval]))"
    return {"p50": f"histogram_quantile(0.5, {rates})", "p99": f"histogram_quantile(0.99, {rates})"}


def each(title: str, description: str, unit: str, series: str, thresholds: Steps = PLAIN) -> Panel:
    """Return a panel with a line for each instance."""
    return lines(title, description, unit, {"{{instance}}": f"sum by (instance) ({series})"}, thresholds=thresholds)


ALIVE = Row(
    "Alive",
    (
        stat(
            "Up",
            "Targets that answer the scrape.",
            "suffix:instances",
            "sum(up{@})",
            thresholds=bad_below(1),
        ),
        stat(
            "Since the loop turned",
            "The longest time since a loop has turned.",
            "s",
            "max(time() - tickcast_last_progress_timestamp_seconds{@})",
            thresholds=bad_from(60),
        ),
        stat(
            "Running for",
            "Time since the youngest process started.",
            "s",
            "min(time() - process_start_time_seconds{@})",
        ),
        stat(
            "Starts",
            "Restarts within the last hour.",
            "suffix:starts",
            "sum(changes(process_start_time_seconds{@}[1h]))",
            thresholds=bad_from(3),
        ),
        stat(
            "Calendar ends in",
            "Time until the first table of a session rule ends; behind it the gap rule decides.",
            "s",
            "min(tickcast_calendar_end_timestamp_seconds{@}) - time()",
            thresholds=bad_below(30 * 86400),
        ),
        stat(
            "In two partitions",
            "Instruments whose ticks came in more than one partition: producers that key differently.",
            "suffix:instruments",
            "sum(tickcast_instruments_in_two_partitions{@})",
            thresholds=bad_from(1),
        ),
    ),
)

TRANSACTIONS = Row(
    "Batches and transactions",
    (
        lines(
            "Ticks per batch",
            "One poll is one batch is one transaction; batches grow by themselves under load.",
            "suffix:ticks",
            quantiles("tickcast_batch_ticks"),
        ),
        lines(
            "Commit",
            "Time of one transaction, flush to commit.",
            "s",
            quantiles("tickcast_commit_seconds"),
            thresholds=bad_from(1),
        ),
        lines(
            "Transactions",
            "Transactions per second by outcome. After a failed one all partitions start over from their last "
            "checkpoints.",
            "suffix:/s",
            {"{{outcome}}": "sum by (outcome) (rate(tickcast_transactions_total{@}[$__rate_interval]))"},
        ),
        lines(
            "Ticks by outcome",
            "Ticks per second; catch_up are those that were replayed silently to restore states.",
            "suffix:/s",
            {"{{outcome}}": "sum by (outcome) (rate(tickcast_ticks_total{@}[$__rate_interval]))"},
        ),
        lines(
            "Lag by partition",
            "Ticks behind the end of the log, by the partition that they are in.",
            "suffix:ticks",
            {"{{partition}}": "sum by (partition) (tickcast_consumer_lag_ticks{@})"},
            thresholds=bad_from(1000),
        ),
        each(
            "Ticks from the future",
            "Ticks per second whose Kafka timestamp was ahead of our clock when they were committed.",
            "suffix:/s",
            "rate(tickcast_negative_latency_total{@}[$__rate_interval])",
            bad_from(1),
        ),
    ),
)

REBALANCES = Row(
    "Rebalances and restores",
    (
        lines(
            "Rebalances",
            "Changes of assignment, by kind. Lost partitions went to somebody else without our leave.",
            "suffix:rebalances",
            {"{{kind}}": "sum by (kind) (increase(tickcast_rebalances_total{@}[$__rate_interval]))"},
        ),
        each(
            "Assigned partitions",
            "Partitions that an instance owns.",
            "suffix:partitions",
            "tickcast_assigned_partitions{@}",
        ),
        each(
            "Still to restore",
            "Ticks still to replay before all partitions of an instance run.",
            "suffix:ticks",
            "tickcast_restore_remaining_ticks{@}",
            bad_from(1),
        ),
        lines(
            "Restores",
            "From a partition's assignment to its first live tick, since the processes started.",
            "s",
            {
                "p50": "histogram_quantile(0.5, sum by (le) (tickcast_restore_seconds_bucket{@}))",
                "p99": "histogram_quantile(0.99, sum by (le) (tickcast_restore_seconds_bucket{@}))",
            },
            thresholds=bad_from(30),
        ),
        lines(
            "Checkpoints",
            "Mean time of a transaction that holds a checkpoint.",
            "s",
            {
                "mean": "sum(rate(tickcast_checkpoint_seconds_sum{@}[5m])) "
                "/ sum(rate(tickcast_checkpoint_seconds_count{@}[5m]))"
            },
            thresholds=bad_from(1),
        ),
        each(
            "Snapshots",
            "Records written to the state topic per second.",
            "suffix:/s",
            "rate(tickcast_snapshots_total{@}[$__rate_interval])",
        ),
    ),
)

MEMORY = Row(
    "State and memory",
    (
        each("State", "Recurrent state in memory.", "bytes", "tickcast_state_bytes{@}"),
        each("Instruments", "Instruments with state.", "suffix:instruments", "tickcast_active_instruments{@}"),
        each(
            "Evictions",
            "States given up to make room for others, per second.",
            "suffix:/s",
            "rate(tickcast_evictions_total{@}[$__rate_interval])",
            bad_from(1),
        ),
        each("Resident memory", "Resident memory of the process.", "bytes", "process_resident_memory_bytes{@}"),
        each(
            "Processor",
            "Processor time; the loop is one thread, so about one processor is all it can use.",
            "percentunit",
            "rate(process_cpu_seconds_total{@}[$__rate_interval])",
            bad_from(0.9),
        ),
        each("Scrapes", "How long a scrape takes, with its way.", "s", "scrape_duration_seconds{@}", bad_from(0.05)),
        each(
            "Series",
            "Samples of one scrape; bounded whatever instruments come.",
            "suffix:samples",
            "scrape_samples_scraped{@}",
        ),
        each(
            "Beyond the calendar",
            "Ticks so far outside the span of their calendar, judged by the gap rule.",
            "suffix:ticks",
            "tickcast_beyond_calendar_ticks{@}",
            bad_from(1),
        ),
        each(
            "Confluent framing",
            "Ticks so far that came in Confluent's framing.",
            "suffix:ticks",
            "tickcast_confluent_framed_ticks{@}",
        ),
    ),
)

OPERATIONS = Dashboard(
    uid="tickcast-operations",
    title="tickcast / Operations",
    description="Batches, transactions, rebalances, restores, state, memory.",
    rows=(ALIVE, TRANSACTIONS, REBALANCES, MEMORY),
)
