"""`tickcast audit`: whether the published forecasts are those that the ticks lead to, byte for byte."""

from __future__ import annotations

import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.topics import ConfigFile, Servers, load

if TYPE_CHECKING:
    from daemon.assembly import Engine
    from daemon.config import Settings
    from daemon.core.marker import Marker
    from daemon.tools.audit import Window
    from daemon.tools.audit_start import Setting
    from daemon.tools.state_export import Export
    from daemon.tools.verdict import Findings
    from daemon.transport.connection import Connection
    from daemon.transport.port import Readable, Reader

#: Seconds between two plain lines of progress where no terminal is.
PLAIN_SECONDS = 5.0
#: As in `tickcast run`: a slice makes many objects and frees them without the collector.
GC_THRESHOLD = 50_000
COLUMNS = (
    "partition",
    "ticks",
    "forecasts equal",
    "different",
    "dead letters equal",
    "different",
    "missing",
    "twice",
    "astray",
    "not judged",
    "of instruments",
    "resets taken over",
)

Progress = Callable[[int], None]


def audit(
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="OFFSET|TIME", help="First tick to compare: offset, or ISO time of its record."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", metavar="OFFSET|TIME", help="First tick that is no longer compared.")
    ] = None,
    partition: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this partition; may be given more than once.")
    ] = None,
    snapshot: Annotated[
        Path | None, typer.Option(help="Begin with the states of this file, made by `tickcast state export`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run the ticks again and compare every published forecast byte for byte; exit 1 where one differs.

    States begin with the file given by --snapshot, else with the partition's first tick, else with the resets of each
    instrument; --from and --to only bound what is compared. It writes nothing and disturbs no running group.

    Example: tickcast audit --config tickcast.toml --from 2024-08-08T09:00:00Z
    """
    from daemon.tools.state_export import read_export
    from daemon.tools.verdict import total

    window = _window(begin, end)
    settings = load(config, bootstrap_servers)
    export = None if snapshot is None else read_export(snapshot)
    began, run_count = time.monotonic(), 0
    with _shown() as show:

        def count(ticks: int) -> None:
            nonlocal run_count
            run_count += ticks
            show(ticks)

        found = _audit(settings, window, partition, export, count)
    whole, seconds = total(found), time.monotonic() - began
    speed = round(run_count / max(seconds, 1e-9))
    if as_json:
        measured = {"run_ticks": run_count, "seconds": round(seconds, 3), "ticks_per_second": speed}
        each = [one.as_json() for one in found]
        typer.echo(json.dumps({"passed": whole.passed, "total": whole.as_json(), "partitions": each, **measured}))
    else:
        typer.echo(_as_text(found, whole))
        typer.echo(f"{run_count} ticks run in {seconds:.1f} s, {speed} ticks/s")
    _raise_verdict(whole)


def _audit(
    settings: Settings, window: Window, chosen: Sequence[int] | None, export: Export | None, progress: Progress
) -> list[Findings]:
    """Judge one partition after the other."""
    from daemon.assembly import build_engine, tick_decoder
    from daemon.tools.audit import Logs, audit_partition
    from daemon.tools.published import TopicLog
    from daemon.transport.connection import Connection
    from daemon.transport.kafka_reader import KafkaReader

    connection, topics = Connection.from_settings(settings.kafka), settings.topics
    engine, decoder = build_engine(settings), tick_decoder(settings)
    # One consumer a topic: one that went back and forth would throw away what it fetched ahead.
    named: list[dict[Readable, str]] = [
        {"ticks": topics.ticks, "state": topics.state},
        {"forecasts": topics.forecasts},
        {"dead_letters": topics.dead_letters},
    ]
    wait = settings.kafka.broker_timeout_seconds
    ticks, forecasts, letters = readers = [KafkaReader(connection, names, timeout_seconds=wait) for names in named]
    outcomes = {"forecast": TopicLog(forecasts, "forecasts"), "dead_letter": TopicLog(letters, "dead_letters")}
    logs = Logs(TopicLog(ticks, "ticks"), outcomes, topics.ticks)  # type: ignore[arg-type]
    try:
        known = list(_known(settings, connection, ticks, chosen, export))
        _take_model(engine, known)
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 20)
        return [
            audit_partition(
                engine.pipeline, decoder, replace(setting, revision=engine.revision), logs, window, progress
            )
            for setting in known
        ]
    finally:
        for reader in readers:
            reader.close()


def _known(
    settings: Settings,
    connection: Connection,
    reader: Reader,
    chosen: Sequence[int] | None,
    export: Export | None,
) -> Iterator[Setting]:
    """Yield what is known of each partition; the committed offsets first, since outcomes go on being published."""
    from daemon.errors import SettingsError
    from daemon.tools.audit_start import Setting
    from daemon.transport.admin_line import AdminLine
    from daemon.transport.group import read_group
    from daemon.transport.kafka_topic import find_topic_id

    kafka, topic = settings.kafka, settings.topics.ticks
    committed = {row.partition: row.committed for row in read_group(connection, kafka.group_id, topic).partitions}
    admin = AdminLine(connection)
    try:
        wait = kafka.broker_timeout_seconds
        topic_id = admin.ask(lambda client: find_topic_id(client, topic), f"asking for the topic {topic}", wait) or ""
    finally:
        admin.close()
    for partition in sorted(set(chosen)) if chosen else sorted(committed):
        if partition not in committed:
            raise SettingsError(f"--partition {partition}: topic {topic} has the partitions 0 to {len(committed) - 1}")
        yield Setting(
            partition,
            kafka.group_id,
            topic_id,
            "",
            reader.bounds("ticks", partition)[0],
            committed[partition],
            _marker(reader, partition),
            None if export is None else export.partitions.get(partition),
        )


def _take_model(engine: Engine, known: Sequence[Setting]) -> None:
    """Take the bundle that most states are of, where the group runs another than the settings name.

    One that is not on this machine leaves the states of another revision, and each partition says so.
    """
    from daemon.core.marker import MarkerError
    from daemon.errors import BundleError

    models: Counter[str] = Counter()
    for setting in known:
        with suppress(MarkerError):  # the partition says what is wrong with it
            marker = setting.marker if setting.exported is None else setting.exported.marker()
            if marker is not None and marker.model:
                models[marker.model] += 1
    if models and engine.model.id not in models:
        with suppress(BundleError):
            engine.take(models.most_common(1)[0][0])


def _marker(reader: Reader, partition: int) -> Marker | None:
    from daemon.core.marker import MarkerError
    from daemon.errors import TopicError
    from daemon.tools.state_topic import newest_marker

    try:
        return newest_marker(reader, partition)
    except MarkerError as error:
        raise TopicError(
            f"the marker of partition {partition} in the state topic: {error}; audit with the release that wrote it"
        ) from error


def _window(begin: str | None, end: str | None) -> Window:
    from daemon.tools.audit import Window
    from daemon.tools.published import NO_END

    from_offset, from_ms = _bound(begin, "--from")
    to_offset, to_ms = _bound(end, "--to")
    return Window(from_offset or 0, NO_END if to_offset is None else to_offset, from_ms, to_ms)


def _bound(text: str | None, option: str) -> tuple[int | None, int | None]:
    """Return an offset, or a time in ms since the epoch."""
    if text is None:
        return None, None
    if text.isascii() and text.isdigit():
        return int(text), None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = datetime.min  # noqa: DTZ901 - naive, and refused as such
    if time.tzinfo is None:
        raise typer.BadParameter(f"{option} {text!r} is neither an offset nor a time like 2024-08-08T09:00:00Z")
    return None, round(time.timestamp() * 1000)


# --- what is shown ----------------------------------------------------------------------------------------------------


def _as_text(found: Sequence[Findings], whole: Findings) -> str:
    rows = [COLUMNS, *(_row(one, str(one.partition)) for one in found), _row(whole, "all")]
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += [f"partition {one.partition}: {one.line}" for one in found]
    if whole.not_judged:
        lines.append("where not all states are known, evictions are not judged, only followed")
    if whole.not_retained:
        lines.append(f"{whole.not_retained} ticks: their outcomes are no longer retained")
    if whole.earlier:
        lines.append(f"{whole.earlier} outcomes of states that the group gave up when it was set back are passed over")
    if whole.first_fault is not None:
        lines += ["the first fault:", *whole.first_fault.lines()]
    return "\n".join(lines)


def _row(one: Findings, name: str) -> tuple[str, ...]:
    numbers = (
        one.ticks,
        one.equal["forecast"],
        one.different["forecast"],
        one.equal["dead_letter"],
        one.different["dead_letter"],
        one.missing,
        one.twice,
        one.astray_count,
        one.not_judged,
        one.instruments_not_judged,
        one.resets_taken_over,
    )
    return (name, *map(str, numbers))


def _raise_verdict(whole: Findings) -> None:
    from daemon.errors import TickcastError

    if whole.fault_count:
        count = whole.fault_count
        what = f"{count} outcome is" if count == 1 else f"{count} outcomes are"
        where = "" if whole.first_fault is None else f" (partition {whole.first_fault.partition})"
        raise TickcastError(
            f"{what} not what the ticks lead to{where}; keep the topics, and audit on another machine: if it finds the "
            "same, the daemon or somebody else wrote it"
        )
    if not whole.judged:
        raise TickcastError(
            "nothing was judged: each partition says why; audit with the settings and the bundle that the daemon ran "
            "with, or begin with an export (--snapshot)"
        )


@contextmanager
def _shown() -> Iterator[Progress]:
    """Show how many ticks went by: a line that lives on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _Plain()
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("audit"), MofNCompleteColumn(), TextColumn("ticks"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("audit", total=None)
        yield lambda ticks: progress.advance(task, ticks)


class _Plain:
    """Says every few seconds how far it is."""

    def __init__(self) -> None:
        self._ticks = 0
        self._due = time.monotonic() + PLAIN_SECONDS

    def __call__(self, ticks: int) -> None:
        self._ticks += ticks
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + PLAIN_SECONDS
            print(f"audit: {self._ticks} ticks run", file=sys.stderr)
