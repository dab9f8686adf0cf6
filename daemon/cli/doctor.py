"""`tickcast doctor`: measured findings on ticks, models, bundles and clusters."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.topics import ConfigFile, Servers, load

if TYPE_CHECKING:
    from daemon.core.sessions import Rules
    from daemon.doctor.finding import Finding, Measurement, Report
    from daemon.doctor.material import Listener

EXIT_PROBLEMS = 1
WIDTH = 110
COLORS = {"problem": "bold red", "warning": "bold yellow", "note": "bold cyan"}

app = typer.Typer(
    help="Look for what is wrong with ticks, a model, a bundle or a cluster; exit 1 where there is a problem, else 0.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

DataFiles = Annotated[
    list[Path], typer.Option("--data", metavar="FILE", help="Tick file; may be given more than once.")
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="Settings file, for its session rules.")]
Budget = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Time for fitting small models; 0 fits none.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Horizons = Annotated[str, typer.Option(help="How far ahead, in ticks, comma-separated.")]


@app.command()
def data(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Tick files: .csv, .jsonl, .parquet.")],
    horizons: Horizons = "1,10,50",
    config: Config = None,
    budget: Budget = 60.0,
    as_json: AsJson = False,
) -> None:
    """Examine tick files.

    Rows, order, prices, pauses, columns that hold the future; whether anything can be forecast, and more would help.

    Example: tickcast doctor data ticks.csv.gz
    """
    from daemon.doctor.data import examine_data

    rules = _rules(config)
    with _shown() as listen:
        report = examine_data(files, rules, horizons=_numbers(horizons), budget_seconds=budget, listen=listen)
    _finish(report, as_json=as_json)


@app.command()
def model(
    model: Annotated[Path, typer.Argument(help="Model file: .keras or .h5.")],
    data: Annotated[
        list[Path], typer.Option("--data", metavar="FILE", help="Your arrays X and y in one .npz file, or tick files.")
    ],
    features: Annotated[
        str | None, typer.Option(help="Tick files: the model's columns, comma-separated, in its order.")
    ] = None,
    spec: Annotated[
        Path | None, typer.Option(help="Tick files: the spec of `tickcast convert`, for columns and scaler.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Ticks of a window; default: the model's own.")] = None,
    horizons: Annotated[
        str, typer.Option(help="How far ahead the outputs look, in ticks or samples, comma-separated.")
    ] = "1",
    learning_rate: Annotated[float, typer.Option(min=0, help="The rate you train with (Adam).")] = 1e-3,
    config: Config = None,
    budget: Budget = 60.0,
    as_json: AsJson = False,
) -> None:
    """Examine a Keras model and what it is trained on.

    Shapes, scales, collapse, gradients, amount of data, size and learning rate, on your own arrays or on ticks.
    An .npz holds X of shape (samples, steps, features) and y of shape (samples, outputs), in order of time.

    Example: tickcast doctor model model.keras --data arrays.npz
    """
    from daemon.doctor.model import Question, examine_model

    names = tuple(name.strip() for name in features.split(",")) if features else None
    question = Question(names, spec, steps, _numbers(horizons), learning_rate)
    rules = _rules(config)
    with _shown() as listen:
        report = examine_model(model, data, question, rules, budget_seconds=budget, listen=listen)
    _finish(report, as_json=as_json)


@app.command()
def bundle(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    data: DataFiles,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Examine a bundle on ticks.

    Runs it as the daemon does: self-test, dead letters, scales, collapse, skill, and what the carried state is worth.

    Example: tickcast doctor bundle bundle --data ticks.csv.gz
    """
    from daemon.doctor.bundle import examine_bundle

    rules = _rules(config)
    with _shown() as listen:
        report = examine_bundle(bundle, data, rules, listen=listen)
    _finish(report, as_json=as_json)


@app.command()
def cluster(
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    sample: Annotated[int, typer.Option(min=0, metavar="TICKS", help="Newest ticks read of each partition.")] = 500,
    watch: Annotated[
        float, typer.Option(min=0, max=600, metavar="SECONDS", help="Time between two looks at the group.")
    ] = 3.0,
    as_json: AsJson = False,
) -> None:
    """Examine the cluster of a service, also while it runs: nothing is joined, committed or written.

    Brokers, rights, topics, the group, open transactions, checkpoints and retention, keys, clocks, and what of the
    newest ticks would be refused. Exit 4 where no broker answers, 6 where the login is refused.

    Example: tickcast doctor cluster --config tickcast.toml
    """
    from daemon.doctor.cluster import examine_cluster

    settings = load(config, bootstrap_servers)
    with _shown() as listen:
        report = examine_cluster(settings, config=config, sample=sample, watch_seconds=watch, listen=listen)
    _finish(report, as_json=as_json)


def _rules(config: Path | None) -> Rules:
    from daemon.boundaries import resolve_rules
    from daemon.config import load_settings

    return resolve_rules(load_settings(config).session)


def _numbers(text: str) -> tuple[int, ...]:
    from daemon.errors import SettingsError

    try:
        numbers = tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise SettingsError(f"--horizons {text}: give whole numbers, e.g. 1,10,50") from error
    if min(numbers) < 1:
        raise SettingsError(f"--horizons {text}: give whole numbers from 1, e.g. 1,10,50")
    return numbers


def _finish(report: Report, *, as_json: bool) -> None:
    """Print a report and end with its exit code."""
    if as_json:
        typer.echo(json.dumps(report.as_json(), allow_nan=False))
    else:
        _print_report(report)
    if report.count("problem"):
        raise typer.Exit(EXIT_PROBLEMS)


# --- what is shown ----------------------------------------------------------------------------------------------------


def _print_report(report: Report) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    seen = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report.facts.items())
    console.print(Text(f"{report.patient} {report.subject}", style="bold"))
    console.print(Text(seen) if seen else Text("nothing could be read"))
    for finding in report.findings:
        console.print()
        title = Text(finding.severity, style=COLORS[finding.severity])
        console.print(title.append(f"  {finding.check.code}: {finding.check.title}", style="bold"))
        for line in _lines(finding):
            console.print(Text(line))
    console.print()
    for line in _rest(report):
        console.print(Text(line))


def _lines(finding: Finding) -> Iterator[str]:
    check = finding.check
    limit = check.shown(check.limit_at(finding.measured))
    yield from _field("measured", f"{check.shown(finding.measured)} ({check.beyond} {limit}): {check.measures}")
    for number, each in enumerate(finding.evidence):
        yield from _field("" if number else "where", _place(finding, each))
    yield from _field("remedy", finding.remedy)
    for line in (finding.command or "").splitlines():
        yield f"  {'':9} {line}"


def _place(finding: Finding, each: Measurement) -> str:
    text = f"{finding.check.shown(each.value):>9}  {each.place or 'all'}"
    return f"{text}: {each.detail}" if each.detail else text


def _field(name: str, text: str) -> Iterator[str]:
    for number, line in enumerate(textwrap.wrap(text, WIDTH - 12, drop_whitespace=True) or [""]):
        yield f"  {'' if number else name:9} {line}"


def _rest(report: Report) -> Iterator[str]:
    from daemon.doctor.finding import SEVERITIES, Clear, Skipped

    clear = [each for each in report.outcomes if isinstance(each, Clear)]
    skipped = [each for each in report.outcomes if isinstance(each, Skipped)]
    counts = [f"{report.count(severity)} {severity}{'s' * (report.count(severity) != 1)}" for severity in SEVERITIES]
    yield f"{', '.join(counts)}; {len(clear)} checks clear, {len(skipped)} not made"
    if clear:
        listed = ", ".join(f"{each.check.code} {each.check.shown(each.measured)}" for each in clear)
        yield from _field("clear", listed)
    reasons: dict[str, list[str]] = {}
    for each in skipped:
        reasons.setdefault(each.reason, []).append(each.check.code)
    for number, (reason, codes) in enumerate(reasons.items()):
        yield from _field("" if number else "not made", f"{', '.join(codes)}: {reason}")


@contextmanager
def _shown() -> Iterator[Listener]:
    """Show a bar on a terminal, a plain line for each stage elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        told: set[str] = set()

        def print_plainly(stage: str, done: float | None) -> None:
            name = stage.split(":")[0]
            if name not in told:
                told.add(name)
                print(name, file=sys.stderr, flush=True)

        yield print_plainly
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda stage, done: bar.update(
            task, description=stage, total=None if done is None else 1.0, completed=done or 0.0
        )
