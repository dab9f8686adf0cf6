"""Where the faults are played: many groups, one after the other, on one topic of ticks that is there already.

The undisturbed run is a group like any other, only nobody harms it. As all read the same topic, ids agree, and the
outcomes of any two groups must agree byte for byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.dev.child import ChildDaemon
from tests.contract.worlds import CLIENTS
from tests.e2e.world import PATIENCE_SECONDS, World
from tests.faults.group_view import GroupView
from tests.faults.planted import PlantedDaemon
from tests.faults.power import Power

Place = tuple[int, int]
#: Fewer than the feed has in most partitions: the rare ones evict each other.
INSTRUMENTS_MAX = 32
#: Between two looks; each costs the cluster a request, and the machine has two cores.
LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class Ground:
    """What all stages stand on."""

    power: Power
    bundle: Path
    ticks: str
    #: Every committed tick: partition and offset.
    places: Sequence[Place]
    #: What the ticks are: real or simulated.
    source: str


class Stage(World):
    """One group, its daemons, and what happened to them."""

    def __init__(self, ground: Ground, directory: Path, client: str = CLIENTS[0]) -> None:
        super().__init__(ground.power.bootstrap, directory, ground.bundle)
        self.producer.close()  # the ticks are there
        self.ground = ground
        self.client = client
        self.power = ground.power
        self.group = self.topics.ticks + "-group"
        self.topics = self.topics.model_copy(update={"ticks": ground.ticks})
        self.sent = list(ground.places)
        self.view = GroupView(self.bootstrap, self.group, ground.ticks)
        #: The offset after the last tick of each partition.
        self.ends = {partition: offset + 1 for partition, offset in ground.places}
        self._began = time.monotonic()
        self._told: list[str] = []

    # --- daemons ------------------------------------------------------------------------------------------------------

    def settings(self, instance: str = "0", **sections: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings of the group; what shapes payloads is the same in all of them."""
        settings: dict[str, Any] = super().settings(instance, **sections)
        settings["kafka"] |= {"group_id": self.group, "client": self.client}
        shaping = {"instruments_per_partition_max": INSTRUMENTS_MAX, "warmup_ticks": 20}
        return settings | {
            "pipeline": shaping | settings.get("pipeline", {}),
            "session": [{"match": "*", "rule": "field"}],
            "log": {"format": "json"},
        }

    def planted(self, instance: str, plant: Sequence[str], **sections: Mapping[str, Any]) -> PlantedDaemon:
        """Start a daemon into which a fault is planted: see the scripts in `plants`."""
        made = PlantedDaemon(self.directory, self.settings(instance, **sections), plant, name=f"planted-{instance}")
        self.daemons.append(made)
        made.start()
        return made

    def stop_all(self) -> None:
        """Stop those who still run; each must end cleanly. One that has only just been started gets ready first."""
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                code = daemon.wait_ready().stop()
                assert code == 0, f"{daemon.log.name} ended with {code}; {self.report()}"

    def close(self) -> None:
        """End everything, in whatever state it is."""
        for daemon in self.daemons:
            if daemon.process.poll() is None:
                daemon.kill()
        self.view.close()

    def finish(self) -> None:
        """Let everybody who paces himself stop, and one daemon at full speed answer what is left."""
        self.stop_all()
        self.daemon("finisher").wait_ready()
        self.await_end()

    # --- what happens -------------------------------------------------------------------------------------------------

    def tell(self, event: str) -> None:
        """Note what happened and when; it is printed, so that a failure can be read."""
        line = f"[{time.monotonic() - self._began:6.2f} s] {event}"
        self._told.append(line)
        print(line, flush=True)

    def report(self) -> str:
        """Return what a person needs who has to find out: what happened, and the end of every log."""
        tails = [f"--- {each.log.name}\n" + each.tail(12).replace(" / {", "\n{") for each in self.daemons]
        return "\n".join(["", *self._told, *tails])

    def logged(self, text: str, *daemons: ChildDaemon) -> int:
        """Count the log lines that hold a text, over all lives of these daemons, or of all."""
        return sum(each.log.read_text("utf-8", "replace").count(text) for each in daemons or self.daemons)

    def summary(self) -> str:
        """Count what all daemons went through."""
        counts = {
            "starts": "tickcast starts",
            "changes of assignment": '"message": "partitions ',
            "restores": "partition recovered",
            "transactions failed": "transaction failed",
        }
        return ", ".join(f"{self.logged(text)} {name}" for name, text in counts.items())

    # --- progress -----------------------------------------------------------------------------------------------------

    def answered_count(self) -> int:
        """Return how far the group is, in offsets; the markers of transactions on the input count too."""
        return sum(self.view.committed().values())

    def finished(self) -> bool:
        """Say whether every tick is committed."""
        now = self.view.committed()
        return all(now[partition] >= end for partition, end in self.ends.items())

    def await_that(
        self,
        condition: Callable[[], bool],
        what: str,
        seconds: float = PATIENCE_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Wait for a condition; a failure shows what had happened."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}; {self.report()}"
            time.sleep(look_seconds)

    def await_progress(self, count: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until so many more offsets are committed; there must be so many left."""
        goal = self.answered_count() + count
        assert goal < sum(self.ends.values()), f"too few ticks are left to strike at; {self.report()}"
        self.await_that(lambda: self.answered_count() >= goal, f"{count} more outcomes", seconds)

    def await_end(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until every tick is answered."""
        self.await_that(self.finished, "every tick answered", seconds)


def partitions_of(daemon: ChildDaemon) -> set[int]:
    """Return the partitions that a daemon has at work, as its metrics say."""
    prefix = 'tickcast_consumer_lag_ticks{partition="'
    return {int(name.removeprefix(prefix)[:-2]) for name in daemon.metrics() if name.startswith(prefix)}
