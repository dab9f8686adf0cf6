"""A broker that dies and comes back over the same records; and one whose disk is full."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from tests.contract.worlds import CLIENTS
from tests.faults.power import Power
from tests.faults.stage import Stage
from tests.faults.verdict import Outcomes, judge

pytestmark = [pytest.mark.kafka, pytest.mark.long]

#: Longer than a transaction, a session and any single request may last without an answer, and less than the minute of
#: `broker_timeout_seconds`.
LONG_SECONDS = 20.0
PACED = {"max_batch_ticks": 20, "min_batch_ms": 20, "checkpoint_seconds": 0.3}


@pytest.fixture(autouse=True)
def mended(power: Power) -> Iterator[None]:
    """Whatever a test does to the broker, the next one finds it running."""
    yield
    if not power.broker.is_running():
        power.restore()


def test_a_broker_that_dies_costs_nothing(stage: Stage, undisturbed: Outcomes) -> None:
    survive_outages(stage, undisturbed, [0.0, 0.5])  # so short ones the clients may ride out


@pytest.mark.parametrize("stage", CLIENTS, indirect=True)
def test_a_broker_is_waited_for_as_long_as_the_settings_say(stage: Stage, undisturbed: Outcomes) -> None:
    survive_outages(stage, undisturbed, [LONG_SECONDS])
    assert stage.logged("transaction failed") >= 1


def survive_outages(stage: Stage, undisturbed: Outcomes, outages: Sequence[float]) -> None:
    daemons = [stage.daemon(name, pipeline=PACED).wait_ready() for name in ("one", "two")]
    for seconds in outages:
        stage.await_progress(1500)
        away = stage.power.fail(seconds)
        stage.tell(f"the broker was away for {away:.1f} s, {stage.logged('transaction failed')} failed so far")
        began = time.monotonic()
        stage.await_progress(1)
        stage.tell(f"outcomes again {time.monotonic() - began:.1f} s after its return")
        assert all(daemon.process.poll() is None for daemon in daemons), stage.report()
    assert not stage.finished()
    stage.finish()
    judge(stage, undisturbed)


def test_a_full_disk_is_one_clear_line_and_nothing_is_lost(stage: Stage, undisturbed: Outcomes) -> None:
    patience = {"broker_timeout_seconds": 5.0}
    daemons = [stage.daemon(name, pipeline=PACED, kafka=patience).wait_ready() for name in ("one", "two")]
    stage.await_progress(1000)
    written = (stage.power.broker.directory / "log").glob(f"{stage.topics.forecasts}-*/*.log")
    stage.power.fill_disk(max(file.stat().st_size for file in written) + 1)
    began = time.monotonic()
    stage.await_that(lambda: not stage.power.broker.is_running(), "the broker gives up", 60)
    stage.tell(f"the broker ended {time.monotonic() - began:.1f} s after its disk was full")
    stage.await_that(lambda: all(d.process.poll() is not None for d in daemons), "the daemons give up", 60)
    stage.tell(f"the daemons ended after {time.monotonic() - began:.1f} s: {[d.process.returncode for d in daemons]}")
    for daemon in daemons:
        lines = [line for line in daemon.log.read_text().splitlines() if not line.startswith("{")]
        stage.tell(f"it said: {lines}")
        assert daemon.process.returncode == 4, stage.report()
        assert len(lines) == 1, stage.report()
        assert "broker" in lines[0]
    stage.power.restore()
    for daemon in daemons:
        daemon.start().wait_ready()
    stage.finish()
    judge(stage, undisturbed)
