"""Instances that come and go: planned hand-overs, a restore that others disturb, and a minute of both and of kills."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from daemon.dev.child import ChildDaemon
from tests.e2e.world import PARTITIONS
from tests.faults.stage import Stage, partitions_of
from tests.faults.verdict import Outcomes, judge

pytestmark = [pytest.mark.kafka, pytest.mark.long]

NAMES = ("a", "b", "c", "d")
FLEET_PACE = {"max_batch_ticks": 25, "min_batch_ms": 60, "checkpoint_seconds": 0.5}
ALL = set(range(PARTITIONS))


def test_planned_hand_overs_replay_nothing(stage: Stage, undisturbed: Outcomes) -> None:
    paced = {"max_batch_ticks": 60, "min_batch_ms": 40}
    stay = {"stop": "stay"}
    one = stage.daemon("one", pipeline=paced).wait_ready()
    stage.await_progress(1000)
    two = stage.daemon("two", pipeline=paced, kafka=stay).wait_ready()
    stage.await_that(lambda: len(partitions_of(two)) == 2, "the newcomer has its share at work")
    stage.tell("one and two share")
    replayed = caught_up(two)
    stage.await_progress(1000)
    assert one.stop() == 0
    stage.await_that(lambda: partitions_of(two) == ALL, "the other has all at work")
    stage.tell(f"one left; two replayed {caught_up(two) - replayed:.0f} ticks of what one gave up")
    assert caught_up(two) == replayed, "a checkpoint is written before a planned end"
    stage.await_progress(1000)
    assert two.stop() == 0
    two.start().wait_ready()
    stage.await_that(lambda: partitions_of(two) == ALL, "all at work again")
    assert caught_up(two) == 0
    stage.tell("two was restarted in its place")
    one.start().wait_ready()
    stage.await_that(lambda: len(partitions_of(one)) == 2, "one has its share again")
    assert not stage.finished()
    stage.finish()
    judge(stage, undisturbed)
    assert stage.logged("transaction failed") == 0


def test_a_slow_restore_is_disturbed_and_holds_nobody_up(stage: Stage, undisturbed: Outcomes) -> None:
    never = {"checkpoint_seconds": 1000.0, "checkpoint_ticks": 1_000_000, "max_batch_ticks": 20, "min_batch_ms": 30}
    keeper = stage.daemon("keeper", pipeline=never).wait_ready()
    stage.await_that(lambda: min(stage.view.committed().values()) > 1500, "every partition has a past to replay")
    slow = stage.planted("slow", ["slow_reads", "0.3"], pipeline=never)
    stage.await_that(lambda: remaining(slow) > 0, "the slow one replays")
    stage.daemon("third", pipeline=never)
    kept = partitions_of(keeper)
    stage.tell(f"the slow one replays {remaining(slow):.0f} ticks, the other keeps {sorted(kept)}")
    before = stage.view.committed()
    stage.await_that(lambda: any(stage.view.committed()[p] > before[p] + 300 for p in kept), "the others go on")
    assert remaining(slow) > 0, "the restore was not slow"
    stage.await_that(lambda: stage.logged("partitions assigned") >= 3, "a third one has its share")
    interrupted = remaining(slow)
    stage.tell(f"a third one has its share; the slow one has {interrupted:.0f} ticks to replay")
    slow.kill()
    stage.tell(f"the slow one was killed; it had recovered {stage.logged('partition recovered', slow)} partitions")
    slow.start()
    stage.await_that(lambda: remaining(slow) > 0, "the slow one replays again")
    slow.kill()
    slow.plant = []
    slow.start().wait_ready()
    assert interrupted > 0, "the rebalance came after the restore"
    assert not stage.finished()
    stage.finish()
    judge(stage, undisturbed)


@pytest.mark.parametrize("seed", [12])
def test_a_minute_of_comings_and_goings(stage: Stage, undisturbed: Outcomes, seed: int) -> None:
    fleet = Fleet(stage, seed)
    stage.tell(f"seed {seed}")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        fleet.act()
        time.sleep(fleet.rng.uniform(1.0, 4.0))  # the pace of the faults is drawn: there is nothing to wait for
    stage.tell(f"{dict(fleet.actions)}, {stage.answered_count()} offsets answered")
    assert not stage.finished(), "nothing was left to do at the end"
    fleet.stop()
    stage.finish()
    judge(stage, undisturbed)
    assert all(fleet.actions[action] >= 3 for action in ("start", "stop", "kill"))


class Fleet:
    """Instances of one group, started, stopped and killed at random."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage = stage
        self.rng = random.Random(seed)
        self.actions: Counter[str] = Counter()
        self._running: dict[str, ChildDaemon] = {}
        self._resting: dict[str, ChildDaemon | None] = dict.fromkeys(NAMES)

    def act(self) -> None:
        """Start an instance, stop one or kill one, whichever is possible."""
        possible = ["start"] * bool(self._resting) + ["stop", "kill"] * (len(self._running) > 1)
        action = self.rng.choice(possible)
        self.actions[action] += 1
        name = self.rng.choice(sorted(self._resting if action == "start" else self._running))
        self.stage.tell(f"{action} {name}; {self.stage.answered_count()} answered")
        getattr(self, f"_{action}")(name)

    def stop(self) -> None:
        """Stop all that run."""
        for name in sorted(self._running):
            self._stop(name)

    def _start(self, name: str) -> None:
        daemon = self._resting.pop(name)
        if daemon is None:
            how = {"stop": self.rng.choice(["leave", "stay"])}
            daemon = self.stage.daemon(name, pipeline=FLEET_PACE, kafka=how)
        else:
            daemon.start()
        self._running[name] = daemon

    def _stop(self, name: str) -> None:
        daemon = self._resting[name] = self._running.pop(name)
        # One that has not come further than its start ends by the signal itself.
        assert daemon.stop() in (0, -15), self.stage.report()

    def _kill(self, name: str) -> None:
        daemon = self._resting[name] = self._running.pop(name)
        daemon.kill()


def caught_up(daemon: ChildDaemon) -> float:
    return daemon.metrics()['tickcast_ticks_total{outcome="catch_up"}']


def remaining(daemon: ChildDaemon) -> float:
    return logged_metrics(daemon).get("tickcast_restore_remaining_ticks", 0.0)


def logged_metrics(daemon: ChildDaemon) -> dict[str, float]:
    """Return the metrics of a daemon that may not serve them yet."""
    if daemon._port is None:
        daemon._port = daemon._logged_port()
    try:
        return daemon.metrics() if daemon._port is not None else {}
    except OSError:
        return {}
