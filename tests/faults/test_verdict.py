"""That the verdict bites: a defect which only the bits of a payload can show is found."""

from __future__ import annotations

import pytest

from tests.faults.stage import Stage
from tests.faults.verdict import Outcomes, judge

pytestmark = pytest.mark.kafka


def test_states_that_are_too_old_are_noticed(stage: Stage, undisturbed: Outcomes) -> None:
    daemon = stage.planted("0", ["skips_replay"], pipeline={"max_batch_ticks": 500}).wait_ready()
    stage.await_progress(3000)
    daemon.kill()
    daemon.start().wait_ready()
    stage.await_end()
    with pytest.raises(AssertionError, match="outcomes differ, the first is of"):
        judge(stage, undisturbed)
