"""Plain tables: columns as wide as they must be, the same on a terminal and in a file."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from daemon.logs import printable


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows under their heads; None is shown as a dash, and nothing in a cell steers the terminal."""
    cells = [list(head), *(["-" if value is None else printable(str(value)) for value in row] for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells)


def confirmed(question: str, *, yes: bool) -> bool:
    """Ask before something is changed; where nobody can answer, `--yes` has to be given.

    Raises
    ------
    SettingsError : nobody can answer
    """
    import typer

    from daemon.errors import SettingsError

    if yes:
        return True
    if not sys.stdin.isatty():
        raise SettingsError("nobody is there to answer; give --yes to do it without asking")
    return typer.confirm(question)
