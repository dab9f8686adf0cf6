"""A process that sleeps past its session timeout, and wakes while others own what it thinks is its own."""

from __future__ import annotations

import signal
import time

import psutil  # type: ignore[import-untyped]
import pytest

from daemon.dev.child import ChildDaemon
from tests.contract.worlds import CLIENTS
from tests.e2e.world import PARTITIONS
from tests.faults.stage import Stage, partitions_of
from tests.faults.verdict import Outcomes, judge

pytestmark = [pytest.mark.kafka, pytest.mark.long]

#: Slow enough that ticks are left when the zombies wake.
SLOW = {"max_batch_ticks": 20, "min_batch_ms": 30, "checkpoint_seconds": 0.3}
ALL = set(range(PARTITIONS))


@pytest.mark.parametrize("stage", CLIENTS, indirect=True)
def test_zombies_write_nothing(stage: Stage, undisturbed: Outcomes) -> None:
    goes_on = stage.daemon("goes-on", pipeline=SLOW).wait_ready()
    # One falls asleep with all but its commit done, in a checkpoint; one before its offsets are sent.
    sleeper = stage.planted("sleeper", ["strikes_at", "STOP", "offsets", "checkpoint", "12"], pipeline=SLOW)
    replaced = stage.planted("replaced", ["strikes_at", "STOP", "written", "any", "60"], pipeline=SLOW)
    stage.await_that(lambda: is_frozen(sleeper) and is_frozen(replaced), "both have fallen asleep")
    frozen_at = time.monotonic()
    before = stage.view.committed()
    left = ALL - partitions_of(goes_on)
    slept = {name: stage.view.open_transaction(name) for name in ("sleeper", "replaced")}
    stage.tell(f"asleep with partitions {sorted(left)}, open: {slept}")
    heir = ChildDaemon(stage.directory, stage.settings("replaced", pipeline=SLOW), name="heir")
    stage.daemons.append(heir.start())
    stage.await_that(
        lambda: all(stage.view.committed()[p] > before[p] for p in left), "others answer the ticks of those asleep"
    )
    stage.tell(f"others go on with their partitions {time.monotonic() - frozen_at:.1f} s later")
    assert time.monotonic() - frozen_at > 9, "the session timeout has not passed"
    assert not stage.finished()
    recovered = stage.logged("partition recovered", sleeper)
    for zombie in (sleeper, replaced):
        zombie.process.send_signal(signal.SIGCONT)
    woken_at = time.monotonic()
    stage.await_that(lambda: replaced.process.poll() is not None, "the replaced one ends")
    stage.tell(f"the replaced one ended with {replaced.process.returncode} after {time.monotonic() - woken_at:.1f} s")
    stage.await_that(lambda: stage.logged("partition recovered", sleeper) > recovered, "the sleeper is back")
    stage.tell(f"the sleeper is at work again {time.monotonic() - woken_at:.1f} s after it woke")
    stage.finish()
    judge(stage, undisturbed)
    assert replaced.process.returncode == 7
    assert sleeper.process.returncode == 0, "a sleeper whose name nobody took is an ordinary member again"
    assert stage.logged("transaction failed", sleeper) >= 1
    assert slept["sleeper"] is not None
    assert stage.topics.state in slept["sleeper"]


def is_frozen(daemon: ChildDaemon) -> bool:
    return bool(psutil.Process(daemon.process.pid).status() == psutil.STATUS_STOPPED)
