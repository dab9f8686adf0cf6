"""What the demo shows while the market is open: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from daemon.dev.demo.ledger import Ledger
from daemon.dev.demo.scoreboard import Row, Scoreboard
from daemon.web.judged import Errors

LIVE_SECONDS = 0.5
PLAIN_SECONDS = 5.0
#: Skill from fewer judged forecasts than this is noise and not shown.
JUDGED_MIN = 100
#: Lines around the rows: head, rules, the lines below, the prompt.
FRAME_LINES = 8
#: With the other columns this makes 80 characters.
NAME_CHARS_MAX = 18
NOTHING = "·"


@dataclass
class Facts:
    """What the table shows beside ledger and scoreboard."""

    #: None: until the ticks end.
    seconds_left: float | None = None
    probe_runs: int = 0
    #: None: no run has finished yet.
    probe_variance: float | None = None


class View:
    """Draws when it is due; use it as a context manager."""

    def __init__(self, console: Console, ledger: Ledger, scoreboard: Scoreboard) -> None:
        self._console = console
        self._ledger = ledger
        self._scoreboard = scoreboard
        self._period = LIVE_SECONDS if console.is_terminal else PLAIN_SECONDS
        self._due = time.monotonic() + self._period
        # Drawn by us alone: a refreshing thread would draw while the books change.
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> View:
        context: AbstractContextManager[object] = self._live or nullcontext()
        context.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.__exit__(None, None, None)

    def show(self, facts: Facts, *, at_once: bool = False) -> None:
        """Draw the present state, if the last time is long enough ago."""
        if not at_once and time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._period
        if self._live is not None:
            rows = self._console.height - FRAME_LINES
            self._live.update(Group(_table(self._scoreboard, rows), _below(self._ledger, facts)), refresh=True)
        else:
            self._console.print(_plain(self._ledger, self._scoreboard, facts), soft_wrap=True)


def _table(scoreboard: Scoreboard, rows_max: int) -> Table:
    rows = scoreboard.rows()
    horizon = scoreboard.horizon
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim", show_footer=True, footer_style="dim")
    hidden = len(rows) - rows_max
    rest = f"{hidden} more" if hidden > 0 else "all"
    table.add_column("instrument", rest, no_wrap=True, overflow="ellipsis", min_width=10, max_width=NAME_CHARS_MAX)
    # The widths hold what is usual, so that columns stay where they are while figures change.
    columns = (
        ("price", "", 8),
        (f"+{horizon} ticks" if horizon else "forecast", "", 9),
        ("bp", "", 6),
        ("interval, bp", "", 12),
        ("session", "", 8),
        ("ms", "", 5),
        ("skill", _skill(scoreboard.errors), 5),
    )
    for name, footer, width in columns:
        table.add_column(name, footer, justify="right", no_wrap=True, min_width=width)
    for row in rows[: max(rows_max, 1)]:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> Sequence[str | Text]:
    decimals = _decimals(row.price)
    expected = row.basis_points(row.mean)
    interval = NOTHING
    if row.lower is not None and row.upper is not None:
        interval = f"{_points(row.basis_points(row.lower))} {_points(row.basis_points(row.upper))}"
    return (
        row.instrument,
        f"{row.price:.{decimals}f}",
        f"{row.mean:.{decimals}f}",
        Text(_points(expected), style="green" if expected > 0 else "red"),
        interval,
        _session(row.session),
        NOTHING if row.latency_ms is None else f"{row.latency_ms:.1f}",
        _skill(row.errors),
    )


def _below(ledger: Ledger, facts: Facts) -> Text:
    lines = [_counts(ledger), f"{_latency(ledger)}; {_probe(facts)}"]
    if facts.seconds_left is not None:
        lines[0] = f"{facts.seconds_left:.0f} s left; {lines[0]}"
    return Text("\n" + "\n".join(lines), style="dim")


def _plain(ledger: Ledger, scoreboard: Scoreboard, facts: Facts) -> str:
    left = "" if facts.seconds_left is None else f"{facts.seconds_left:.0f} s left; "
    skill = f"skill {_skill(scoreboard.errors)} at {scoreboard.horizon} ticks"
    return f"{left}{_counts(ledger)}; {_latency(ledger)}; {skill}; {_probe(facts)}"


def _counts(ledger: Ledger) -> str:
    return f"{ledger.tick_count} ticks, {ledger.forecast_count} forecasts, {ledger.dead_letter_count} dead letters"


def _latency(ledger: Ledger) -> str:
    p50, p99 = ledger.latency_ms(50), ledger.latency_ms(99)
    return "no latency yet" if p50 is None or p99 is None else f"latency p50 {p50:.1f} ms, p99 {p99:.1f} ms"


def _probe(facts: Facts) -> str:
    if facts.probe_variance is None:
        return "canary: first run"
    return f"canary: {facts.probe_runs} runs, variance {facts.probe_variance:g}"


def _skill(errors: Errors) -> str:
    skill = errors.skill
    return NOTHING if skill is None or errors.judged_count < JUDGED_MIN else f"{skill:+.2f}"


def _points(value: float) -> str:
    return f"{value:+.2f}" if abs(value) < 9.995 else f"{value:+.1f}"


def _session(session: str | None) -> str:
    """Return the time of day in the name of a session, or the end of the name."""
    if session is None:
        return NOTHING
    try:
        return f"{datetime.fromisoformat(session):%H:%M:%S}"
    except ValueError:
        return session[-8:]


def _decimals(price: float) -> int:
    """Seven significant digits: a forecast a fraction of a basis point away still looks different."""
    return max(0, 6 - len(str(int(abs(price)))) + 1)
