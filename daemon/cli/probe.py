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

from daemon.cli.probe_text import TITLES, report_text, why

if TYPE_CHECKING:
    from daemon.model.probe import Listener, Measured, Refused, Report, Speed


def probe(
    model: Annotated[Path, typer.Argument(help="Model file: .keras or .h5.")],
    repeats: Annotated[int, typer.Option(min=2, metavar="N", help="Answers to the same input in each test.")] = 100,
    budget: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Time for all tests; one that runs out stops early.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell whether a Keras model gives the same answer to the same input.

    The same inputs go in again (A A A), between others (A B A) and from 50 threads at once, to the model (a) as it is,
    (b0) reset before each call, (b) reset and called behind a lock, and (c) converted.

    Leak: the largest difference to the answer of a fresh model, in standard deviations of its answers to different
    inputs; above 1e-6 it leaks, and (c) must be exactly 0. Variance, time and memory are shown and judge nothing.

    Exits with 1 if (c) leaks, 2 if the budget is too small to tell, 3 if the model cannot be asked. A model that cannot
    be converted is no failure: (c) says why.

    Example: tickcast probe model.h5 --budget 30
    """
    loaded = _load(model)
    from daemon.model.probe import probe as run

    with _listener() as listen:
        report = run(loaded, repeats=repeats, budget_seconds=budget, listen=listen)
    typer.echo(json.dumps(_as_json(report), allow_nan=False) if as_json else report_text(report, model))
    _raise_verdict(report, budget)


def _load(file: Path) -> Any:
    from daemon.errors import BundleError

    # Keras and TensorFlow take seconds to import, and only those who train or convert have them.
    try:
        from daemon.model.keras_quiet import import_keras

        import_keras()
        from daemon.model.keras_model import load_keras
    except ImportError as error:
        raise BundleError("probing needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`") from error
    return load_keras(file)


def _raise_verdict(report: Report, budget: float) -> None:
    from daemon.errors import SettingsError, TickcastError

    converted = report.converted
    if converted.verdict == "leaks":
        raise TickcastError(f"model {report.model}: the converted step leaks; {why('converted', report)}")
    if converted.verdict == "not enough":
        raise SettingsError(f"--budget {budget:g}: too small to judge the converted step; give {report.budget_enough}")


# --- for programs -----------------------------------------------------------------------------------------------------


def _as_json(report: Report) -> dict[str, dict[str, Any]]:
    """Return one object for each way; a number that is not finite becomes null."""
    found = {name: _way_json(way) | {"why": why(name, report)} for name, way in report.ways.items()}
    found["as_is"] |= {
        "request_shape": list(report.shape),
        "batch_rows": report.rows,
        "stateful_layers": list(report.stateful_layers),
    }
    return found


def _way_json(way: Measured | Refused) -> dict[str, Any]:
    from daemon.model.probe import Refused

    if isinstance(way, Refused):
        return {"variance": None, "leak": None, "verdict": way.verdict}
    return {
        "variance": _finite(way.variance),
        "variance_first_5": _finite(way.variance_first),
        "leak": _finite(way.leak),
        "leak_allowed": way.leak_allowed,
        "verdict": way.verdict,
        "tests": {
            test: {"leak": _finite(trial.leak), "answers": trial.count, "planned": trial.planned}
            for test, trial in way.trials.items()
        },
        "inputs": way.inputs,
        "speed": {call: _speed_json(speed) for call, speed in way.speed.items()},
        "memory_growth_mb": way.memory_growth_mb,
        "difference_to_model": way.difference,
    }


def _speed_json(speed: Speed) -> dict[str, float]:
    return {
        "calls": speed.calls,
        "p50_ms": round(speed.p50_ms, 3),
        "p99_ms": round(speed.p99_ms, 3),
        "calls_per_second": round(speed.calls_per_second, 1),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- progress ---------------------------------------------------------------------------------------------------------


@contextmanager
def _listener() -> Iterator[Listener]:
    """Show progress on standard error: a bar on a terminal, a line for each way elsewhere."""
    if not sys.stderr.isatty():
        yield _print_plainly
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<26}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("fresh answers", total=1.0)

        def listen(way: str, part: str, done: float) -> None:
            bar.update(task, description=f"{TITLES.get(way, way)}: {part}", completed=done)

        yield listen


def _print_plainly(way: str, part: str, done: float) -> None:
    if part in ("answers", "repeat"):
        print(f"probing: {TITLES.get(way, 'fresh answers')}", file=sys.stderr, flush=True)
