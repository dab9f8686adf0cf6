"""`kill -9` at any moment, and an immediate restart under the same name."""

from __future__ import annotations

import random
import time
from collections import Counter

import pytest

from daemon.dev.child import ChildDaemon
from tests.contract.worlds import CLIENTS
from tests.faults.stage import Stage
from tests.faults.verdict import Outcomes, judge

pytestmark = [pytest.mark.kafka, pytest.mark.long]

#: A checkpoint in every second transaction or so, so that kills often strike one.
OFTEN = {"max_batch_ticks": 80, "checkpoint_seconds": 0.1}


class Victim:
    """A daemon that is killed and started again, over and over, under one name."""

    def __init__(self, stage: Stage, daemon: ChildDaemon, seed: int) -> None:
        self.stage = stage
        self.daemon = daemon
        self.rng = random.Random(seed)
        #: What the kills struck.
        self.struck: Counter[str] = Counter()

    def kill_while(self, moment: str) -> None:
        """Wait for the moment, kill the daemon, start it again at once, and note what the kill struck."""
        before = self._phases()
        waits = {
            "starting": self._starting,
            "restoring": self._restoring,
            "working": self._working,
            "saving": self._saving,
        }
        waits[moment](before)
        self.daemon.kill()
        phases = self._phases() - before
        topics = self.stage.view.open_transaction("0")  # a new process needs a second until it aborts it
        self.daemon.start()
        if phases["assigned"] and phases["recovered"] < 4:
            self.struck["a restore"] += 1
        if not phases["recovered"]:
            self.struck["before the first transaction"] += 1
        if topics is not None and phases["recovered"]:  # else it is still the one of the last life
            self.struck["an open transaction"] += 1
            self.struck["a checkpoint"] += self.stage.topics.state in topics
        self.stage.tell(
            f"killed while {moment} at {self.stage.answered_count()}, {phases['recovered']} partitions recovered, "
            f"open: {'nothing' if topics is None else sorted(topics) or 'offsets'}"
        )

    def _starting(self, before: Counter[str]) -> None:
        time.sleep(self.rng.uniform(0.0, 1.2))  # the moment is drawn: there is nothing to wait for

    def _restoring(self, before: Counter[str]) -> None:
        self.stage.await_that(lambda: self._phases()["assigned"] > before["assigned"], "partitions are assigned")
        time.sleep(self.rng.uniform(0.0, 0.1))

    def _working(self, before: Counter[str]) -> None:
        self.stage.await_progress(self.rng.randrange(1, 2000))
        time.sleep(self.rng.uniform(0.0, 0.02))

    def _saving(self, before: Counter[str]) -> None:
        """Wait for a transaction with a checkpoint; it may be over before the kill arrives."""
        self.stage.await_progress(1)
        state = self.stage.topics.state
        view = self.stage.view
        self.stage.await_that(lambda: state in (view.open_transaction("0") or ()), "a checkpoint", look_seconds=0)

    def _phases(self) -> Counter[str]:
        text = self.daemon.log.read_text("utf-8", "replace")
        return Counter(
            assigned=text.count('"message": "partitions assigned"'), recovered=text.count("partition recovered")
        )


@pytest.mark.parametrize("seed", [4])
def test_twenty_kills_change_nothing(stage: Stage, undisturbed: Outcomes, seed: int) -> None:
    victim = Victim(stage, stage.daemon(pipeline=OFTEN), seed)
    moments = ["starting"] * 3 + ["restoring"] * 5 + ["working"] * 7 + ["saving"] * 5
    victim.rng.shuffle(moments)
    stage.tell(f"seed {seed}")
    for moment in moments:
        victim.kill_while(moment)
    stage.finish()
    stage.tell(f"struck: {dict(victim.struck)}")
    judge(stage, undisturbed)
    assert stage.logged("tickcast starts") >= 17  # some die before they can say so
    assert victim.struck["a restore"] >= 2
    assert victim.struck["an open transaction"] >= 3
    assert victim.struck["a checkpoint"] >= 1


@pytest.mark.parametrize("stage", CLIENTS, indirect=True)
def test_kills_at_full_speed_change_nothing(stage: Stage, undisturbed: Outcomes) -> None:
    victim = Victim(stage, stage.daemon(), seed := 7)
    stage.tell(f"seed {seed}; all settings are the defaults, so most of what was answered has to be replayed")
    for moment in ["working", "restoring", "working", "restoring", "working"]:
        victim.kill_while(moment)
    victim.daemon.wait_ready()
    replayed = victim.daemon.metrics()['tickcast_ticks_total{outcome="catch_up"}']
    stage.finish()
    judge(stage, undisturbed)
    stage.tell(f"replayed {replayed:.0f} ticks at the last start")
    assert victim.struck["a restore"] >= 1
    assert replayed > 0


#: Where the process dies, and whether the coordinator then holds an open transaction of it.
POINTS = {"begun": False, "added": True, "written": True, "offsets": True, "committed": False}


@pytest.mark.parametrize("stage", CLIENTS, indirect=True)
def test_death_at_every_point_of_a_transaction_changes_nothing(stage: Stage, undisturbed: Outcomes) -> None:
    pipeline = {"max_batch_ticks": 40, "min_batch_ms": 20, "checkpoint_seconds": 0.2}
    daemon = stage.planted("0", ["strikes_at", "KILL", "begun", "any", "1"], pipeline=pipeline)
    daemon.process.wait(30)
    for point, leaves_open in POINTS.items():
        for kind, number in (("any", 6), ("checkpoint", 7)):
            daemon.plant = ["strikes_at", "KILL", point, kind, str(number)]
            daemon.start()
            assert daemon.process.wait(30) == -9, stage.report()
            topics = stage.view.open_transaction("0")
            stage.tell(f"died {point}, {kind} {number}, open: {topics and sorted(topics)}")
            assert leaves_open == (topics is not None), stage.report()
            if leaves_open and kind == "checkpoint":
                assert topics is not None
                assert stage.topics.state in topics
    assert not stage.finished()
    daemon.plant = []
    daemon.start()
    stage.finish()
    judge(stage, undisturbed)
