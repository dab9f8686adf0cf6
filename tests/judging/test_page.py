"""Pages and figures: everything escaped, nothing fetched, the same bytes again, colours left to the style sheet."""

from __future__ import annotations

import re
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from daemon.errors import SettingsError
from daemon.judging import plots, svg
from daemon.judging.page import Column, Facts, Figure, Note, Pair, Section, Table, Text, interval, number, page, percent
from daemon.judging.page import write_page as write

NASTY = "<script>alert('$x$')</script> & \"A\""


@cache
def figures() -> dict[str, str]:
    rng = np.random.default_rng(0)
    x, y = np.arange(5000.0), rng.standard_normal(5000).cumsum()
    return {
        "lines": plots.lines(
            [plots.Line(NASTY, x, y, y - 1, y + 1)], x="seconds", y=NASTY, level=0, level_label="none"
        ),
        "horizons": plots.lines(
            [plots.Line("A", [1, 10], [0.1, np.nan])], x="ticks", y="R²", percent=True, log_x=True, ticks_x=[1, 10]
        ),
        "bars": plots.bars([NASTY, "B"], [plots.Bars("1 tick", [0.1, np.nan], [0.0, np.nan], [0.2, np.nan])], y="R²"),
        "scatter": plots.scatter(y[:200], y[1:201], x="forecast", y="outcome"),
        "empty": plots.scatter(np.empty(0), np.empty(0), x="forecast", y="outcome"),
        "fans": plots.price_fans(
            plots.Line("price", x, y), [plots.Fan(5, 1.0, [6, 9], [1.1, 1.2], [1, 1], [2, 2])], x="s", y="price"
        ),
    }


class Names(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("href", "src", "xlink:href"):
                self.links.append(str(value))


@cache
def whole_page() -> str:
    return made_page()


def made_page() -> str:
    drawn = [Figure(svg, NASTY) for svg in figures().values()]
    table = Table([Column("instrument", number=False), Column("R²", "%")], [[NASTY, "1"], ["B", None]], NASTY, [1])
    blocks = [Facts([(NASTY, NASTY)]), Note(NASTY, "warning"), Text(NASTY), table, Pair(drawn[:2]), *drawn[2:]]
    return page(NASTY, NASTY, [Section(NASTY, blocks)], footer=NASTY)


def test_a_page_asks_for_nothing_and_runs_nothing():
    names = Names()
    html = whole_page()
    names.feed(html)
    assert not {"script", "link", "img", "iframe", "object", "image"} & set(names.tags)
    assert names.tags.count("svg") == len(figures())
    assert [link for link in names.links if not link.startswith("#")] == []
    assert re.findall(r"url\((?!#)", html) == []
    assert "@import" not in html


def test_what_comes_from_ticks_is_text_wherever_it_stands():
    names = Names()
    html = whole_page()
    names.feed(html)
    assert "<script" not in html
    assert html.count("alert('$x$')") + html.count("alert(&#39;$x$&#39;)") >= 12


def test_ids_are_unique_in_a_page_and_every_reference_is_held():
    names = Names()
    html = whole_page()
    names.feed(html)
    assert len(names.ids) == len(set(names.ids))
    assert {link[1:] for link in names.links} | set(re.findall(r"url\(#([^)]+)\)", html)) == set(names.ids)


@pytest.mark.parametrize("name", ["lines", "horizons", "bars", "scatter", "empty", "fans"])
def test_figures_leave_their_colours_to_the_page_and_keep_text_as_text(name: str):
    svg = figures()[name]
    assert re.findall(r"#[0-9a-fA-F]{6}\b", re.sub(r'(url\(#|"#|id=")[^")]*', "", svg)) == []
    assert "var(--muted)" in svg
    root = ElementTree.fromstring(svg)
    assert root.get("viewBox")
    assert root.get("width") is None
    assert any(element.tag.endswith("text") for element in root.iter())


def test_the_style_sheet_knows_every_colour_in_both_themes():
    light, dark = whole_page().split("prefers-color-scheme: dark", 1)
    for colour in svg.COLOURS.values():
        assert f"--{colour}: #" in light
        assert f"--{colour}: #" in dark.split("</style>")[0]


def test_the_same_report_is_the_same_bytes():
    figures.cache_clear()
    assert made_page() == whole_page()


def test_a_line_of_many_points_is_thinned_to_what_can_be_seen():
    kept = plots.thinned(1_000_000)
    assert len(kept) == plots.POINTS_MAX
    assert (kept[0], kept[-1]) == (0, 999_999)
    assert plots.thinned(3).tolist() == [0, 1, 2]
    assert plots.thinned(0).tolist() == []


def test_unknown_cells_are_a_dash_and_numbers_read_well():
    assert '<td class="n">–</td>' in whole_page()
    assert percent(0.01234, sign=True) == "+1.23"
    assert percent(-0.5) == "−50.00"
    assert percent(float("nan")) is None
    assert percent(None) is None
    assert number(1234.5678e-9) == "1.23e−06"
    assert interval(-0.01, 0.025) == "−1.00 … +2.50"
    assert interval(float("nan"), 0.1) is None


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch, package: str):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=r"pip install .*tickcast\[report\]"):
        page("", "", [])


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path):
    with pytest.raises(SettingsError, match="cannot write the report"):
        write(tmp_path / "missing" / "report.html", "x")
    write(tmp_path / "report.html", "x")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
