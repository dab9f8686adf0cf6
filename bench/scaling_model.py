"""What a load needs, reckoned from what was measured on one machine. Pure: no clock, no file.

Everything is a product of a few measured costs; nothing in it is fitted. Instruments tick at random and alike: where
few of many make most ticks, fewer snapshots are written. What was never measured is left out: networks, disks and the
brokers' own processors.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, expm1


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured, of one client."""

    #: Processor time of one core, microseconds: of a tick without checkpoints, of a snapshot that is written, of one
    #: that is read and put back, of a tick that is replayed.
    tick_us: float
    snapshot_us: float
    restored_us: float
    replayed_us: float
    #: Bytes in the log, as the producers compress them: of a tick, a forecast, a snapshot.
    tick_bytes: float
    forecast_bytes: float
    snapshot_bytes: float
    #: Resident memory: of a process without instruments, of an instrument.
    process_mb: float
    instrument_bytes: float
    #: Ticks of one instrument in one process, a second: no number of processes makes it more.
    hot_ticks: float


@dataclass(frozen=True, slots=True)
class Load:
    """What there is to do, and the settings that decide what it takes."""

    ticks: float
    instruments: float
    checkpoint_seconds: float = 5.0
    #: Copies that the cluster keeps of every record, and readers of the forecasts beside.
    replication: int = 3
    readers: int = 1
    #: Share of a core that a process is to use in the mean: the rest is for bursts and for who takes over.
    busy: float = 0.6
    #: Memory that a process may have.
    process_mb_max: float = 8_000.0
    #: Live ticks of a process wait while it writes the checkpoint of a partition; for so long at most.
    stop_seconds: float = 0.25
    #: Ticks of a transaction; `max_batch_ticks` bounds it.
    batch_ticks: float = 2_000.0


@dataclass(frozen=True, slots=True)
class Needs:
    """What it takes. A second means: per second."""

    #: Each has a core of its own.
    processes: int
    #: At least as many as processes, and so many that no checkpoint takes too long.
    partitions: int
    #: Cores in use: ticks and snapshots.
    tick_cores: float
    snapshot_cores: float
    memory_mb: float
    #: Snapshots a second, and how much of all that the brokers take in they are, in MB a second, without copies.
    snapshots: float
    state_mb: float
    #: What the brokers take in and give out, copies and readers included, MB a second.
    broker_in_mb: float
    broker_out_mb: float
    #: Transactions a second, and state in the compacted topic, MB.
    transactions: float
    topic_mb: float
    #: From a start to the first tick answered: snapshots read, the ticks since the last checkpoint replayed.
    restore_seconds: float
    #: How long the partitions that move stand still when one more process comes.
    rebalance_seconds: float


def needs(load: Load, costs: Costs) -> Needs:
    """Return what a load needs."""
    saved = touched(load.ticks * load.checkpoint_seconds, load.instruments)
    snapshots = saved / load.checkpoint_seconds
    tick_cores = load.ticks * costs.tick_us / 1e6
    snapshot_cores = snapshots * costs.snapshot_us / 1e6
    state_mb = snapshots * costs.snapshot_bytes / 1e6
    instruments_mb = load.instruments * costs.instrument_bytes / 1e6
    processes = max(
        1,
        ceil((tick_cores + snapshot_cores) / load.busy),
        ceil(instruments_mb / (load.process_mb_max - costs.process_mb)),
    )
    ticks_mb, forecasts_mb = load.ticks * costs.tick_bytes / 1e6, load.ticks * costs.forecast_bytes / 1e6
    written_mb = ticks_mb + forecasts_mb + state_mb
    return Needs(
        processes=processes,
        partitions=max(processes, ceil(saved * costs.snapshot_us / 1e6 / load.stop_seconds)),
        tick_cores=tick_cores,
        snapshot_cores=snapshot_cores,
        memory_mb=processes * costs.process_mb + instruments_mb,
        snapshots=snapshots,
        state_mb=state_mb,
        broker_in_mb=load.replication * written_mb,
        broker_out_mb=(load.replication - 1) * written_mb + ticks_mb + load.readers * forecasts_mb,
        transactions=load.ticks / load.batch_ticks,
        topic_mb=load.instruments * costs.snapshot_bytes / 1e6,
        restore_seconds=restore_seconds(load, costs, 1 / processes),
        rebalance_seconds=restore_seconds(load, costs, 1 / (processes + 1)),
    )


def touched(ticks: float, instruments: float) -> float:
    """Return how many of the instruments have ticked after so many ticks that are drawn at random."""
    return -instruments * expm1(-ticks / instruments)


def restore_seconds(load: Load, costs: Costs, share: float) -> float:
    """Return how long one process takes to bring up a share of all instruments.

    The last checkpoint is half its interval old in the mean. What comes meanwhile is left out.
    """
    replayed = load.ticks * load.checkpoint_seconds / 2
    return share * (load.instruments * costs.restored_us + replayed * costs.replayed_us) / 1e6
