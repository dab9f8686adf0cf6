"""Every panel shows something: a real Prometheus is asked all their queries, over a daemon with ticks to answer."""

from __future__ import annotations

import json
import math
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from daemon.core.spec import Column
from daemon.dev.dashboards import DASHBOARDS
from daemon.dev.dashboards.__main__ import main
from daemon.dev.dashboards.grafana import Panel
from daemon.dev.dashboards.values import filled
from tests.bundles import tiny_bundle
from tests.deploy.stage import SHIPPED, Stage, await_that, market, running_stage, tool
from tests.kafka_fixture import make_topics

pytestmark = pytest.mark.kafka

#: One column of either scale.
COLUMNS = (Column("return", "running", std=1e-4), Column("imbalance", mean=0.1, std=0.5), Column("spread", "running"))
#: Made by Prometheus itself for every target.
OF_PROMETHEUS = {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
PANELS = [
    pytest.param(panel, id=f"{dashboard.uid}: {panel.title}") for dashboard in DASHBOARDS for panel in dashboard.panels
]


@pytest.fixture(scope="module")
def stage(kafka: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    tool("prometheus")
    try:
        real = request.getfixturevalue("real_ticks")
    except pytest.skip.Exception:
        real = None  # the simulated market will do
    directory = tmp_path_factory.mktemp("stage")
    bundle = tiny_bundle(directory, columns=COLUMNS).path
    with running_stage(kafka, make_topics(kafka, "panels"), bundle, directory, market(real)) as made:
        yield made


@pytest.fixture(scope="module")
def exposition(stage: Stage) -> str:
    """What the daemon says once it has answered ticks."""
    await_that(lambda: "tickcast_prediction_variance{" in stage.daemon.exposition(), stage.daemon.tail)
    return stage.daemon.exposition()


def names_of(exposition: str) -> set[str]:
    """Return the names of all series."""
    return {re.split(r"[{ ]", line)[0] for line in exposition.splitlines() if not line.startswith("#")}


def names_in(expr: str) -> set[str]:
    """Return the names of series that a query asks for; label names and functions are none."""
    bare = re.sub(r"\{[^}]*\}|\b(by|on|ignoring|group_left) \([^)]*\)", "", expr)
    return set(re.findall(r"\b(?:(?:tickcast|process|scrape)_\w+|up)\b", bare))


@pytest.mark.parametrize("panel", PANELS)
def test_every_panel_shows_something(stage: Stage, panel: Panel) -> None:
    for query in panel.queries.values():
        expr = filled(query)

        def shown(expr: str = expr) -> bool:
            return any(math.isfinite(value) for _, value in stage.prometheus.query(expr))

        await_that(shown, lambda expr=expr: f"{expr} gives {stage.prometheus.query(expr)}")  # type: ignore[misc]


def test_every_series_that_is_asked_for_exists(exposition: str) -> None:
    rules = [
        rule
        for file in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((SHIPPED / file).read_text("utf-8"))["groups"]
        for rule in group["rules"]
    ]
    panels = (query for dashboard in DASHBOARDS for panel in dashboard.panels for query in panel.queries.values())
    asked = set().union(*map(names_in, [*(rule["expr"] for rule in rules), *panels]))
    recorded = {rule["record"].partition(":")[2].rpartition(":")[0] for rule in rules if "record" in rule}
    assert len(asked) > 40
    assert asked - names_of(exposition) - OF_PROMETHEUS - recorded == set()


def test_every_series_of_ours_is_in_the_table_of_the_readme(exposition: str) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    named = set(re.findall(r"^\| `(tickcast_\w+)`", readme, re.MULTILINE))
    said = {line.split()[2] for line in exposition.splitlines() if line.startswith("# TYPE tickcast_")}
    assert {name for name in said if not re.search(r"_g(count|sum)$", name)} == named


def test_promtool_has_nothing_to_say_about_the_live_metrics(exposition: str) -> None:
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=exposition, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_prometheus_evaluates_every_rule(stage: Stage) -> None:
    def states() -> dict[str, tuple[str, str]]:
        with urllib.request.urlopen(f"{stage.url}/api/v1/rules", timeout=10) as answer:
            groups = json.loads(answer.read())["data"]["groups"]
        return {rule["name"]: (rule["health"], rule.get("lastError", "")) for each in groups for rule in each["rules"]}

    await_that(lambda: all(health != "unknown" for health, _ in states().values()), lambda: str(states()))
    assert {name: state for name, state in states().items() if state[0] != "ok"} == {}


def test_the_list_of_panels_says_what_each_shows(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--queries", stage.url]) == 0
    said = capsys.readouterr().out
    assert "- **Same input again, must be 0**: 0\n" in said
    assert "**Dead letters**: all 16: 0/s\n" in said
    assert said.index("up to 3.0:") < said.index("up to 10.0:") < said.index("up to +Inf:")
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            assert f"- **{panel.title}**: " in said


def test_without_a_prometheus_the_list_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--queries", "http://127.0.0.1:9"]) == 1
    assert "is a Prometheus running there?" in capsys.readouterr().err
