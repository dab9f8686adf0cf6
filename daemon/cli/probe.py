"""`tickcast probe`: whether a Keras model gives the same answer to the same input, served in four ways."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from daemon.model.probe import Listener, Measured, Refused, Report, Speed

#: What a person reads for the variants' names.
TITLES = {
    "as_is": "as it is",
    "reset_unlocked": "reset, no lock",
    "reset": "reset and lock",
    "converted": "converted",
}
COLUMNS = ("served", "leak", "variance\nof 5", "variance\nof all", "call", "p50 ms", "p99 ms", "calls/s", "MB more")
TESTS = {"repeat": "A A A", "between": "A B A", "threads": "50 threads"}
#: Why an answer differs, by variant.
CAUSES = {
    "as_is": "the state of one request reaches the next",
    "reset_unlocked": "without a lock a request runs between the reset and the call of another",
    "reset": "a state is left that no reset of a recurrent layer reaches",
    "converted": "the converted step keeps a state of its own; please report it",
}


def probe(
    model: Annotated[Path, typer.Argument(help="Model file: .keras or .h5.")],
    repeats: Annotated[int, typer.Option(min=2, metavar="N", help="Answers to the same input in each test.")] = 100,
    budget: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time for all tests; one that runs out stops early.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask a Keras model the same inputs again, between others and from 50 threads; exit 1 if the converted step leaks.

    Leak: the largest difference to a fresh model's answer, in standard deviations of its answers to different inputs.
    Judged are the model as it is, reset before each call without and with a lock, and converted. The variance of
    answers to the same input is shown beside it: it shrinks with the repeats and judges nothing.

    Example: tickcast probe model.keras --budget 30
    """
    loaded = _load(model)
    from daemon.model.probe import probe as run

    with _shown() as listen:
        report = run(loaded, repeats=repeats, budget_seconds=budget, listen=listen)
    if as_json:
        found = {name: _as_json(name, variant, report) for name, variant in report.variants.items()}
        typer.echo(json.dumps(found, allow_nan=False))
    else:
        _print_report(report)
    _raise_verdict(report)


def _load(file: Path) -> Any:
    from daemon.errors import BundleError

    # Keras and TensorFlow take seconds to import, and only those who train or convert have them.
    try:
        from daemon.model.keras_model import load_keras
    except ImportError as error:
        raise BundleError("probing needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`") from error
    return load_keras(file)


def _raise_verdict(report: Report) -> None:
    from daemon.errors import TickcastError
    from daemon.model.probe import Measured

    converted = report.converted
    if isinstance(converted, Measured) and converted.leaks:
        raise TickcastError(f"model {report.model}: the converted step {_verdict('converted', converted, report)}")


# --- what is shown ----------------------------------------------------------------------------------------------------


def _as_json(name: str, variant: Measured | Refused, report: Report) -> dict[str, Any]:
    """Return one variant; a number that is not finite becomes null."""
    from daemon.model.probe import Refused

    shared: dict[str, Any] = {
        "verdict": _verdict(name, variant, report),
        "window": report.window,
        "stateful_layers": list(report.stateful_layers),
    }
    if isinstance(variant, Refused):
        return {"variance": None, "leak": None, "leaks": None, "error": variant.reason} | shared
    return {
        "variance": _finite(variant.variance),
        "variance_first_5": _finite(variant.variance_first),
        "leak": _finite(variant.leak),
        "leaks": variant.leaks,
        "leak_allowed": variant.leak_allowed,
        "tests": {
            test: {"leak": _finite(trial.leak), "answers": trial.answers, "planned": trial.planned}
            for test, trial in variant.trials.items()
        },
        "stopped_early": list(variant.stopped_early),
        "inputs": variant.inputs,
        "speed": {call: _speed_json(speed) for call, speed in variant.speed.items()},
        "memory_growth_mb": variant.memory_growth_mb,
        "error": None,
    } | shared


def _speed_json(speed: Speed) -> dict[str, float]:
    return {
        "calls": speed.calls,
        "p50_ms": round(speed.p50_ms, 3),
        "p99_ms": round(speed.p99_ms, 3),
        "calls_per_second": round(speed.calls_per_second, 1),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _print_report(report: Report) -> None:
    from rich.console import Console

    layers = ", ".join(report.stateful_layers) or "none"
    typer.echo(f"model {report.model}: {report.window}; layers that keep their state: {layers}")
    Console().print(_table(report))
    for name, variant in report.variants.items():
        typer.echo(f"{TITLES[name]}: {_verdict(name, variant, report)}")


def _table(report: Report) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=0)  # fits into 80 columns
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index in (0, 4) else "right", no_wrap=True)
    for name, variant in report.variants.items():
        table.add_row(TITLES[name], *_cells(variant))
    return table


def _cells(variant: Measured | Refused) -> tuple[str, ...]:
    from daemon.model.probe import Refused

    if isinstance(variant, Refused):
        return ("-",) * (len(COLUMNS) - 1)
    speeds = variant.speed.values()
    return (
        f"{variant.leak:.2g}",
        f"{variant.variance_first:.2g}",
        f"{variant.variance:.2g}",
        "\n".join(variant.speed),
        "\n".join(f"{speed.p50_ms:.1f}" for speed in speeds),
        "\n".join(f"{speed.p99_ms:.1f}" for speed in speeds),
        "\n".join(f"{speed.calls_per_second:.0f}" for speed in speeds),
        "-" if variant.memory_growth_mb is None else f"{variant.memory_growth_mb:.1f}",
    )


def _verdict(name: str, variant: Measured | Refused, report: Report) -> str:
    """Return one sentence."""
    from daemon.model.probe import Refused

    if isinstance(variant, Refused):
        return f"cannot be converted: {variant.reason}"
    if variant.leaks:
        seen = ", ".join(TESTS[test] for test, trial in variant.trials.items() if trial.leak > variant.leak_allowed)
        sentence = f"leaks: {variant.leak:.2g} standard deviations; {_cause(name, report)} (seen in {seen})"
    elif variant.leak > 0:
        sentence = f"does not leak: differs by {variant.leak:.1g} standard deviations at most, which is rounding"
    else:
        sentence = "does not leak: every answer is exactly the fresh one"
    if name == "reset_unlocked" and report.stateful_layers and not variant.leaks:
        sentence += "; without a lock that was luck, more threads or longer calls can meet"
    cut = ", ".join(
        f"{TESTS[test]} after {trial.answers} of {trial.planned} answers"
        for test, trial in variant.trials.items()
        if test in variant.stopped_early
    )
    return f"{sentence}; the budget stopped {cut}" if cut else sentence


def _cause(name: str, report: Report) -> str:
    if name != "converted" and not report.stateful_layers:
        return "no recurrent layer keeps a state, so another layer does, or draws random numbers"
    return CAUSES[name]


@contextmanager
def _shown() -> Iterator[Listener | None]:
    """Show a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=1.0)
        yield lambda stage, done: bar.update(task, description=stage, completed=done)
