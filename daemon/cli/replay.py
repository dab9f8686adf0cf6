"""`tickcast replay`: ticks of a file into a topic."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from daemon.dev.replay import TickProducer

#: Seconds between two plain lines of progress where no terminal is.
PLAIN_SECONDS = 5.0


def replay(
    files: Annotated[list[Path], typer.Argument(help="Tick files: .csv, .jsonl (also .gz) or .parquet.")],
    topic: Annotated[str | None, typer.Option(help="Topic to write to; default: the settings' topics.ticks.")] = None,
    speed: Annotated[float, typer.Option(min=0, help="0 as fast as it goes, 1 real time, N times real time.")] = 0.0,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Brokers, host:port; overrides the settings.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
    instruments: Annotated[str, typer.Option(help="Only instruments that match this glob.")] = "*",
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many ticks.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Put the ticks of files into a topic, in their order, keyed by instrument.

    Example: tickcast replay ticks.csv.gz --topic ticks --speed 10
    """
    from daemon.config import load_settings
    from daemon.dev.replay import TickProducer, paced
    from daemon.tick_files import read_ticks
    from daemon.transport.connection import Connection

    overrides = {"kafka": {"bootstrap_servers": bootstrap_servers}} if bootstrap_servers else None
    settings = load_settings(config, overrides)
    ticks = read_ticks(files, in_order=False)
    chosen = (tick for tick in ticks if fnmatchcase(tick["instrument"], instruments))
    topic = topic or settings.topics.ticks
    producer = TickProducer(Connection.from_settings(settings.kafka), topic)
    began, stopped = time.monotonic(), False
    try:
        _send(producer, _shown(paced(islice(chosen, limit), speed), limit))
    except KeyboardInterrupt:
        stopped = True
        producer.flush()
    finally:
        producer.close()
    _report(producer.acknowledged_count, topic, time.monotonic() - began, stopped=stopped, as_json=as_json)
    if stopped:
        raise typer.Exit(130)


def _send(producer: TickProducer, ticks: Iterable[Mapping[str, Any]]) -> None:
    for tick in ticks:
        producer.send(tick)
    producer.flush()


def _report(count: int, topic: str, seconds: float, *, stopped: bool, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"ticks": count, "topic": topic, "seconds": round(seconds, 3), "stopped": stopped}))
    else:
        print(f"{count} ticks in topic {topic} after {seconds:.1f} s{' (stopped early)' if stopped else ''}")


def _shown(ticks: Iterable[Mapping[str, Any]], limit: int | None) -> Iterator[Mapping[str, Any]]:
    """Pass ticks through and show how many went by: a bar on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield from _shown_plainly(ticks)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TextColumn("ticks"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(ticks, total=limit, description="replay")


def _shown_plainly(ticks: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    due = time.monotonic() + PLAIN_SECONDS
    for count, tick in enumerate(ticks):
        if count % 256 == 0 and time.monotonic() >= due:
            print(f"replay: {count} ticks sent", file=sys.stderr)
            due = time.monotonic() + PLAIN_SECONDS
        yield tick
