"""`tickcast train`: ticks of files or of a topic into a bundle."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.training import Progress, TrainingOptions, TrainingReport
    from daemon.training.options import Listener, Skills

#: Ticks between two plain lines while reading, where no terminal is.
PLAIN_TICKS = 100_000


def train(
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write.")],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Tick files: .csv, .jsonl (also .gz) or .parquet.", show_default=False)
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Read this topic instead of files.", show_default=False, metavar="NAME")
    ] = None,
    since: Annotated[str, typer.Option(help="Of the topic: earliest, or an ISO 8601 time.")] = "earliest",
    until: Annotated[str, typer.Option(help="Of the topic: latest, or an ISO 8601 time.")] = "latest",
    from_offset: Annotated[int, typer.Option(min=0, help="Of each partition of the topic, nothing before it.")] = 0,
    options: Annotated[
        Path | None,
        typer.Option(help="TOML file with any of the settings below; flags go before it.", show_default=False),
    ] = None,
    horizons: Annotated[str | None, typer.Option(help="Ticks ahead, comma-separated [1,5,10,50].")] = None,
    cell: Annotated[str | None, typer.Option(help="lstm or gru [lstm].")] = None,
    units: Annotated[int | None, typer.Option(help="Units of each layer [64].")] = None,
    layers: Annotated[int | None, typer.Option(help="Recurrent layers on top of each other [2].")] = None,
    dropout: Annotated[float | None, typer.Option(help="Between layers, while fitting [0].")] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="carried: one state through a session; window: each forecast from its last --steps ticks alone, which "
            "costs about --steps times as much, here and live [carried]."
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Ticks of a window, with --mode window [20].")] = None,
    loss: Annotated[
        str | None, typer.Option(help="huber: a mean; gaussian: also a variance; quantiles: also 5 % and 95 % [huber].")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Runs through the training part, at most [12].")] = None,
    patience: Annotated[int | None, typer.Option(help="Epochs without progress before it ends [4].")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time for fitting [no limit].")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed and ticks give the same bundle [0].")] = None,
    split: Annotated[float | None, typer.Option(help="Share of the ticks to fit on; the rest judges [0.7].")] = None,
    folds: Annotated[int | None, typer.Option(help="Walk-forward folds after the split [1].")] = None,
    features: Annotated[
        str | None, typer.Option(help="Input columns, comma-separated; `tickcast features` lists them.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings file: session rules, and brokers for --topic.")
    ] = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Brokers, host:port, for --topic.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that stands at --out.")] = False,
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Do nothing where a bundle stands at --out already.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Fit a model on ticks and write a bundle; the last part of the ticks only judges it.

    Ctrl-C ends the fitting and keeps the best model so far.

    Example: tickcast train ticks.csv.gz --out bundle --minutes 3

    Example: tickcast train --topic ticks --since 2024-01-02T15:00:00Z --config tickcast.toml --out bundle
    """
    if if_missing and out.exists():
        print(f"{out} is there already; nothing to do")
        return
    from daemon.cli.topics import load
    from daemon.config import load_settings
    from daemon.training import train as run

    flags = {
        "horizons": _numbers(horizons) if horizons else None,
        "columns": tuple(name.strip() for name in features.split(",")) if features else None,
        "cell": cell, "units": units, "layers": layers, "dropout": dropout, "mode": mode, "steps": steps,
        "loss": loss, "epochs": epochs, "patience": patience, "minutes": minutes, "seed": seed, "split": split,
        "folds": folds,
    }  # fmt: skip
    settings = load(config, bootstrap_servers) if topic else load_settings(config)
    chosen = _options(options, flags, settings, force=force)
    ticks = _ticks(files, topic, settings, since, until, from_offset)
    with _listener() as listen:
        report = run(ticks, chosen, out, listen)
    if as_json:
        print(json.dumps(dataclasses.asdict(report), default=str))
    else:
        _print_report(report)


def _options(file: Path | None, flags: Mapping[str, Any], settings: Settings, *, force: bool) -> TrainingOptions:
    """Join the file's options and the flags; a flag goes before the file."""
    from daemon.training.options import TrainingOptions, read_options

    given = {name: value for name, value in flags.items() if value is not None}
    found = (read_options(file) if file else {}) | given
    return TrainingOptions(**found, sessions=settings.session, force=force)


def _ticks(
    files: list[Path] | None, topic: str | None, settings: Settings, since: str, until: str, from_offset: int
) -> Iterable[Mapping[str, Any] | bytes]:
    from daemon.errors import SettingsError

    if bool(files) == bool(topic):
        raise SettingsError("give either tick files or --topic NAME")
    if files:
        from daemon.tick_files import read_ticks

        return read_ticks(files, in_order=True)
    from daemon.cli.rewind import parse_when
    from daemon.training.topic import find_ranges, read_topic
    from daemon.transport.connection import Connection

    assert topic is not None
    connection = Connection.from_settings(settings.kafka)
    ranges = find_ranges(
        connection, topic, parse_when(since, "--since"), parse_when(until, "--until"), from_offset=from_offset
    )
    return read_topic(connection, topic, ranges)


def _numbers(text: str) -> tuple[int, ...]:
    from daemon.errors import SettingsError

    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise SettingsError(f"--horizons {text}: give whole numbers, e.g. 1,5,10,50") from error


@contextmanager
def _listener() -> Iterator[Listener]:
    """Show progress on standard error: a bar on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _print_plainly
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("{task.description}"), BarColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def listen(progress: Progress) -> None:
            total = None if progress.stage == "reading" else 1.0
            bar.update(task, description=_line(progress), total=total, completed=progress.done)

        yield listen


def _print_plainly(progress: Progress) -> None:
    if progress.stage != "reading" or progress.tick_count % PLAIN_TICKS == 0:
        print(_line(progress), file=sys.stderr, flush=True)


def _line(progress: Progress) -> str:
    if progress.stage == "reading":
        return f"reading: {progress.tick_count} ticks"
    fold = f"fold {progress.fold[0]} of {progress.fold[1]}, " if progress.fold[1] > 1 else ""
    if progress.loss is None:
        return f"{fold}judging on the ticks after the split"
    left = f", {progress.seconds_left:.0f} s left" if progress.seconds_left is not None else ""
    return f"{fold}epoch {progress.epoch}: loss {progress.loss:.4f}, skill {progress.skill:+.4f}{left}"


def _print_report(report: TrainingReport) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="R² against no change, on ticks never seen", title_justify="left")
    table.add_column("ticks ahead")
    for horizon in report.horizons:
        table.add_column(str(horizon), justify="right")
    for name, skills in report.skill_by_instrument.items():
        table.add_row(name, *map(_percent, skills))
    table.add_section()
    table.add_row("mean", *map(_percent, report.skill))
    table.add_row("mean, state reset every tick", *map(_percent, report.skill_reset_every_tick))
    table.add_row("mean, ridge per instrument", *map(_percent, report.skill_ridge))
    Console().print(table)
    if len(report.folds) > 1:
        for number, fold in enumerate(report.folds, start=1):
            print(f"fold {number}: {fold.begin} to {fold.end}, {fold.ticks} ticks, mean R² {_row(fold.skill)}")
    if report.refused:
        print("ticks left out:", ", ".join(f"{count} {reason}" for reason, count in report.refused.items()))
    print(
        f"bundle {report.bundle} ({report.bundle_id}): best of {report.epochs} epochs was {report.best_epoch}, "
        f"ended by {report.ended_by}, {report.seconds:.0f} s"
    )
    if report.page is not None:
        print(f"report {report.page}")


def _row(skills: Skills) -> str:
    return ", ".join(map(_percent, skills))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.2f} %"
