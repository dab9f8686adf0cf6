"""The audit of simulated worlds: whatever befell the processes, it finds nothing; whatever is altered, it finds.

The simulation has an oracle of its own that knows everything; the audit knows the topics only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import pytest

from daemon.core.records import InputRecord
from daemon.stored import Stored
from daemon.tools.audit import Logs, Window, audit_partition
from daemon.tools.audit_start import Setting, Start, start_of
from daemon.tools.published import TopicLog
from daemon.tools.state_topic import newest_marker, read_stored
from daemon.tools.verdict import Findings
from daemon.transport.memory import MemoryReader
from schemas import TickDecoder
from tests.simulation.market import PARTITIONS, pipeline
from tests.simulation.process import GROUP
from tests.simulation.world import World

SEEDS = range(80)


class Forged:
    """The forecasts with one of them altered."""

    def __init__(self, log: TopicLog, place: tuple[int, int]) -> None:
        self._log = log
        self._place = place

    def bounds(self, partition: int) -> tuple[int, int]:
        return self._log.bounds(partition)

    def read(self, partition: int, offset: int, timeout_seconds: float, max_records: int):
        records, position = self._log.read(partition, offset, timeout_seconds, max_records)
        return [self._forge(record) for record in records], position

    def _forge(self, record: InputRecord) -> InputRecord:
        if (record.partition, record.offset) != self._place:
            return record
        return record._replace(value=(record.value or b"")[:-1] + b" }")


def setting(world: World, partition: int, exported: Stored | None = None) -> Setting:
    log, reader = world.log, MemoryReader(world.log)
    marker = newest_marker(reader, partition)
    assert marker is not None
    first = reader.bounds("ticks", partition)[0]
    committed = log.group(GROUP).offsets.get(partition)
    kept = None if exported is None else exported.marker()
    revision = (kept or marker).revision
    return Setting(partition, GROUP, log.topic_id("ticks"), revision, first, committed, marker, exported)


def audit(world: World, known: Setting, forged: tuple[int, int] | None = None) -> Findings:
    reader = MemoryReader(world.log)
    forecasts, letters = TopicLog(reader, "forecasts"), TopicLog(reader, "dead_letters")  # type: ignore[arg-type]
    told = forecasts if forged is None else Forged(forecasts, forged)
    logs = Logs(TopicLog(reader, "ticks"), {"forecast": told, "dead_letter": letters}, "ticks")
    made = pipeline(known.revision, world.settings.instruments_max)
    return audit_partition(made, TickDecoder(), known, logs, Window())


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    made = [World(seed) for seed in SEEDS]
    for world in made:
        world.run()
    return made


def tick_of(forecast: InputRecord) -> int:
    return int((forecast.value or b"").split(b'"')[3].split(b"-")[2])


def each(worlds: list[World]) -> Iterator[tuple[int, World, int]]:
    for seed, world in zip(SEEDS, worlds, strict=True):
        for partition in range(PARTITIONS):
            yield seed, world, partition


def test_no_honest_world_is_found_faulty(worlds: list[World]) -> None:
    judged: Counter[str] = Counter()
    for seed, world, partition in each(worlds):
        known = setting(world, partition)
        found = audit(world, known)
        assert found.first_fault is None, f"seed {seed}: {found.first_fault}"
        start = start_of(known)
        assert isinstance(start, Start)
        ticks = [t for t in world.market.answerable[partition] if max(start.live_from, known.first) <= t.offset]
        assert found.ticks == len(ticks)
        assert not start.whole or found.judged == len(ticks)
        judged["whole" if start.whole else "from resets"] += found.judged
    assert judged["whole"] > 500
    assert judged["from resets"] > 50


def test_an_export_of_any_moment_is_a_start() -> None:
    """The newest snapshots of a world that had come to rest and then goes on with the other half of its ticks."""
    judged = 0
    for seed in SEEDS:
        world = World(seed)
        half = len(world.market._todo) // 2
        world.market._todo, later = world.market._todo[:half], world.market._todo[half:]
        world.run()
        world.market._todo = later
        exports = [read_stored(MemoryReader(world.log), partition) for partition in range(PARTITIONS)]
        go_on(world)
        for partition, exported in enumerate(exports):
            known = setting(world, partition, exported)
            found = audit(world, known)
            assert found.first_fault is None, f"seed {seed}: {found.first_fault}"
            assert not found.not_judged
            judged += found.judged
            kept, marker = exported.marker(), known.marker
            assert kept is not None
            assert marker is not None
            # Another revision may have taken over at once.
            assert found.line.startswith("from the snapshots") or kept.next_offset == marker.live_from
    assert judged > 500


def go_on(world: World) -> None:
    """Write the ticks that are left, and let a new process answer them."""
    while world.market.open:
        world.market.write()
    world._come_to_rest()


def test_one_altered_forecast_in_any_world_is_found(worlds: list[World]) -> None:
    random, found_count = Random(7), 0
    for seed, world, partition in each(worlds):
        known = setting(world, partition)
        start = start_of(known)
        assert isinstance(start, Start)
        places = [
            (record.partition, record.offset)
            for record in world.log.read("forecasts")
            if record.partition == partition and tick_of(record) >= start.live_from
        ]
        if start.whole and places:
            found = audit(world, known, random.choice(places))
            assert found.different == {"forecast": 1}, f"seed {seed}"
            found_count += 1
    assert found_count > 40
