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
    slept: dict[str, frozenset[str]] = {}

    def both_sleep() -> bool:
        for name, each in (("sleeper", sleeper), ("replaced", replaced)):
            # At once: soon the coordinator ends it. A busy cluster may leave the question without an answer.
            if name not in slept and is_frozen(each) and (topics := stage.view.open_transaction(name)) is not None:
                slept[name] = topics
        return len(slept) == 2

    stage.await_that(both_sleep, "both have fallen asleep in a transaction")
    frozen_at = time.monotonic()
    before = stage.view.committed()
    left = ALL - partitions_of(goes_on)
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
    namesakes = (replaced, heir)
    stage.await_that(lambda: any(each.process.poll() is not None for each in namesakes), "one of a name ends")
    ended, stayed = sorted(namesakes, key=lambda each: each.process.poll() is None)
    stage.tell(f"{ended.log.name} ended with {ended.process.returncode} after {time.monotonic() - woken_at:.1f} s")
    stage.await_that(lambda: stage.logged("partition recovered", sleeper) > recovered, "the sleeper is back")
    stage.tell(f"the sleeper is at work again {time.monotonic() - woken_at:.1f} s after it woke")
    stage.finish()
    judge(stage, undisturbed)
    assert ended.process.returncode == 7
    if stage.client == "kafka-python":
        assert (ended, stayed.process.returncode) == (replaced, 0)
    else:  # librdkafka joins again by itself as it wakes, so either may be the newer one, and at worst both end
        assert stayed.process.returncode in (0, 7)
    assert sleeper.process.returncode == 0, "a sleeper whose name nobody took is an ordinary member again"
    assert stage.logged("transaction failed", sleeper) >= 1
    assert stage.topics.state in slept["sleeper"]


def is_frozen(daemon: ChildDaemon) -> bool:
    return bool(psutil.Process(daemon.process.pid).status() == psutil.STATUS_STOPPED)
