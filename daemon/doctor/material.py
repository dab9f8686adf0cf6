"""Ticks for an examination: the raw rows, and what the daemon's own intake makes of them.

The one module of the doctor that asks the training package for anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from daemon.core.sessions import Rules
from daemon.doctor.sheets import Sheets, good_ticks, read_sheets
from daemon.errors import TickFileError
from daemon.training.collect import Track, collect
from daemon.training.options import DEFAULT_COLUMNS

Listener = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Material:
    """What a file holds."""

    sheets: Sheets
    #: The accepted ticks of each instrument; none where most were refused.
    tracks: tuple[Track, ...] = ()
    #: Names of the tracks' columns.
    columns: tuple[str, ...] = ()
    refused: dict[str, int] = field(default_factory=dict)
    #: Why there are no tracks.
    error: str = ""

    @property
    def accepted_count(self) -> int:
        """Ticks accepted, over all instruments."""
        return sum(len(track.ts) for track in self.tracks)


def gather(paths: Sequence[Path], rules: Rules, columns: Sequence[str] | None, listen: Listener) -> Material:
    """Read files twice: their rows as they stand, then their ticks through the daemon's intake.

    Parameters
    ----------
    columns : features by name; None for those that training takes, and every field that all rows hold

    Raises
    ------
    TickFileError : a file is missing or no table of ticks
    SettingsError : a feature is unknown
    """
    sheets = read_sheets(paths, lambda count: listen(f"reading: {count} rows", None))
    if columns is None:
        columns = (*DEFAULT_COLUMNS, *(f"field:{name}" for name in sheets.whole_fields()))
    if not sheets.readable_count:
        return Material(sheets, error="no row can be read as a tick")
    try:
        collected = collect(
            good_ticks(paths),
            columns,
            rules,
            lambda count: listen(f"taking in: {count} ticks", count / sheets.readable_count),
        )
    except TickFileError as error:
        return Material(sheets, error=str(error))
    return Material(sheets, collected.tracks, tuple(columns), dict(collected.refused))
