"""Memory does not grow while instruments come and go and sessions change: a minute of what `bench.soak` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.rig import Rig, bench_bundle
from bench.soak import soak

pytestmark = [pytest.mark.kafka, pytest.mark.long]

SECONDS = 75.0
#: A heap takes minutes to settle, some 5 %. Kept for ever, what came and went meanwhile would be 17 %: more than 5,000
#: instruments of 6 KB.
GROWTH_MAX = 0.1


def test_resident_memory_does_not_grow_with_what_came_and_went(kafka: str, tmp_path: Path) -> None:
    found = soak(Rig(kafka, tmp_path), bench_bundle(tmp_path).path, SECONDS)
    metrics = found.metrics
    assert metrics["tickcast_evictions_total"] > 5000
    assert metrics['tickcast_session_resets_total{cause="session"}'] > 10_000
    assert metrics["tickcast_snapshots_total"] > 50_000
    assert metrics['tickcast_transactions_total{outcome="failed"}'] == 0
    assert found.ratio <= 1 + GROWTH_MAX, f"{found.early_mb:.1f} MB early, {found.end_mb:.1f} MB at the end"
