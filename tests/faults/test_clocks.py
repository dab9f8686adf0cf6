"""A wall clock that jumps: nothing depends on it but what is measured."""

from __future__ import annotations

import pytest

from tests.faults.stage import Stage
from tests.faults.verdict import Outcomes, judge

pytestmark = [pytest.mark.kafka, pytest.mark.long]

#: Seconds off. Not an hour ahead: a broker refuses records from further in the future.
JUMPS = "0,-1,0.5,3000,-3600,0,-86400,-0.01"


def test_a_clock_that_jumps_loses_nothing(stage: Stage, undisturbed: Outcomes) -> None:
    paced = {"max_batch_ticks": 40, "min_batch_ms": 20, "checkpoint_seconds": 0.3}
    daemon = stage.planted("0", ["clock_jumps", JUMPS], pipeline=paced).wait_ready()
    stage.await_progress(8000)
    metrics = daemon.metrics()
    ahead, total = metrics["tickcast_negative_latency_total"], metrics["tickcast_end_to_end_latency_seconds_count"]
    least = metrics['tickcast_end_to_end_latency_seconds_bucket{le="0.0005"}']
    stage.tell(f"{ahead:.0f} of {total:.0f} ticks seem to come from the future")
    assert 0 < ahead < total
    assert ahead <= least, "a latency below zero counts as zero"
    assert metrics["tickcast_end_to_end_latency_seconds_sum"] > 0
    daemon.kill()
    daemon.start()
    stage.finish()
    judge(stage, undisturbed)
    assert stage.logged("transaction failed") == 0
