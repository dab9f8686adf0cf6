"""The JSON of the dashboards: written by the code, and such as Grafana lays it out and people can read it."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.dev.dashboards import DASHBOARDS
from daemon.dev.dashboards.__main__ import FOLDER, text_of
from daemon.dev.dashboards.grafana import Dashboard, to_json
from daemon.dev.dashboards.values import with_unit

ROOT = Path(__file__).parents[2]
PROVISIONING = ROOT / "deploy" / "grafana" / "provisioning"
BOARDS = pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda each: each.uid)
UNITS = {"none", "s", "bytes", "percentunit"}


def panels(dashboard: Dashboard) -> list[dict[str, Any]]:
    return [panel for panel in to_json(dashboard)["panels"] if panel["type"] != "row"]


def test_the_files_are_those_that_the_code_writes() -> None:
    written = {file.name: file.read_text("utf-8") for file in (ROOT / FOLDER).iterdir()}
    made = {f"{dashboard.uid}.json": text_of(dashboard) for dashboard in DASHBOARDS}
    assert written == made, "run: python -m daemon.dev.dashboards"


@BOARDS
def test_panels_stay_inside_the_grid_and_do_not_overlap(dashboard: Dashboard) -> None:
    places = [panel["gridPos"] for panel in to_json(dashboard)["panels"]]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 and place["h"] > 0 for place in places)
    cells = [{(x, y) for x in range(p["x"], p["x"] + p["w"]) for y in range(p["y"], p["y"] + p["h"])} for p in places]
    assert not any(one & other for one, other in combinations(cells, 2))


@BOARDS
def test_ids_are_unique_and_titles_too(dashboard: Dashboard) -> None:
    made = to_json(dashboard)["panels"]
    assert len({panel["id"] for panel in made}) == len(made)
    assert len({panel["title"] for panel in made}) == len(made)


@BOARDS
def test_every_panel_says_what_it_shows_in_which_unit_and_from_where_on_it_is_bad(dashboard: Dashboard) -> None:
    for panel in panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["unit"] in UNITS or defaults["unit"].startswith("suffix:"), panel["title"]
        steps = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert steps[0] is None, panel["title"]
        assert steps[1:] == sorted(steps[1:]), panel["title"]


@BOARDS
def test_all_data_comes_from_the_chosen_source_job_and_instance(dashboard: Dashboard) -> None:
    made = to_json(dashboard)
    variables = {each["name"]: each for each in made["templating"]["list"]}
    assert list(variables)[:3] == ["datasource", "job", "instance"]
    assert ("instrument" in variables) is (dashboard.uid == "tickcast-models")
    sources = [panel["datasource"]["uid"] for panel in panels(dashboard)]
    sources += [target["datasource"]["uid"] for panel in panels(dashboard) for target in panel["targets"]]
    sources += [each["datasource"]["uid"] for each in made["templating"]["list"] if each["type"] == "query"]
    assert set(sources) == {"${datasource}"}
    queries = [target["expr"] for panel in panels(dashboard) for target in panel["targets"]]
    queries += [annotation["expr"] for annotation in made["annotations"]["list"]]
    for query in queries:
        selectors = re.findall(r"\b(?:(?:tickcast|process|scrape)_\w+|up)\b(\{.*?\})?", query)
        assert selectors, query
        assert all('job=~"$job", instance=~"$instance"' in selector for selector in selectors), query
        assert 'job="' not in query


def test_rates_span_the_interval_that_grafana_chooses() -> None:
    """A span of its own would have gaps, or show less than the picture; longer ones are chosen on purpose."""
    spans = {
        (dashboard.uid, span)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for query in panel.queries.values()
        for span in re.findall(r"\[([^]]+)\]", query)
    }
    assert {span for _, span in spans} == {"$__rate_interval", "5m", "1h", "24h"}


def test_the_overview_answers_the_three_questions_first() -> None:
    first = [panel.title for panel in DASHBOARDS[0].rows[0].panels]
    assert first[:3] == [
        "Same input again, must be 0",
        "Spread of different forecasts, must not be 0",
        "End-to-end latency, p99",
    ]


def test_the_source_and_the_folder_are_provisioned() -> None:
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"]
    assert (source["type"], source["uid"]) == ("prometheus", "tickcast-prometheus")
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))["global"]
    assert source["jsonData"]["timeInterval"] == scraped["scrape_interval"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "tickcast.yaml").read_text("utf-8"))["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def test_dashboards_are_plain_json() -> None:
    for file in (ROOT / FOLDER).iterdir():
        assert json.loads(file.read_text("utf-8"))["schemaVersion"] == 39


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (0.0123, "s", "12.3 ms"),
        (float(100 * 86400), "s", "100 days"),
        (0.5, "percentunit", "50 %"),
        (3 * 2.0**20, "bytes", "3 MiB"),
        (1536.0, "bytes", "1.5 KiB"),
        (199.84, "suffix:/s", "200/s"),
        (12345.6, "suffix:ticks", "12,346 ticks"),
        (0.0, "none", "0"),
        (float("nan"), "s", "nothing yet"),
        (float("inf"), "none", "inf"),
    ],
)
def test_values_are_said_as_people_read_them(value: float, unit: str, said: str) -> None:
    assert with_unit(value, unit) == said
