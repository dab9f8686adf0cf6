"""Rules and alerts: valid, proven to fire and to stay quiet, and each with a page that says what to do."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from daemon.dev.dashboards.overview import LATENCY_TARGET_SECONDS
from daemon.histogram import SECONDS_BUCKETS
from tests.deploy.stage import SHIPPED, tool

ROOT = Path(__file__).parents[2]
OPERATING = ROOT / "docs" / "operating.md"
TESTS = sorted((SHIPPED / "tests").glob("*.yml"))
FIRING = re.compile(r'ALERTS\{alertname="(\w+)", alertstate="firing"\}')


@cache
def rules() -> list[dict[str, Any]]:
    found = []
    for file in ("rules.yml", "alerts.yml"):
        for group in yaml.safe_load((SHIPPED / file).read_text("utf-8"))["groups"]:
            found += group["rules"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [tool("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=120, cwd=SHIPPED
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_configuration_and_its_rules_are_valid() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml", "alerts.yml")


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_rules_do_what_their_tests_say(file: Path) -> None:
    promtool("test", "rules", file)


def test_every_alert_is_shown_to_fire_and_to_stay_quiet() -> None:
    fires: dict[str, set[bool]] = defaultdict(set)
    for file in TESTS:
        for group in yaml.safe_load(file.read_text("utf-8"))["tests"]:
            for case in group["promql_expr_test"]:
                (name,) = FIRING.findall(case["expr"])
                fires[name].add(bool(case["exp_samples"]))
    assert fires == {alert["alert"]: {True, False} for alert in alerts()}


def test_every_alert_says_how_bad_what_and_where_to_read_on() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket"), alert
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}, alert
        assert alert["annotations"]["runbook"] == f"docs/operating.md#{alert['alert'].lower()}"


def test_every_alert_has_its_page_and_no_page_is_left_over() -> None:
    headings = re.findall(r"^### (Tickcast\w+)$", OPERATING.read_text("utf-8"), re.MULTILINE)
    assert headings == [alert["alert"] for alert in alerts()]


def test_the_latency_that_is_promised_is_a_bound_of_the_histogram() -> None:
    promised = {float(bound) for rule in rules() for bound in re.findall(r'le="([^"]+)"', rule["expr"])}
    assert promised == {LATENCY_TARGET_SECONDS}
    assert promised <= set(SECONDS_BUCKETS)


def test_only_alerts_on_the_job_itself_name_it() -> None:
    """Whoever runs two groups gives them jobs of their own."""
    named = {rule["alert"] for rule in rules() if 'job="' in rule["expr"]}
    assert named == {"TickcastAbsent", "TickcastDown", "TickcastRestarts"}


def test_targets_are_swapped_without_touching_anything_else() -> None:
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text("utf-8"))
    (job,) = config["scrape_configs"]
    assert job == {"job_name": "tickcast", "file_sd_configs": [{"files": ["targets/*.yml"]}]}
    assert config["global"]["scrape_interval"] == "5s"
    assert all(not Path(file).is_absolute() for file in config["rule_files"])
