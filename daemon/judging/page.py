"""A report as one HTML page: sections of text, tables, facts and figures; no script, no network, light and dark.

Everything that is not a figure is escaped, so an instrument may be called ``<b>``. Figures are what `plots` drew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from daemon.errors import SettingsError

TEMPLATE = Path(__file__).parent / "page.html.j2"
#: What stands in a cell where nothing can be said.
UNKNOWN = "–"


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, its unit, and whether it holds numbers (set to the right)."""

    name: str
    unit: str = ""
    number: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of cells, ready as text; None is an en dash. `strong` are the indexes of rows that sum others up."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str | None]]
    caption: str = ""
    strong: Sequence[int] = ()
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Facts:
    """A short list of what a run was: label and value."""

    items: Sequence[tuple[str, str]]
    kind: str = field(default="facts", init=False)


@dataclass(frozen=True)
class Note:
    """A paragraph that stands out: a hint, or a warning."""

    text: str
    tone: Literal["hint", "warning"] = "hint"
    kind: str = field(default="note", init=False)


@dataclass(frozen=True)
class Text:
    """A plain paragraph."""

    text: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Figure:
    """A figure as `plots` returned it, and what it shows."""

    svg: str
    caption: str
    kind: str = field(default="figure", init=False)


@dataclass(frozen=True)
class Pair:
    """Figures side by side where the page is wide enough."""

    figures: Sequence[Figure]
    kind: str = field(default="pair", init=False)


Block = Table | Facts | Note | Text | Figure | Pair


@dataclass(frozen=True)
class Section:
    """A titled part of a page."""

    title: str
    blocks: Sequence[Block]


def check_report_packages() -> None:
    """Say early that a page cannot be made.

    Raises
    ------
    SettingsError : matplotlib or jinja2 is missing
    """
    from importlib.util import find_spec

    if find_spec("jinja2") is None or find_spec("matplotlib") is None:
        raise SettingsError('reports need matplotlib and jinja2; pip install "tickcast[report]"')


def page(title: str, lead: str, sections: Sequence[Section], *, footer: str = "") -> str:
    """Return the page.

    Parameters
    ----------
    lead : one or two sentences under the title: what this is, and what came out
    footer : versions and the like

    Raises
    ------
    SettingsError : jinja2 is missing
    """
    check_report_packages()
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["drawn"] = Markup
    template = environment.from_string(TEMPLATE.read_text("utf-8"))
    return template.render(title=title, lead=lead, sections=sections, footer=footer, unknown=UNKNOWN) + "\n"


def write_page(file: Path, html: str) -> None:
    """Write a page; whole or not at all.

    Raises
    ------
    SettingsError : it cannot be written
    """
    draft = file.with_name(file.name + ".part")
    try:
        draft.write_text(html, "utf-8")
        draft.replace(file)
    except OSError as error:
        raise SettingsError(f"cannot write the report {file}: {error.strerror}; give another path") from error


# --- numbers as people read them --------------------------------------------------------------------------------------


def percent(value: float | None, digits: int = 2, *, sign: bool = False) -> str | None:
    """Return a share in percent, without the sign of percent, which the column's unit says."""
    if value is None or not math.isfinite(value):
        return None
    text = f"{100 * value:{'+' if sign else ''}.{digits}f}"
    return text.replace("-", "−")


def number(value: float | None, digits: int = 3) -> str | None:
    """Return a number with so many significant digits."""
    if value is None or not math.isfinite(value):
        return None
    return f"{value:.{digits}g}".replace("-", "−")


def interval(low: float, high: float, digits: int = 2) -> str | None:
    """Return both ends of an interval of shares, in percent."""
    ends = [percent(end, digits, sign=True) for end in (low, high)]
    return None if None in ends else f"{ends[0]} … {ends[1]}"
