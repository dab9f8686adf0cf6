"""`tickcast backtest`: what a bundle would have forecast on files of ticks, and how good that was."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from daemon.judging.backtest import Backtest
    from daemon.judging.page import Column
    from daemon.judging.scores import Scores
    from daemon.judging.tape import Tape

#: Seconds between two plain lines of progress where no terminal is.
PLAIN_SECONDS = 5.0
#: Rows of a table on a terminal at most; `--json` and `--report` hold all of them.
ROWS_MAX = 60


def backtest(
    bundle: Annotated[Path, typer.Argument(help="Folder of the bundle.")],
    files: Annotated[list[Path], typer.Argument(help="Tick files: .csv, .jsonl (also .gz) or .parquet.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="Settings file: sessions, coverage, warm-up.")
    ] = None,
    split: Annotated[
        float | None, typer.Option(help="Judge only after this share of the ticks, as `train --split` cuts; e.g. 0.7.")
    ] = None,
    from_ts: Annotated[
        str | None, typer.Option(help="Judge only from this event time: ISO 8601 with an offset, or nanoseconds.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Topic that ids name; default: the settings' topics.ticks.")] = None,
    partitions: Annotated[int, typer.Option(help="Partitions of that topic.")] = 1,
    forecasts: Annotated[
        Path | None, typer.Option(help="Write every forecast here, one JSON object a line (.gz compresses).")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page with plots here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores as one JSON object.")] = False,
) -> None:
    """Run the daemon's own pipeline over tick files, faster than real time, and judge what it forecasts.

    Every tick warms the states up; --split or --from-ts says from where on forecasts are judged. Forecasts equal those
    that `tickcast run` publishes for the same ticks, byte for byte.

    Example: tickcast backtest bundle ticks.csv.gz --split 0.7 --report backtest.html
    """
    from daemon.config import load_settings
    from daemon.judging.backtest import backtest as run_backtest
    from daemon.judging.feeding import Naming
    from daemon.judging.page import check_report_packages, write_page
    from daemon.judging.scores import judge, leak, levels_of
    from daemon.tick_files import read_ticks

    begin_of = _begin(split, from_ts)
    if report is not None:
        check_report_packages()
    settings = load_settings(config, {"model": {"bundle": str(bundle)}})
    naming = Naming(topic or settings.topics.ticks, partitions)
    with _listener() as listen:
        run = run_backtest(
            read_ticks(files, in_order=False), settings, naming=naming, forecasts=forecasts, listen=listen
        )
    scores = judge(run.tapes, begin_of(run.tapes), levels_of(run.coverage))
    found = (leak(run.bundle.manifest.trained_on, scores.span), *_prices(run.tapes), *_worse(scores))
    warnings = [text for text in found if text]
    if report is not None:
        from daemon.judging.backtest_report import report as made

        write_page(report, made(run, scores, warnings))
    if as_json:
        print(json.dumps(_as_json(run, scores, warnings)))
        return
    _print(run, scores)
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
    for what, file in (("forecasts", forecasts), ("report", report)):
        if file is not None:
            print(f"{what}: {file}")


def _begin(split: float | None, from_ts: str | None) -> Callable[[Sequence[Tape]], int]:
    """Return what finds the event time from which is judged, once the ticks are known."""
    from daemon.errors import SettingsError
    from daemon.judging.scores import cut_at
    from schemas.tick import event_time_ns

    if split is not None and from_ts is not None:
        raise SettingsError("give --split or --from-ts, not both")
    if split is not None and not 0 <= split < 1:
        raise SettingsError(f"--split {split}: give a share from 0 to below 1, e.g. 0.7")
    if split is not None:
        share = split
        return lambda tapes: cut_at(tapes, share)
    if from_ts is None:
        return lambda tapes: min(int(tape.ts[0]) for tape in tapes)
    try:
        begin = event_time_ns(int(from_ts) if from_ts.isdecimal() else from_ts)
    except ValueError as error:
        raise SettingsError(
            f"--from-ts {from_ts}: give nanoseconds since the epoch, or ISO 8601 with an offset"
        ) from error

    def checked(tapes: Sequence[Tape]) -> int:
        last = max(int(tape.ts[-1]) for tape in tapes)
        if begin > last:
            raise SettingsError(f"--from-ts {from_ts} is after the last tick (ts {last}); give an earlier time")
        return begin

    return checked


def _prices(tapes: Sequence[Tape]) -> Iterator[str]:
    """Say where prices are trades, whose bounce between bid and ask looks like skill."""
    trades = [tape.instrument for tape in tapes if not tape.quoted.any()]
    if trades:
        yield (
            f"no quotes of {_some(trades)}: the last trade stands for the price, and to foresee its bounce between "
            "bid and ask scores as skill but earns nothing (Roll 1984)"
        )


def _worse(scores: Scores) -> Iterator[str]:
    """Say where the forecasts do harm, and not by chance."""
    worse = [f"{score.instrument} {score.horizon} ahead" for score in scores.scores if score.r2_high < 0]
    if worse:
        yield f"worse than no change, with the whole interval below zero: {_some(worse)}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _as_json(run: Backtest, scores: Scores, warnings: Sequence[str]) -> dict[str, object]:
    return {
        **scores.as_json(),
        "bundle": run.bundle.id,
        "coverage": run.coverage,
        "ticks": run.tick_count,
        "forecasts": run.forecast_count,
        "dead_letters": dict(run.refused),
        "judged_from_ts": None if scores.span is None else scores.span[0],
        "judged_to_ts": None if scores.span is None else scores.span[1],
        "seconds": round(run.seconds, 3),
        "warnings": warnings,
    }


# --- for people -------------------------------------------------------------------------------------------------------


def _print(run: Backtest, scores: Scores) -> None:
    from daemon.judging.scores import clock
    from daemon.judging.wording import forecast_table, interval_table

    for title, (heads, rows) in (
        ("R² against no change, with its 95 % interval", forecast_table(scores)),
        ("Intervals", interval_table(scores, differences=run.tapes[0].differences)),
    ):
        shown = rows[-ROWS_MAX:]
        print(f"{title}\n\n{_aligned(heads, shown)}\n")
        if len(rows) > len(shown):
            print(f"the last {len(shown)} of {len(rows)} rows; --json and --report hold all of them\n")
    judged = f"judged {clock(scores.span[0])} to {clock(scores.span[1])}" if scores.span else "nothing was judged"
    print(f"{run.tick_count:,} ticks in {run.seconds:.1f} s ({run.tick_count / run.seconds:,.0f} a second); {judged}")
    if run.refused:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in run.refused.most_common())
        print(f"dead letters: {reasons}")


def _aligned(heads: Sequence[Column], rows: Sequence[Sequence[str | None]]) -> str:
    """Return rows under their heads and units, numbers to the right; one that is not known is a dash."""
    cells = [[head.name for head in heads], [head.unit for head in heads]]
    cells += [["-" if cell is None else cell for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in cells) for at in range(len(heads))]
    lines = []
    for row in cells:
        parts = [
            cell.rjust(width) if head.number else cell.ljust(width)
            for cell, width, head in zip(row, widths, heads, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


@contextmanager
def _listener() -> Iterator[Callable[[int, float], None]]:
    """Show progress on standard error: a line that renews itself on a terminal, plain lines elsewhere."""
    if not sys.stderr.isatty():
        yield _plain_listener()
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("backtest")
        yield lambda count, seconds: bar.update(task, description=_line(count, seconds))


def _plain_listener() -> Callable[[int, float], None]:
    due = time.monotonic() + PLAIN_SECONDS

    def listen(count: int, seconds: float) -> None:
        nonlocal due
        if time.monotonic() >= due:
            print(_line(count, seconds), file=sys.stderr, flush=True)
            due = time.monotonic() + PLAIN_SECONDS

    return listen


def _line(count: int, seconds: float) -> str:
    return f"backtest: {count:,} ticks, {count / max(seconds, 1e-9):,.0f} a second"
