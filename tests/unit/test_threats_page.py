"""Every test that the page about threats leans on exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_statement_names_tests_that_exist():
    file, missing, count = "", [], 0
    for named in re.findall(r"`(tests/[\w/]+\.py)?(::\w+)?`", (ROOT / "docs" / "threats.md").read_text("utf-8")):
        if not any(named):
            continue
        file, test = named[0] or file, named[1].removeprefix("::")
        count += 1
        source = (ROOT / file).read_text("utf-8") if (ROOT / file).is_file() else ""
        if f"def {test}" not in source:
            missing.append(f"{file}::{test}")
    assert count > 20
    assert missing == []
