"""The sections of docs/scaling.md: what `bench.scaling` measured, and what the model makes of it. Pure: no file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from typing import Any

from bench.scaling_model import Costs, Load, Needs, needs

#: What was measured, by part: what each benchmark printed.
Found = dict[str, Any]

LOADS = [(ticks, instruments) for ticks in (1e4, 1e5, 1e6) for instruments in (1e4, 1e6, 1e7)]
#: The default, and one for many instruments.
CHECKPOINT_SECONDS = (5.0, 60.0)
FEW, MILLION = 1000, 1_000_000
WIDTH = 118

#: The costs that the model is given: what they are, and how they are written.
COSTS = {
    "tick_us": ("a tick, without checkpoints", "{:.0f} us"),
    "snapshot_us": ("a snapshot written", "{:.0f} us"),
    "restored_us": ("a snapshot read and put back", "{:.0f} us"),
    "replayed_us": ("a tick replayed", "{:.0f} us"),
    "tick_bytes": ("a tick in the log", "{:,.0f} bytes"),
    "forecast_bytes": ("a forecast in the log", "{:,.0f} bytes"),
    "snapshot_bytes": ("a snapshot", "{:,.0f} bytes"),
    "process_mb": ("a process without instruments", "{:.0f} MB"),
    "instrument_bytes": ("an instrument in memory", "{:,.0f} bytes"),
    "hot_ticks": ("one instrument, at most", "{:,.0f} ticks/s"),
}
#: Where it breaks first, in this order.
BREAKS = (
    "**The state topic**, long before anything else. 10 million instruments at 1 million ticks/s write {often_mb} MB/s"
    " of snapshots with a checkpoint every {often} s, {seldom_mb} MB/s with one every {seldom} s, before any copy;"
    " ticks and forecasts are {stream_mb} MB/s. `checkpoint_seconds` is the remedy, a longer replay the price.",
    "**One instrument.** Its ticks go through one partition and one process, one after the other: {hot} ticks/s with"
    " {client} here. More processes do not change it, a faster core does.",
    "**One partition.** The same holds for all of its instruments together: {one} ticks/s. So there are at least as"
    " many partitions as processes, and keys that spread.",
    "**A restart.** {million_seconds} s for a process with a million instruments. The compacted topic of 10 million is"
    " {topic_gb} GB, and what is not compacted yet is read beside it.",
    "**Transactions.** {processes} processes of full batches commit {transactions} a second; batches that are not full"
    " make more and smaller ones, `min_batch_ms` makes fewer. Each names the partitions of its process in up to three"
    " topics and ends with a marker in every one. What coordinators bear was not measured.",
    "**The group.** {processes} members with {partitions} partitions are one consumer group with one coordinator. More"
    " than three members were not tried.",
)


def costs_of(kept: Found, client: str) -> Costs:
    """Put the costs of a client together from all that was measured."""
    of_client, sizes, starts = kept["costs"][client], kept["wide"]["sizes"], kept["start"]
    stages = starts[max(filter(str.isdecimal, starts), key=int)]["stages"]
    hot, few = (next(size for size in sizes if size["instruments"] == count) for count in (1, FEW))
    many = max(sizes, key=lambda size: size["instruments"])
    per_second = "records read, a second", "snapshots put back, a second", "ticks replayed, a second"
    read, put_back, replayed = (stages[name] for name in per_second)
    return Costs(
        tick_us=of_client["tick_us"],
        snapshot_us=of_client["snapshot_us"],
        restored_us=1e6 / read + 1e6 / put_back,
        replayed_us=1e6 / replayed,
        tick_bytes=of_client["tick_bytes"],
        forecast_bytes=of_client["forecast_bytes"],
        snapshot_bytes=many["snapshot, bytes"],
        process_mb=of_client["process_mb"],
        instrument_bytes=many["awake, bytes an instrument"],
        # Only the pipeline's part of a tick is another one when all ticks are of one instrument.
        hot_ticks=1e6 / (of_client["tick_us"] + few["us a tick"] * (hot["against few"] - 1)),
    )


def machine(kept: Found) -> str:
    """Say where the figures come from."""
    return fill(f"Measured {kept['machine']}; {kept['workers']['cores']} cores, which the broker shares.", WIDTH)


def wide(kept: Found) -> str:
    """Write what instruments cost in one process, and what stops it."""
    sizes = [size for size in kept["wide"]["sizes"] if size["instruments"] > FEW]
    each = [[f"{size['instruments']:,}", f"{size['partitions']}"] for size in sizes]
    columns = {
        "KB each, restored": ("rest, bytes an instrument", 1e-3, ".1f"),
        "KB each, all have ticked": ("awake, bytes an instrument", 1e-3, ".1f"),
        "resident, GB": ("resident, MB", 1e-3, ".1f"),
        "a tick, against 1,000": ("against few", 1.0, ".2f"),
    }
    costs = [[f"{size[name] * unit:{form}}" for name, unit, form in columns.values()] for size in sizes]
    kinds = list(sizes[0]["longest, ms"])
    stops = [[f"{size['longest, ms'][kind]:,.0f}" for kind in kinds] for size in sizes]
    first = table(["instruments", "partitions", *columns], [a + b for a, b in zip(each, costs, strict=True)])
    second = table(["instruments", "partitions", *kinds], [a + b for a, b in zip(each, stops, strict=True)])
    return f"{first}\n\nThe longest that each of these stopped the loop, milliseconds of processor time:\n\n{second}"


def start(kept: Found) -> str:
    """Write how long starts take."""
    head = ["instruments", "ready after", "of it reading", "putting back", "resident", "its peak"]
    rows = [
        [
            f"{int(count):,}",
            f"{each['ready_seconds']:.0f} s",
            f"{each['stages']['records read, seconds']:.0f} s",
            f"{each['stages']['snapshots put back, seconds']:.0f} s",
            f"{each['resident_mb'] / 1000:.1f} GB",
            f"{each['peak_resident_mb'] / 1000:.1f} GB",
        ]
        for count, each in kept["start"].items()
        if count.isdecimal()
    ]
    return table(head, rows)


def workers(kept: Found) -> str:
    """Write throughput by workers."""
    rows = [
        [count, f"{each['ticks/s']:,.0f}", f"{each['against']:.2f}", f"{each['cpu us a tick']:.0f} us"]
        for count, each in kept["workers"].items()
        if count.isdecimal()
    ]
    return table(["workers", "ticks/s", "against one", "processor time a tick"], rows)


def costs(kept: Found) -> str:
    """Write the costs that the model is given."""
    clients = {client: costs_of(kept, client) for client in kept["costs"]}
    rows = [
        [what, *(form.format(getattr(each, name)) for each in clients.values())] for name, (what, form) in COSTS.items()
    ]
    return table(["what", *clients], rows)


def loads(kept: Found) -> str:
    """Write what loads need."""
    parts = [
        f"With {client} and `checkpoint_seconds = {seconds:.0f}`:\n\n{needs_table(seconds, costs_of(kept, client))}"
        for client in kept["costs"]
        for seconds in CHECKPOINT_SECONDS
    ]
    return "\n\n".join(parts)


def needs_table(checkpoint_seconds: float, costs: Costs) -> str:
    """Write one table of needs."""
    columns = {
        "processes": lambda found: f"{found.processes:,}",
        "partitions": lambda found: f"{found.partitions:,}",
        "memory": lambda found: f"{found.memory_mb / 1000:,.1f} GB",
        "snapshots' share": lambda found: f"{found.snapshot_cores / (found.tick_cores + found.snapshot_cores):.0%}",
        "state, MB/s": lambda found: f"{found.state_mb:,.0f}",
        "brokers in, out, MB/s": lambda found: f"{found.broker_in_mb:,.0f}, {found.broker_out_mb:,.0f}",
        "transactions/s": lambda found: f"{found.transactions:,.0f}",
        "restart": lambda found: f"{found.restore_seconds:,.0f} s",
        "hand-over": lambda found: f"{found.rebalance_seconds:,.0f} s",
    }
    rows = []
    for ticks, instruments in LOADS:
        found: Needs = needs(Load(ticks, instruments, checkpoint_seconds), costs)
        rows.append([f"{ticks:,.0f}", f"{instruments:,.0f}", *(text(found) for text in columns.values())])
    return table(["ticks/s", "instruments", *columns], rows)


def breaks(kept: Found) -> str:
    """Write where it breaks first, with the client that costs least."""
    client, costs = min(((name, costs_of(kept, name)) for name in kept["costs"]), key=lambda each: each[1].tick_us)
    often, seldom = (needs(Load(1e6, 1e7, seconds), costs) for seconds in CHECKPOINT_SECONDS)
    facts: Mapping[str, str] = {
        "client": client,
        "often": f"{CHECKPOINT_SECONDS[0]:.0f}",
        "seldom": f"{CHECKPOINT_SECONDS[1]:.0f}",
        "often_mb": f"{often.state_mb:,.0f}",
        "seldom_mb": f"{seldom.state_mb:,.0f}",
        "stream_mb": f"{costs.tick_bytes + costs.forecast_bytes:,.0f}",  # a million a second
        "hot": f"{costs.hot_ticks:,.0f}",
        "one": f"{1e6 / costs.tick_us:,.0f}",
        "million_seconds": f"{MILLION * costs.restored_us / 1e6:,.0f}",
        "topic_gb": f"{seldom.topic_mb / 1000:,.0f}",
        "processes": f"{seldom.processes:,}",
        "partitions": f"{seldom.partitions:,}",
        "transactions": f"{seldom.transactions:,.0f}",
    }
    lines = (fill(f"{n}. {line.format(**facts)}", WIDTH, subsequent_indent="   ", break_on_hyphens=False)
             for n, line in enumerate(BREAKS, 1))  # fmt: skip
    return "\n".join(lines)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; all columns are numbers."""
    lines = [head, ["---:"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


SECTIONS = {each.__name__: each for each in (machine, wide, start, workers, costs, loads, breaks)}
