"""Writes what a run found into the documents: a table, plots, and how tickcast stands to each peer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.peers import plots
from bench.peers.contestants import CHECKOUT, EXACTLY
from bench.rig import write_section

PAGE = CHECKOUT / "docs" / "peers.md"
README = CHECKOUT / "README.md"
IMAGES = CHECKOUT / "docs" / "images"
#: Half of all ticks later than this: it no longer follows, and the figure would say how long it was watched.
BEHIND_MS = 1000.0

Line = Mapping[str, Any]


def report(results: Path) -> None:
    """Write page and plots; into the README, too, where it has a section for it."""
    found = json.loads(results.read_text("utf-8"))
    if found["quick"]:
        raise SystemExit(f"{results} is of a quick run, whose figures mean nothing; measure without --quick")
    lines = found["lines"]
    (IMAGES / "peers-throughput.svg").write_text(plots.throughput(lines), "utf-8")
    (IMAGES / "peers-latency.svg").write_text(plots.latency(lines, "1000"), "utf-8")
    write_section(PAGE, "peers", page(found["machine"], lines))
    if "<!-- peers -->" in README.read_text("utf-8"):
        write_section(README, "peers", summary(found["machine"], lines))


def page(machine: str, lines: Sequence[Line]) -> str:
    """Return the section of the page."""
    head = (
        "| | guarantee | ticks/s | at 1,000 ticks/s: p50, p99, p99.9 | at 10,000 ticks/s | CPU s a million ticks "
        "| peak MB | `kill -9`: first forecast, every partition | ticks missing, repeated, from a wrong state |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    parts = [
        f"Measured {machine}.",
        "![Ticks per second of every contestant](images/peers-throughput.svg)",
        "![Latency of every contestant at 1,000 ticks/s](images/peers-latency.svg)",
        "\n".join([head, *map(_row, lines)]),
        "\n".join(f"- {each}" for each in comparisons(lines)),
    ]
    return "\n" + "\n\n".join(parts) + "\n\n"


def summary(machine: str, lines: Sequence[Line]) -> str:
    """Return the section of the README."""
    rows = [
        f"| {line['name']}, {line['setting']} | {line['guarantee']} | {line['ticks_per_second']:,.0f} "
        f"| {_latency(line, '1000')} | {_seconds(line)} |"
        for line in lines
    ]
    head = (
        "| | guarantee | ticks/s | at 1,000 ticks/s: p50, p99, p99.9 | `kill -9`: first forecast, every partition |\n"
        "|---|---|---|---|---|"
    )
    note = f"The same model and ticks, one process each, one broker. Measured {machine}; [more](docs/peers.md)."
    return "\n" + "\n\n".join(["\n".join([head, *rows]), note]) + "\n\n"


def comparisons(lines: Sequence[Line]) -> Iterator[str]:
    """Say how the clients of tickcast stand to the best setting of every other that is exactly once."""
    ours = [line for line in lines if line["name"] == "tickcast"]
    others = [line for line in lines if line["name"] != "tickcast" and line["guarantee"] == EXACTLY]
    for name in dict.fromkeys(line["name"] for line in others):
        best = max((line for line in others if line["name"] == name), key=lambda line: line["ticks_per_second"])
        for line in ours:
            ratio = line["ticks_per_second"] / best["ticks_per_second"]
            less = best["cpu_seconds_per_million_ticks"] / line["cpu_seconds_per_million_ticks"]
            yield (
                f"tickcast, {line['setting']}: {ratio:.1f} times the ticks/s of {name} at its best "
                f"({best['setting']}), both exactly once; {less:.1f} times the ticks a CPU second."
            )


def _row(line: Line) -> str:
    after = line["in_all"]
    cells = [
        f"{line['name']}, {line['setting']}",
        line["guarantee"],
        f"{line['ticks_per_second']:,.0f}",
        _latency(line, "1000"),
        _latency(line, "10000"),
        f"{line['cpu_seconds_per_million_ticks']:,.0f}",
        f"{line['peak_megabytes']:,.0f}",
        _seconds(line),
        f"{after['missing']:,}, {after['repeated']:,}, {after['wrong_state']:,} of {after['ticks']:,}",
    ]
    return "| " + " | ".join(cells) + " |"


def _latency(line: Line, rate: str) -> str:
    found = line["latency"][rate]
    if found is None:
        return "cannot"
    if found["p50"] > BEHIND_MS:
        return "falls behind"
    return ", ".join(f"{value:,.1f}" if value < 100 else f"{value:,.0f}" for value in found.values()) + " ms"


def _seconds(line: Line) -> str:
    found = line["recovery"]
    seconds = (found["first_seconds"], found["every_partition_seconds"])
    return ", ".join("not seen" if each is None else f"{each:.1f} s" for each in seconds)
