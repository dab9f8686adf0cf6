"""docs/scaling.md says what was measured and what the model makes of it, and nothing older."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.scaling import KEPT
from bench.scaling_page import SECTIONS, Found, costs_of

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


@pytest.fixture(scope="module")
def kept() -> Found:
    """What was measured."""
    return json.loads(KEPT.read_text("utf-8"))


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_is_what_was_measured(name: str, kept: Found) -> None:
    """`python -m bench.scaling docs/scaling.md --only` writes the page anew from what is kept."""
    assert f"<!-- {name} -->\n\n{SECTIONS[name](kept)}\n\n<!-- /{name} -->" in PAGE.read_text("utf-8")


def test_the_costs_of_a_client_are_those_that_were_measured(kept: Found) -> None:
    for client, measured in kept["costs"].items():
        costs = costs_of(kept, client)
        assert (costs.tick_us, costs.snapshot_us) == (measured["tick_us"], measured["snapshot_us"])
        stages = kept["start"]["1000000"]["stages"]
        spent = stages["records read, seconds"] + stages["snapshots put back, seconds"]
        assert costs.restored_us == pytest.approx(spent, rel=0.01)  # microseconds of one: seconds of a million
