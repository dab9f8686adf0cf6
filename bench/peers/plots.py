"""Two plots as SVG, in the colours of docs/images, for dark and light."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2933 }
.small { font-size: 11.5px; fill: #52606d }
.strong { font-weight: 600; font-size: 15px }
.middle { text-anchor: middle }
.card { fill: #ffffff; stroke: #d9e2ec }
.grid { stroke: #d9e2ec }
.ours { fill: #3e9c78; stroke: #3e9c78 } .exactly { fill: #6b83c4; stroke: #6b83c4 }
.other { fill: #9fb3c8; stroke: #9fb3c8 }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e9ef } .small { fill: #9fb0c0 } .card { fill: #151b23; stroke: #303b47 } .grid { stroke: #303b47 }
  .ours { fill: #4fb890; stroke: #4fb890 } .exactly { fill: #7f95d6; stroke: #7f95d6 }
  .other { fill: #64788c; stroke: #64788c }
}"""
WIDTH, ROW, TOP, LEFT, RIGHT = 900.0, 30.0, 78.0, 380.0, 90.0

Line = Mapping[str, Any]


def throughput(lines: Sequence[Line]) -> str:
    """Draw ticks per second as bars over a logarithmic axis: there are four powers of ten between them."""
    rows = sorted(lines, key=lambda line: -line["ticks_per_second"])
    axis = Axis([line["ticks_per_second"] for line in rows], from_first=True)

    def marks(line: Line, y: float) -> Iterator[str]:
        end = axis.at(line["ticks_per_second"])
        yield f'<rect class="{_class(line)}" x="{LEFT}" y="{y - 8:.1f}" width="{end - LEFT:.1f}" height="16" rx="2"/>'
        yield f'<text class="small" x="{end + 6:.1f}" y="{y + 4:.1f}">{line["ticks_per_second"]:,.0f}</text>'

    return _chart("Throughput, ticks per second (logarithmic)", rows, axis, marks)


def latency(lines: Sequence[Line], rate: str) -> str:
    """Draw p50 to p99.9 at a rate as ranges over a logarithmic axis; those that cannot follow are left out."""
    rows = sorted((line for line in lines if line["latency"][rate]), key=lambda line: line["latency"][rate]["p50"])
    axis = Axis([value for line in rows for value in line["latency"][rate].values()])

    def marks(line: Line, y: float) -> Iterator[str]:
        p50, p99, p999 = (axis.at(value) for value in line["latency"][rate].values())
        css = _class(line)
        yield f'<line class="{css}" x1="{p50:.1f}" x2="{p999:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke-width="2"/>'
        yield f'<line class="{css}" x1="{p50:.1f}" x2="{p99:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke-width="8"/>'
        yield f'<circle class="{css}" cx="{p50:.1f}" cy="{y:.1f}" r="7"/>'
        label = " / ".join(f"{value:,.0f}" for value in line["latency"][rate].values())
        yield f'<text class="small" x="{p999 + 8:.1f}" y="{y + 4:.1f}">{label}</text>'

    title = f"End to end at {int(rate):,} ticks/s, ms (logarithmic): dot p50, thick to p99, thin to p99.9"
    return _chart(title, rows, axis, marks)


class Axis:
    """A logarithmic axis of whole powers of ten."""

    def __init__(self, values: Sequence[float], *, from_first: bool = False) -> None:
        self.low = math.floor(math.log10(min(values)))
        self.high = math.ceil(math.log10(max(values)))
        if from_first and math.log10(min(values)) - self.low < 0.05:
            self.low -= 1  # a bar of no length

    def at(self, value: float) -> float:
        """Return the place of a value."""
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def powers(self) -> range:
        """Return the exponents of the grid."""
        return range(self.low, self.high + 1)


def _chart(title: str, rows: Sequence[Line], axis: Axis, marks: Any) -> str:
    height = TOP + ROW * len(rows) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1:g}" height="{height - 1:g}" rx="8"/>',
        f'<text class="strong" x="20" y="30">{escape(title)}</text>',
        *_legend(),
    ]
    for power in axis.powers():
        x = axis.at(10.0**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{height - 14:g}"/>')
        parts.append(f'<text class="small middle" x="{x:.1f}" y="{TOP - 8}">{10**power:,g}</text>')
    for number, line in enumerate(rows):
        y = TOP + ROW * (number + 0.5)
        parts.append(f'<text x="20" y="{y + 4:.1f}">{escape(label(line))}</text>')
        parts += marks(line, y)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend() -> Iterator[str]:
    for x, css, text in ((20, "ours", "tickcast"), (100, "exactly", "exactly once"), (206, "other", "less")):
        yield f'<rect class="{css}" x="{x}" y="46" width="10" height="10" rx="2"/>'
        yield f'<text class="small" x="{x + 15}" y="55">{text}</text>'


def label(line: Line) -> str:
    """Name a line for people."""
    setting = line["setting"].replace(" (default)", "").replace("one thread, ", "").replace("`", "")
    return f"{line['name']}, {setting}"


def _class(line: Line) -> str:
    if line["name"] == "tickcast":
        return "ours"
    return "exactly" if line["guarantee"] == "exactly once" else "other"
