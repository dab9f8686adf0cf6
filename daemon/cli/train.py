"""`tickcast train`: tick files into a bundle."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from daemon.training import Progress, TrainingReport
    from daemon.training.options import Listener

#: Ticks between two plain lines while reading, where no terminal is.
PLAIN_TICKS = 100_000


def train(
    files: Annotated[list[Path], typer.Argument(help="Tick files: .csv, .jsonl (also .gz) or .parquet.")],
    out: Annotated[Path, typer.Option(help="Folder of the bundle to write.")],
    horizons: Annotated[str, typer.Option(help="How far ahead, in ticks, comma-separated.")] = "1,5,10,50",
    units: Annotated[int, typer.Option(help="Units of each LSTM.")] = 64,
    layers: Annotated[int, typer.Option(help="LSTMs on top of each other.")] = 2,
    epochs: Annotated[int, typer.Option(help="Runs through the training part, at most.")] = 12,
    minutes: Annotated[float | None, typer.Option(help="Time for fitting; default: no limit.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed and ticks give the same bundle.")] = 0,
    split: Annotated[float, typer.Option(help="Share of the ticks to fit on; the rest judges.")] = 0.7,
    features: Annotated[
        str | None, typer.Option(help="Input columns, comma-separated; `tickcast features` lists them.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Settings file, for its session rules.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that stands at --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Fit a model on tick files and write a bundle; the last part of the ticks only judges it.

    Ctrl-C ends the fitting and keeps the best model so far.

    Example: tickcast train ticks.csv.gz --out bundle --minutes 3
    """
    from daemon.config import load_settings
    from daemon.tick_files import read_ticks
    from daemon.training import DEFAULT_COLUMNS, TrainingOptions
    from daemon.training import train as run

    options = TrainingOptions(
        horizons=_numbers(horizons),
        columns=tuple(name.strip() for name in features.split(",")) if features else DEFAULT_COLUMNS,
        units=units,
        layers=layers,
        epochs=epochs,
        minutes=minutes,
        seed=seed,
        split=split,
        sessions=load_settings(config).session,
        force=force,
    )
    with _listener() as listen:
        report = run(read_ticks(files, in_order=True), options, out, listen)
    if as_json:
        print(json.dumps(dataclasses.asdict(report), default=str))
    else:
        _print_report(report)


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
    if progress.loss is None:
        return "judging on the ticks after the split"
    left = f", {progress.seconds_left:.0f} s left" if progress.seconds_left is not None else ""
    return f"epoch {progress.epoch}: loss {progress.loss:.4f}, skill {progress.skill:+.4f}{left}"


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
    Console().print(table)
    if report.refused:
        print("ticks left out:", ", ".join(f"{count} {reason}" for reason, count in report.refused.items()))
    print(
        f"bundle {report.bundle} ({report.bundle_id}): best of {report.epochs} epochs was {report.best_epoch}, "
        f"ended by {report.ended_by}, {report.seconds:.0f} s"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.2f} %"
