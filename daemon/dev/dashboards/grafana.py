"""Panels, rows and dashboards, and the JSON that Grafana reads of them.

The classic model at version 39 (Grafana 10.4): every later one reads it and lifts it on load.

A query writes `{@}` for the labels that the variables of the dashboard choose, e.g. `rate(x_total{@, kind="a"}[5m])`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from string import ascii_uppercase
from typing import Any, Literal

SCHEMA_VERSION = 39
COLUMNS = 24
#: The data source is a variable too; its uid is the one that is provisioned.
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTED = '{job=~"$job", instance=~"$instance"'
#: Seconds between two looks, and between two scrapes: below four of those a rate has gaps.
REFRESH = "10s"
MIN_INTERVAL = "5s"

Kind = Literal["stat", "timeseries", "bargauge", "table"]
#: From which value on which colour counts; the first has no lower end.
Steps = tuple[tuple[float | None, str], ...]
PLAIN: Steps = ((None, "green"),)


def bad_from(value: float) -> Steps:
    """Return steps: green below the value, red from it on."""
    return ((None, "green"), (value, "red"))


def bad_below(value: float) -> Steps:
    """Return steps: red below the value, green from it on."""
    return ((None, "red"), (value, "green"))


def selected(query: str) -> str:
    """Return a query with the labels that the variables choose."""
    return query.replace("{@", SELECTED)


@dataclass(frozen=True)
class Panel:
    """One panel."""

    title: str
    description: str
    #: Grafana's name of a unit, or "suffix:" and a word.
    unit: str
    #: What its series are called, a text with `{{label}}` in it -> the query.
    queries: Mapping[str, str]
    kind: Kind = "timeseries"
    thresholds: Steps = PLAIN
    width: int = 8
    height: int = 8
    decimals: int | None = None
    minimum: float | None = None
    #: Cumulative buckets are to be taken apart.
    buckets: bool = False


def lines(
    title: str,
    description: str,
    unit: str,
    queries: Mapping[str, str],
    *,
    thresholds: Steps = PLAIN,
    width: int = 8,
    minimum: float | None = 0,
) -> Panel:
    """Return a panel with a line for each series."""
    return Panel(title, description, unit, queries, thresholds=thresholds, width=width, minimum=minimum)


def stat(
    title: str,
    description: str,
    unit: str,
    query: str,
    *,
    thresholds: Steps = PLAIN,
    width: int = 4,
    height: int = 5,
    decimals: int | None = None,
) -> Panel:
    """Return a panel with one large figure."""
    return Panel(title, description, unit, {"": query}, "stat", thresholds, width, height, decimals)


@dataclass(frozen=True)
class Row:
    """A heading and the panels below it, from left to right and on into the next line."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """One dashboard; its uid is part of links and never changes."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    #: With a variable for instruments.
    instruments: bool = False

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in their order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def to_json(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana reads it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["tickcast"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": REFRESH,
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "",
        "links": [_links()],
        "annotations": {"list": [_annotation(*each) for each in ANNOTATIONS]},
        "templating": {"list": list(_variables(instruments=dashboard.instruments))},
        "panels": list(_placed(dashboard.rows)),
    }


#: What changes a picture and is no tick: name, query, colour.
ANNOTATIONS = (
    ("Starts", "changes(process_start_time_seconds{@}[1m]) > 0", "orange"),
    ("Another model takes over", "increase(tickcast_bundle_switches_total{@}[1m]) > 0", "blue"),
)


def _annotation(name: str, expr: str, color: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "expr": selected(expr),
        "iconColor": color,
        "step": "60s",
        "titleFormat": name,
        "textFormat": "{{instance}}",
    }


def _links() -> dict[str, Any]:
    return {
        "title": "tickcast",
        "type": "dashboards",
        "tags": ["tickcast"],
        "asDropdown": False,
        "includeVars": True,
        "keepTime": True,
    }


def _variables(*, instruments: bool) -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "refresh": 1,
        "current": {},
        "hide": 0,
    }
    yield _labels("job", "Job", "tickcast_build_info")
    yield _labels("instance", "Instance", 'tickcast_build_info{job=~"$job"}')
    if instruments:
        selected = 'tickcast_prediction_variance{job=~"$job", instance=~"$instance"}'
        yield _labels("instrument", "Instrument", selected)


def _labels(name: str, label: str, selector: str) -> dict[str, Any]:
    query = f"label_values({selector}, {name})"
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _placed(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield headings and panels with their places: lines fill from the left, a line is as high as its highest."""
    ids = count(1)
    y = 0
    for row in rows:
        yield {
            "id": next(ids),
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
        }
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            yield {"id": next(ids), **_panel(panel), "gridPos": place}
            x += panel.width
            height = max(height, panel.height)
        y += height


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "interval": MIN_INTERVAL,
        "targets": [
            _target(panel, legend, query, letter)
            for (legend, query), letter in zip(panel.queries.items(), ascii_uppercase, strict=False)
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": OPTIONS[panel.kind],
        "transformations": HIDDEN_COLUMNS if panel.kind == "table" else [],
    }


def _target(panel: Panel, legend: str, query: str, letter: str) -> dict[str, Any]:
    instant = panel.kind == "table"
    return {
        "refId": letter,
        "datasource": DATASOURCE,
        "editorMode": "code",
        "expr": selected(query),
        "legendFormat": legend or "__auto",
        "format": "table" if instant else "heatmap" if panel.buckets else "time_series",
        "instant": instant,
        "range": not instant,
    }


def _field(panel: Panel) -> dict[str, Any]:
    steps = [{"value": value, "color": color} for value, color in panel.thresholds]
    line = panel.kind == "timeseries"
    field: dict[str, Any] = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if line else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "custom": {},
    }
    if line:
        style = "dashed" if len(steps) > 1 else "off"
        field["custom"] = {"fillOpacity": 8, "lineWidth": 1, "showPoints": "never", "thresholdsStyle": {"mode": style}}
    if panel.decimals is not None:
        field["decimals"] = panel.decimals
    if panel.minimum is not None:
        field["min"] = panel.minimum
    return field


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}
OPTIONS: dict[Kind, dict[str, Any]] = {
    "stat": {"reduceOptions": _LAST, "colorMode": "background", "graphMode": "area", "textMode": "auto"},
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "bargauge": {"reduceOptions": _LAST, "displayMode": "basic", "orientation": "horizontal", "valueMode": "color"},
    "table": {"showHeader": True, "cellHeight": "sm"},
}
HIDDEN_COLUMNS = [{"id": "organize", "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True}}}]
