"""Asks a Prometheus what the panels would show, and says it as a list: no Grafana is needed for that."""

from __future__ import annotations

import json
import math
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping

from daemon.dev.dashboards.grafana import Dashboard, Panel, selected

#: What Grafana would put for its variables: everything, and four scrapes.
VARIABLES = {"$job": ".+", "$instance": ".+", "$instrument": ".+", "$__rate_interval": "20s"}
#: Series of one query that are written out.
SERIES_MAX = 14
TIMEOUT_SECONDS = 30.0


class Prometheus:
    """A server that answers queries.

    Parameters
    ----------
    url : e.g. ``http://127.0.0.1:9090``
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and present value of every series of a query.

        Raises
        ------
        OSError : nobody answers, or the query is refused
        """
        body = urllib.parse.urlencode({"query": expr}).encode()
        with urllib.request.urlopen(f"{self._url}/api/v1/query", body, TIMEOUT_SECONDS) as answer:  # noqa: S310
            found = json.loads(answer.read())["data"]["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]


def filled(query: str) -> str:
    """Return a query of a panel with its variables filled in."""
    expr = selected(query)
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    return expr


def listed(dashboard: Dashboard, prometheus: Prometheus) -> Iterator[str]:
    """Yield a dashboard as Markdown: a heading, a list of panels for each row, and what each shows now."""
    yield f"## {dashboard.title}"
    yield ""
    yield dashboard.description
    for row in dashboard.rows:
        yield ""
        yield f"### {row.title}"
        yield ""
        for panel in row.panels:
            shown = "; ".join(
                text for legend, query in panel.queries.items() for text in _values(panel, legend, query, prometheus)
            )
            yield f"- **{panel.title}**: {shown or 'no data'}"
    yield ""


def _values(panel: Panel, legend: str, query: str, prometheus: Prometheus) -> Iterator[str]:
    found = prometheus.query(filled(query))
    if panel.kind == "table":
        for labels, _ in found:
            yield ", ".join(f"{name} {text}" for name, text in labels.items() if name != "__name__")
        return
    if len(found) > SERIES_MAX and len({value for _, value in found}) == 1:
        yield f"all {len(found)}: {with_unit(found[0][1], panel.unit)}"
        return
    shown = sorted(((_named(legend, labels), value) for labels, value in found), key=lambda pair: _natural(pair[0]))
    for name, value in shown[:SERIES_MAX]:
        yield f"{name}: {with_unit(value, panel.unit)}" if name else with_unit(value, panel.unit)
    if len(found) > SERIES_MAX:
        yield f"and {len(found) - SERIES_MAX} more"


def _named(legend: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace("{{" + name + "}}", value)
    return legend


def _natural(name: str) -> list[tuple[float, str]]:
    """Return a key that sorts numbers in a text by their size, and +Inf behind them."""
    parts = re.split(r"(\d+(?:\.\d+)?|\+Inf)", name)
    return [(float(part), "") if at % 2 else (0.0, part) for at, part in enumerate(parts)]


def with_unit(value: float, unit: str) -> str:
    """Return a number as Grafana would write it: three figures, in its unit."""
    if math.isnan(value):
        return "nothing yet"
    if unit == "percentunit":
        return f"{_short(100 * value)} %"
    if unit == "bytes":
        return f"{_short(value / 2**20)} MiB" if value >= 2**20 else f"{_short(value / 2**10)} KiB"
    if unit == "s":
        return _duration(value)
    return f"{_short(value)} {unit.removeprefix('none').removeprefix('suffix:')}".replace(" /", "/").rstrip()


def _duration(seconds: float) -> str:
    for size, name in ((365.25 * 86400, "years"), (86400, "days"), (3600, "h"), (60, "min")):
        if abs(seconds) >= 2 * size:
            return f"{_short(seconds / size)} {name}"
    return f"{_short(seconds)} s" if abs(seconds) >= 1 else f"{_short(1000 * seconds)} ms"


def _short(value: float) -> str:
    if value.is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
