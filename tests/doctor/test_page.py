"""The page of findings is that of the code, and every check has its made cases."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from daemon.dev.doctor_page import filled
from daemon.doctor import all_checks
from daemon.doctor.finding import Check, Clear, Finding, Measurement, Skipped, judge, registered

ROOT = Path(__file__).parents[2]


def test_the_table_of_findings_is_that_of_the_code():
    text = (ROOT / "docs" / "doctor.md").read_text("utf-8")
    assert filled(text) == text, "run: python -m daemon.dev.doctor_page docs/doctor.md"


def test_the_families_hold_every_registered_check():
    assert set(all_checks()) == set(registered())


def test_a_page_without_markers_is_refused():
    with pytest.raises(SystemExit, match="findings"):
        filled("# nothing")


def cases() -> set[tuple[str, str]]:
    """Return which verdicts the tests beside this one reach on which checks: ("found", code) and ("clear", code)."""
    reached = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            code = node.args[-1].value if isinstance(node.args[-1], ast.Constant) else None
            # a loop over both verdicts names them `judge`
            verdicts = ("found", "clear") if node.func.id == "judge" else (node.func.id,)
            reached |= {(verdict, code) for verdict in verdicts}
    return reached


@pytest.mark.parametrize("verdict", ["found", "clear"])
def test_every_check_has_a_case_that_triggers_it_and_one_that_does_not(verdict):
    reached = cases()
    assert [check.code for check in all_checks() if (verdict, check.code) not in reached] == []


@pytest.mark.parametrize("text", ["title", "measures", "remedy"])
def test_tables_can_hold_every_text(text):
    assert all("|" not in getattr(check, text) and getattr(check, text) for check in all_checks())


CHECK = Check(
    code="made", of=("data",), severity="warning", title="t", measures="m", limit=1.0, problem_limit=5.0, remedy="r"
)


@pytest.mark.parametrize(("value", "severity"), [(1.5, "warning"), (6.0, "problem"), (float("nan"), "problem")])
def test_beyond_the_limit_is_a_finding_and_further_a_problem(value, severity):
    outcome = judge(CHECK, [Measurement(0.0), Measurement(value, "A")])
    assert isinstance(outcome, Finding)
    assert (outcome.severity, [each.instrument for each in outcome.evidence]) == (severity, ["A"])


def test_at_the_limit_is_clear_and_nothing_measured_is_not_made():
    assert judge(CHECK, [Measurement(0.5), Measurement(1.0)]) == Clear(CHECK, 1.0)
    assert judge(CHECK, [], otherwise="why") == Skipped(CHECK, "why")
