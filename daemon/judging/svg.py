"""Axes to draw on, and the SVG that comes of them: a part of a page, whose style sheet gives the colours.

matplotlib draws with a palette of stand-in colours; in the SVG each of them becomes `var(--name)`, text stays text, and
ids are made unique so that many figures can stand in one page. The same figure gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

from daemon.errors import SettingsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Returns the SVG, once the drawing is done.
Drawn = Callable[[], str]

#: Stand-in colour -> name of the style sheet's variable. `SERIES` are told apart by eyes of all kinds.
COLOURS = {
    "#010101": "ink",
    "#020202": "muted",
    "#030303": "grid",
    "#040404": "series-1",
    "#050505": "series-2",
    "#060606": "series-3",
    "#070707": "series-4",
    "#080808": "series-5",
    "#090909": "series-6",
}
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = ("#040404", "#050505", "#060606", "#070707", "#080808", "#090909")
WIDE = (8.4, 3.1)
#: Two of these stand side by side.
HALF = (4.8, 4.0)


@contextmanager
def axes_for(x: str, y: str, size: tuple[float, float] = WIDE) -> Iterator[tuple[Axes, Drawn]]:
    """Give axes to draw on, and a function that returns the SVG once the drawing is done."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SettingsError('reports need matplotlib and jinja2; pip install "tickcast[report]"') from error
    done: list[str] = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_axisbelow(True)
        yield axes, lambda: done[0]
        text = StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        done.append(_inline(text.getvalue()))


def _inline(svg: str) -> str:
    """Make a file of matplotlib's a part of a page: no header, no fixed size, named colours, ids of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    own = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    used = set(re.findall(r'(?:url\(#|xlink:href="#)([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda m: f' id="{own}-{m[1]}"' if m[1] in used else "", svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{own}-", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font-family: [^;\"]+", "font-family: var(--font)", svg)  # laid out in a wider one
    for stand_in, name in COLOURS.items():
        svg = svg.replace(stand_in, f"var(--{name})")
    return svg


_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be found, copied and read aloud
    "svg.hashsalt": "tickcast",  # ids that do not change from run to run
    "text.parse_math": False,  # an instrument may be called $A$
    "font.size": 9.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.4,
    "lines.solid_capstyle": "round",
}
