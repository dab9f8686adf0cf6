"""docs/scaling.md says what was measured and what the model makes of it, and nothing older."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.scaling import KEPT
from bench.scaling_page import SECTIONS, Found, costs_of

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def size(instruments: int, against_few: float) -> Found:
    """Return what `bench.wide` says of so many instruments."""
    return {
        "instruments": instruments,
        "partitions": 8,
        "rest, bytes an instrument": 3300.0,
        "awake, bytes an instrument": 4200.0,
        "resident, MB": 4300.0,
        "snapshot, bytes": 2565.0,
        "us a tick": 20.0 * against_few,
        "against few": against_few,
        "longest, ms": {"batch": 60.0, "checkpoint": 1200.0},
    }


def made() -> Found:
    """Return figures that nobody measured, as `bench.scaling` keeps them."""
    stages = {
        "records read, seconds": 20.0,
        "snapshots put back, seconds": 10.0,
        "records read, a second": 50_000.0,
        "snapshots put back, a second": 100_000.0,
        "ticks replayed, a second": 40_000.0,
    }
    client = {"tick_us": 50.0, "snapshot_us": 40.0, "tick_bytes": 60.0, "forecast_bytes": 200.0, "process_mb": 90.0}
    return {
        "machine": "on paper",
        "wide": {"sizes": [size(1, 3.0), size(1000, 1.0), size(1_000_000, 1.05)]},
        "start": {
            "machine": "on paper",
            "1000000": {"ready_seconds": 35.0, "resident_mb": 3800.0, "peak_resident_mb": 3900.0, "stages": stages},
        },
        "workers": {"cores": 2, "ticks": 10, "1": {"ticks/s": 9e3, "against": 1.0, "cpu us a tick": 70.0}},
        "costs": {"kafka-python": client, "librdkafka": client | {"tick_us": 20.0}},
    }


def test_the_costs_of_a_client_are_put_together_from_all_that_was_measured() -> None:
    costs = costs_of(made(), "kafka-python")
    assert (costs.tick_us, costs.snapshot_us, costs.process_mb) == (50.0, 40.0, 90.0)
    assert costs.restored_us == pytest.approx(30.0)  # microseconds of one: seconds of a million
    assert costs.replayed_us == pytest.approx(25.0)
    assert costs.instrument_bytes == 4200.0
    assert costs.hot_ticks == pytest.approx(
        1e6 / (50 + 2 * 20)
    )  # its part in the pipeline alone takes three times as long


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("machine", ["on paper", "2 cores"]),
        ("wide", ["| 1,000,000 | 8 | 3.3 | 4.2 | 4.3 | 1.05 |", "| 1,000,000 | 8 | 60 | 1,200 |"]),
        ("start", ["| 1,000,000 | 35 s | 20 s | 10 s | 3.8 GB | 3.9 GB |"]),
        ("workers", ["| 1 | 9,000 | 1.00 | 70 us |"]),
        ("costs", ["| what | kafka-python | librdkafka |", "| a tick, without checkpoints | 50 us | 20 us |"]),
        ("loads", ["With kafka-python and `checkpoint_seconds = 5`", "With librdkafka and `checkpoint_seconds = 60`"]),
        ("breaks", ["1. **The state topic**", "librdkafka here", "6. **The group.**"]),
    ],
)
def test_a_section_says_what_it_was_given(name: str, said: list[str]) -> None:
    text = SECTIONS[name](made())
    assert [each for each in said if each not in text] == []


@pytest.mark.parametrize("name", SECTIONS)
def test_the_page_is_what_was_measured(name: str) -> None:
    """`python -m bench.scaling docs/scaling.md --only` writes it anew from what is kept."""
    kept = json.loads(KEPT.read_text("utf-8"))
    assert f"<!-- {name} -->\n\n{SECTIONS[name](kept)}\n\n<!-- /{name} -->" in PAGE.read_text("utf-8")
