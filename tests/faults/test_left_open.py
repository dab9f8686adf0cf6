"""A transaction left open by a process that does not come back."""

from __future__ import annotations

import time

import pytest

from tests.faults.stage import Stage, partitions_of
from tests.faults.verdict import Outcomes, judge

pytestmark = [pytest.mark.kafka, pytest.mark.long]

#: 10 s of a transaction, 10 s of a session, whichever ends later, a second until the broker looks, a rebalance and a
#: restore; and a busy machine.
AT_MOST_SECONDS = 25.0


def test_a_transaction_left_open_is_waited_out(stage: Stage, undisturbed: Outcomes) -> None:
    paced = {"max_batch_ticks": 20, "min_batch_ms": 20, "checkpoint_seconds": 0.3}
    heir = stage.daemon("heir", pipeline=paced).wait_ready()
    stage.await_progress(500)
    ghost = stage.planted("ghost", ["strikes_at", "KILL", "offsets", "checkpoint", "4"], pipeline=paced)
    assert ghost.process.wait(60) == -9, stage.report()
    died = time.monotonic()
    topics = stage.view.open_transaction("ghost")
    left = set(stage.ends) - partitions_of(heir)
    stage.tell(f"the ghost died with a transaction open on {topics and sorted(topics)}, it had partitions {left}")
    assert topics is not None
    assert {stage.topics.forecasts, stage.topics.state} <= topics
    assert len(left) == 2
    stage.await_that(lambda: left <= partitions_of(heir), "its partitions are at work", 2 * AT_MOST_SECONDS)
    waited = time.monotonic() - died
    stage.tell(f"its partitions were at work after {waited:.1f} s")
    assert waited < AT_MOST_SECONDS
    stage.finish()
    judge(stage, undisturbed)
    assert stage.logged("transaction failed", heir) == 0
