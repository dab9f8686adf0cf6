"""Draws the pictures of docs/how-it-works.md as SVG files.

python -m daemon.dev.drawings docs/images [--check]

Each picture brings its own background and colours for dark and light, so that it can be read wherever it is shown. The
two life cycles are held against the tables of the code while they are drawn: a new transition must be drawn, too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Set
from html import escape
from itertools import pairwise
from pathlib import Path

from daemon import phases, switching
from daemon.phases import Phase
from daemon.switching import Stage

Point = tuple[float, float]
Table = Mapping[Phase, Set[Phase]] | Mapping[Stage, Set[Stage]]

STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2933; text-anchor: middle }
.small { font-size: 11.5px; fill: #52606d }
.left { text-anchor: start }
.strong { font-weight: 600 }
.card { fill: #ffffff; stroke: #d9e2ec }
.box { fill: #f0f4f8; stroke: #829ab1 }
.key { fill: #e3f2ec; stroke: #3e9c78 }
.topic { fill: #eef2fb; stroke: #6b83c4 }
.frame { fill: none; stroke: #9fb3c8; stroke-dasharray: 5 4 }
.line { fill: none; stroke: #627d98; stroke-width: 1.4; marker-end: url(#tip) }
.tip { fill: #627d98 }
@media (prefers-color-scheme: dark) {
  text { fill: #e4e9ef } .small { fill: #9fb0c0 }
  .card { fill: #151b23; stroke: #303b47 } .box { fill: #212b36; stroke: #64788c }
  .key { fill: #1b332a; stroke: #4fb890 } .topic { fill: #20283d; stroke: #7f95d6 }
  .frame { stroke: #52657a } .line { stroke: #8fa5bb } .tip { fill: #8fa5bb }
}"""
HEIGHT = 40.0


def main(arguments: list[str]) -> int:
    """Write the pictures into a folder, or with `--check` say which are not those of the code."""
    folder = Path(arguments[0])
    stale = [
        name for name, text in pictures() if not (folder / name).exists() or (folder / name).read_text("utf-8") != text
    ]
    for name, text in pictures():
        if name in stale and "--check" not in arguments:
            (folder / name).write_text(text, "utf-8")
    return int("--check" in arguments and bool(stale))


def pictures() -> Iterator[tuple[str, str]]:
    """Yield name and text of every picture."""
    yield "loop.svg", _loop()
    yield "pipeline.svg", _pipeline()
    yield "recovery.svg", _recovery()
    yield "switching.svg", _switching()


# --- the pictures -----------------------------------------------------------------------------------------------------


def _loop() -> str:
    outputs = ["forecasts", "dead letters", "states if due", "input offsets"]
    return _picture(
        "The loop: one poll is one batch is one transaction",
        (800, 310),
        _box((85, 110), "topic: ticks", width=110, kind="topic"),
        _line((140, 110), (178, 110)),
        _box((235, 110), "poll", width=110, kind="key"),
        _line((290, 110), (333, 110)),
        _box((400, 110), "advance", width=130, kind="key"),
        _note((400, 146), "pure: no Kafka,"),
        _note((400, 161), "no clock, no file"),
        _line((465, 110), (508, 110)),
        _box((565, 110), "commit", width=110, kind="key"),
        _frame((635, 22), 150, 182, "one Kafka transaction"),
        *(_box((710, 65 + 38 * row), name, width=130, height=28, kind="topic") for row, name in enumerate(outputs)),
        _line((620, 110), (633, 110)),
        _line((565, 90), (565, 45), (235, 45), (235, 88)),
        _note((400, 38), "again: what arrived meanwhile is the next batch"),
        _line((565, 130), (565, 218)),
        _note((572, 180), "it failed", left=True),
        _box((565, 240), "drop all states, start over", width=230),
        _line((450, 240), (362, 240)),
        _box((220, 240), "recovery, a slice a batch", width=280),
        _line((220, 220), (220, 132)),
        _note((227, 196), "partitions that stand at their committed offset run again", left=True),
        _note((400, 292), "a model that is to take over gets a slice after every batch, too"),
    )


def _pipeline() -> str:
    one, all_ = ["decode", "order", "session", "features"], ["waves", "step", "scores", "forecast"]
    places = [67.0 + 91 * index for index in range(4)] + [459.0 + 91 * index for index in range(4)]
    arrows = [_line((a + 39, 95), (b - 41, 95)) for a, b in pairwise(places)]
    return _picture(
        "The pipeline: from records to a batch of outcomes",
        (800, 260),
        _frame((17, 40), 373, 105, "tick by tick, in log order"),
        _frame((409, 40), 373, 105, "the whole batch at once"),
        *(_box((x, 95), name, width=76) for x, name in zip(places, [*one, *all_], strict=True)),
        *arrows,
        _line((203, 145), (203, 196)),
        _note((210, 178), "rejected: no state has changed", left=True),
        _box((203, 218), "dead letter and its reason", width=230, kind="topic"),
        _line((546, 117), (546, 194)),
        _line((554, 196), (554, 119)),
        _box((550, 218), "(h, c) of each instrument", width=220, kind="key"),
        _note((562, 178), "rows of one table", left=True),
        _line((732, 117), (732, 196)),
        _box((732, 218), "forecasts", width=100, kind="topic"),
    )


def _recovery() -> str:
    chain = [Phase.ASSIGNED, Phase.RESTORING, Phase.CATCHING_UP, Phase.RUNNING]
    forward = list(zip([Phase.UNKNOWN, *chain], chain, strict=False))
    over = [(phase, Phase.ASSIGNED) for phase in chain]
    gone = [(phase, Phase.UNKNOWN) for phase in chain]
    _hold("phases of a partition", [*forward, *over, *gone], phases.TRANSITIONS)
    places = {phase: 235.0 + 165 * index for index, phase in enumerate(chain)}
    kinds = {Phase.RUNNING: "key"}
    return _picture(
        "The life of a partition in one process",
        (800, 250),
        _box((75, 110), Phase.UNKNOWN, width=90, kind="topic"),
        _line((120, 110), (178, 110)),
        _note((149, 100), "given"),
        *(_box((x, 110), phase, width=112, kind=kinds.get(phase, "box")) for phase, x in places.items()),
        *(_line((places[a] + 56, 110), (places[b] - 58, 110)) for a, b in pairwise(chain)),
        *_under(places[Phase.RESTORING] - 82, "committed", "offset", "known"),
        *_under(places[Phase.CATCHING_UP] - 82, "snapshots", "put back"),
        *_under(places[Phase.RUNNING] - 82, "at the", "committed", "offset"),
        *(_line((x, 90), (x, 58), arrow=False) for phase, x in places.items() if phase is not Phase.ASSIGNED),
        _line((places[Phase.RUNNING], 58), (places[Phase.ASSIGNED], 58), (places[Phase.ASSIGNED], 88)),
        _note((480, 50), "a transaction failed, or ticks were lost on the way: start over"),
        *(_line((x, 130), (x, 212), arrow=False) for x in places.values()),
        _line((places[Phase.RUNNING], 212), (75, 212), (75, 132)),
        _note((480, 230), "revoked or lost, from any phase: drop the states, write nothing"),
    )


def _switching() -> str:
    drawn = [
        (Stage.SETTLED, Stage.LOADING),
        (Stage.LOADING, Stage.WARMING),
        (Stage.LOADING, Stage.REFUSED),
        (Stage.REFUSED, Stage.LOADING),
        (Stage.WARMING, Stage.REFUSED),
        (Stage.WARMING, Stage.SETTLED),
    ]
    away = [Stage.LOADING, Stage.WARMING, Stage.REFUSED]
    said = [(stage, to) for stage in away for to in (Stage.LOADING, Stage.SETTLED)]
    _hold("stages of a switch", [*drawn, *said], switching.TRANSITIONS)
    return _picture(
        "A switch of models, in each process by itself",
        (800, 330),
        _box((100, 120), Stage.SETTLED, kind="key"),
        _box((400, 120), Stage.LOADING),
        _box((700, 120), Stage.WARMING),
        _box((400, 245), Stage.REFUSED),
        _line((160, 120), (338, 120)),
        _note((250, 110), "a pin names another bundle"),
        _line((460, 120), (638, 120)),
        _note((550, 110), "it is proven"),
        _line((700, 100), (700, 50), (100, 50), (100, 98)),
        _note((400, 42), "its states stand where ours stand: it takes over"),
        _line((388, 140), (388, 223)),
        _note((380, 186), "missing or damaged", right=True),
        _line((412, 225), (412, 142)),
        _note((420, 186), "again, after a pause", left=True),
        _line((700, 140), (700, 245), (462, 245)),
        _note((580, 237), "most ticks would be dead letters"),
        _note(
            (400, 295),
            "From any of them a newer pin begins anew at loading, a pin of what runs leads back to settled.",
        ),
        _note((400, 312), "Until the switch the model that runs goes on, and knows nothing of the other."),
    )


def _hold(what: str, drawn: Iterable[tuple[str, str]], table: Table) -> None:
    """Refuse to draw another life cycle than the code has."""
    known = {(begin, end) for begin, ends in table.items() for end in ends}
    if set(drawn) != known:
        raise SystemExit(f"the picture of the {what} differs from the table: {sorted(set(drawn) ^ known)}")


# --- what they are made of --------------------------------------------------------------------------------------------


def _picture(title: str, size: tuple[int, int], *parts: str) -> str:
    width, height = size
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{STYLE}\n</style>",
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0,0 L8,4 L0,8 z"/></marker>',
        f'<rect class="card" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _box(centre: Point, name: str, *, width: float = 120, height: float = HEIGHT, kind: str = "box") -> str:
    x, y = centre
    place = f'x="{x - width / 2:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}"'
    return f'<rect class="{kind}" {place} rx="6"/><text class="strong" x="{x:g}" y="{y + 4.5:g}">{escape(name)}</text>'


def _frame(corner: Point, width: float, height: float, name: str) -> str:
    x, y = corner
    return (
        f'<rect class="frame" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8"/>'
        f'<text class="small" x="{x + width / 2:g}" y="{y + 16:g}">{escape(name)}</text>'
    )


def _line(*points: Point, arrow: bool = True) -> str:
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    style = "" if arrow else ' style="marker-end:none"'
    return f'<polyline class="line" points="{path}"{style}/>'


def _note(at: Point, text: str, *, left: bool = False, right: bool = False) -> str:
    style = ' style="text-anchor:end"' if right else ""
    return f'<text class="small{" left" if left else ""}" x="{at[0]:g}" y="{at[1]:g}"{style}>{escape(text)}</text>'


def _under(x: float, *lines: str) -> Iterator[str]:
    """Yield lines of text below an arrow."""
    for number, line in enumerate(lines):
        yield _note((x, 148 + 14 * number), line)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
