"""Runs every benchmark and writes their figures into the README, between its markers.

python -m bench.figures README.md --ticks FILE
python -m bench.figures README.md --ticks FILE --quick     a check: everything small and once, printed, not written
python -m bench.figures README.md --ticks FILE --only recovery page     these alone, the other rows stay as they are
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from bench.rig import CLIENTS, machine, write_section
from daemon.compiled import is_compiled

NOTE = (
    "2 x LSTM(64), the 14 default features, 4 horizons; one process, one broker, 2 cores shared by all of it. The"
    " ratio is what carries over to other machines: the bare loop consumes the same ticks and produces as many"
    " records as large, without transactions. Measured {machine}; `python -m bench.figures README.md --ticks FILE`"
    " measures all of it again."
)


#: Stands in rows that were measured after `make compile`.
COMPILED = ", compiled"


class Row(NamedTuple):
    """One line of the table."""

    what: str
    figure: str
    command: str


def run(module: str, *arguments: str) -> dict[str, Any]:
    """Run one benchmark as its own process, and return what it prints."""
    print(f"{module} ...", file=sys.stderr)
    done = subprocess.run([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def throughput(ticks: Path, quick: bool) -> list[Row]:
    """Measure each client against its bare loop, and one against the other."""
    found = run("bench.throughput", "--ticks", str(ticks), *(["--count", "20000", "--rounds", "1"] if quick else []))
    commands = {"500 instruments": "python -m bench.throughput", "real file": "python -m bench.throughput --ticks FILE"}
    rows = [
        Row(
            f"throughput, exactly once, of a bare {client} loop's: {ticks_of}{state()}",
            f"{each['ratio']:.0%} ({each['tickcast']:,.0f} of {each['bare']:,.0f} ticks/s)",
            command,
        )
        for client in CLIENTS
        for ticks_of, command in commands.items()
        for each in [found[ticks_of][client]]
    ]
    name = f"{CLIENTS[-1]} to {CLIENTS[0]}"
    ratios = " / ".join(f"{found[ticks_of][name]:.1f}" for ticks_of in commands)
    return [
        *rows,
        Row(
            f"throughput, exactly once, {name}: 500 instruments / real file{state()}",
            ratios,
            list(commands.values())[1],
        ),
    ]


def latency(_: Path, quick: bool) -> list[Row]:
    """Measure latency by each client, beside its bare relay."""
    found = run("bench.latency", *(["--rounds", "1", "--seconds", "3"] if quick else []))
    return [
        Row(
            f"end to end at {found['rate']:,} ticks/s, committed, {client}: p50, p90, p99; its bare relay",
            f"{percentiles(found[client]['tickcast'])}; {percentiles(found[client]['bare relay'])}",
            "python -m bench.latency",
        )
        for client in CLIENTS
    ]


def checkpoints(_: Path, quick: bool) -> list[Row]:
    """Measure what checkpoints cost, and latency with and without them."""
    rounds = ["--rounds", "1", "--seconds", "3"] if quick else []
    found = run("bench.checkpoints", "--instruments", "1000", *rounds)
    if not quick:  # so many instruments cost far more than the rounds differ by
        found |= run("bench.checkpoints", "--instruments", "10000", "100000", "--rounds", "1", "--no-latency")
    latency, command = found.pop("latency"), "python -m bench.checkpoints"
    costs = {int(name): each for name, each in found.items() if name.isdecimal()}
    return [
        Row(
            "throughput that checkpoints cost, every 5 s: " + " / ".join(f"{n:,}" for n in costs) + " instruments",
            " / ".join(f"{each['cost']:.1%}" for each in costs.values())
            + " (of " + " / ".join(f"{each['without']:,.0f}" for each in costs.values()) + " ticks/s)",
            command,
        ),
        Row(
            f"end to end at {latency['rate']:,} ticks/s, committed, 1,000 instruments a partition: p50, p90, p99",
            percentiles(latency["with"]),
            command,
        ),
        Row("the same without checkpoints", percentiles(latency["without"]), command),
        Row(
            "the same through a bare exactly-once relay in kafka-python, the floor of client and machine",
            percentiles(latency["bare relay"]),
            command,
        ),
    ]  # fmt: skip


def scoring(ticks: Path, quick: bool) -> list[Row]:
    """Measure what scoring and intervals cost the pipeline, without Kafka."""
    sizes = ["--count", "10000", "--rounds", "1"] if quick else []
    found = run("bench.scoring", "--ticks", str(ticks), *sizes)
    return [
        Row(
            f"throughput of the pipeline, without Kafka, that scoring costs: {name}; that scoring and intervals cost",
            f"{1 - each['throughput against fixed']:.0%}; {1 - each['throughput against without']:.0%} "
            f"({each['scored, us a tick']:.1f} us a tick)",
            "python -m bench.scoring --ticks FILE",
        )
        for name, each in ((name, found[name]) for name in ("500 instruments", "real file"))
    ]


def recovery(_: Path, quick: bool) -> list[Row]:
    """Measure restarts after `kill -9`."""
    found = run("bench.recovery", *(["--instruments", "10000", "--rounds", "1"] if quick else ["--rounds", "2"]))
    sizes = {int(name): each for name, each in found.items() if name.isdecimal()}
    command = "python -m bench.recovery"
    rows = [
        Row(
            f"`kill -9` inside a transaction at {found['rate']:,} ticks/s, restart: first new committed forecast of any"
            f" partition, of the last one; {instruments:,} instruments",
            f"{each['from the kill']:.1f} s, {each['from the kill, partition 4']:.1f} s",
            command,
        )
        for instruments, each in sizes.items()
    ]
    memory = (f"{n:,}: {each['resident_mb']:.0f} MB, {each['peak_resident_mb']:.0f} MB" for n, each in sizes.items())
    return [*rows, Row("resident memory after it, and its peak, by instruments", "; ".join(memory), command)]


def handover(_: Path, quick: bool) -> list[Row]:
    """Measure planned hand-overs."""
    found = run("bench.handover", "--rounds", "1" if quick else "3")
    command = "python -m bench.handover"

    def row(change: str, what: str) -> Row:
        moves, stays = found[f"{change}: move"], found[f"{change}: stay"]
        figure = ", ".join(f"{each['median']:.2f} s (worst {each['worst']:.2f} s)" for each in (moves, stays))
        return Row(what, figure, command)

    return [
        row("joins", "a second instance joins: longest gap of partitions that move, of those that stay"),
        row("leaves", "it leaves on SIGTERM: the same"),
        Row("the longest gap while nothing happens", f"{found['quiet']['median']:.2f} s", command),
    ]


def switching(_: Path, quick: bool) -> list[Row]:
    """Measure what a promotion costs those who listen."""
    found = run("bench.switching", *(["--instruments", "1000", "--rounds", "1"] if quick else []))
    gap, took = found["longest gap, switch"], found["promoted to taken over"]
    return [
        Row(
            f"another model takes over, {found['instruments']:,} instruments: longest gap, from promoted to taken over",
            f"{gap['median']:.2f} s (worst {gap['worst']:.2f} s), {took['median']:.0f} s",
            "python -m bench.switching",
        )
    ]


def scrape(_: Path, quick: bool) -> list[Row]:
    """Measure scrapes."""
    (found,) = run("bench.scrape", "--instruments", "500" if quick else "5000")["scrapes"]
    text = found["text"]
    return [
        Row(
            f"a scrape with {found['instruments']:,} instruments: series, time, the longest of 30",
            f"{found['series']}, {text['median_ms']:.0f} ms, {text['worst_ms']:.0f} ms",
            "python -m bench.scrape",
        )
    ]


def page(_: Path, quick: bool) -> list[Row]:
    """Measure the live page."""
    found = run("bench.page", *(["--visits", "1", "--seconds", "3"] if quick else []))
    ticks = f"{found['ticks_per_second']:,.0f} ticks/s and {found['forecasts_per_second']:,.0f} forecasts/s"
    return [
        Row(
            f"live page at {ticks}: first paint, first forecast on it",
            f"{found['first_paint_ms'] / 1000:.2f} s, {found['first_forecast_ms'] / 1000:.2f} s",
            "python -m bench.page",
        ),
        Row(
            "the same, open: frames a second, 99th percentile of their times; sent to it; its server, of one core",
            f"{found['frames_per_second']:.0f}, {found['frame_ms_p99']:.0f} ms;"
            f" {found['bytes_per_second'] / 1000:.0f} kB/s; {found['server_cores_with_page']:.2f}",
            "python -m bench.page",
        ),
    ]


def start(_: Path, quick: bool) -> list[Row]:
    """Measure the start of a daemon without any past."""
    found = run("bench.start", *(["--rounds", "1"] if quick else []))
    figure = f"{found['ready_seconds']:.1f} s, {found['resident_mb']:.0f} MB"
    return [Row("`tickcast run`: ready after, resident memory", figure, "python -m bench.start")]


def real(ticks: Path, quick: bool) -> list[Row]:
    """Count outcomes of real ticks; the training takes two minutes, so not in a hurry."""
    if quick:
        return []
    found = run("bench.real_ticks", str(ticks))
    equal = "equal" if found["payloads equal"] else "NOT equal"
    command = "python -m bench.real_ticks FILE"
    return [
        Row(
            "real ticks through Kafka, a model trained on their first half: outcomes of ticks",
            f"{found['outcomes']:,} of {found['ticks']:,}",
            command,
        ),
        Row(
            f"payloads of the first {found['one by one']:,}, one tick a batch against 2,000",
            f"{equal}, byte for byte",
            command,
        ),
    ]


SECTIONS: tuple[Callable[[Path, bool], list[Row]], ...] = (
    throughput,
    latency,
    scoring,
    checkpoints,
    recovery,
    handover,
    switching,
    start,
    scrape,
    page,
    real,
)


def measured(sections: Iterable[Callable[[Path, bool], list[Row]]], ticks: Path, quick: bool) -> list[str]:
    """Run benchmarks and return their rows."""
    rows = [row for section in sections for row in section(ticks, quick)]
    return [f"| {what} | {figure} | `{command}` |" for what, figure, command in rows]


def table(lines: Sequence[str]) -> str:
    """Write the section."""
    head = ["\n## Figures\n", NOTE.format(machine=machine(CLIENTS)), "\n| what | figure | command |\n|---|---|---|"]
    return "\n".join([*head, *lines, "\n"])


def replaced(old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Return the old rows with new ones in the place of those of the same kind; others come last."""
    lines = list(old)
    for kind, rows in groupby(new, kind_of):
        places = [at for at, line in enumerate(lines) if kind_of(line) == kind]
        at = places[0] if places else len(lines)
        lines = [line for line in lines if kind_of(line) != kind]
        lines[at:at] = rows
    return lines


def kind_of(line: str) -> tuple[str, bool]:
    """Return the command in the last column of a row, without its options, and whether the core was compiled."""
    return line.rpartition("python -m ")[2].split()[0].strip("`"), COMPILED in line


def state() -> str:
    """Return what stands in rows for which it matters whether the core is compiled."""
    return COMPILED if is_compiled() else ""


def percentiles(found: dict[str, float]) -> str:
    """Write p50, p90 and p99."""
    return ", ".join(f"{found[p]:.1f}" for p in ("p50", "p90", "p99")) + " ms"


def main() -> None:
    """Write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("--ticks", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[section.__name__ for section in SECTIONS], metavar="NAME")
    options = parser.parse_args()
    chosen = [section for section in SECTIONS if not options.only or section.__name__ in options.only]
    lines = measured(chosen, options.ticks, options.quick)
    if options.only:
        old = options.document.read_text("utf-8").partition("<!-- figures -->")[2].partition("<!-- /figures -->")[0]
        lines = replaced([line for line in old.splitlines() if "`python -m bench." in line and line[0] == "|"], lines)
    if options.quick:
        print(table(lines))
    else:
        write_section(options.document, "figures", table(lines))


if __name__ == "__main__":
    main()
