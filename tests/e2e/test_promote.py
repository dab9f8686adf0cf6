"""Another model takes over while ticks flow: promoted, killed on the way, rolled back, refused, missing somewhere."""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from daemon.dev.child import ChildDaemon
from daemon.model.bundle import WEIGHTS, Bundle
from schemas import Forecast, ResetCause
from tests.bundles import tiny_bundle
from tests.e2e.world import PARTITIONS, World, await_that
from tests.integration.tool import Tool

pytestmark = pytest.mark.kafka

INSTRUMENTS = 12
SMALL_BATCHES = {"max_batch_ticks": 100, "checkpoint_ticks": 300}


class Desk:
    """A world whose daemons and operator share a folder of bundles, and two models."""

    def __init__(self, world: World, one: Bundle, two: Bundle) -> None:
        self.world = world
        self.one = one
        self.two = two
        self.bundles = world.directory / "bundles"
        self.tool = Tool(world.directory / "tool.toml", world.settings("tool", **self.model()))

    def model(self, bundles: Path | None = None) -> dict[str, dict[str, str]]:
        return {"model": {"bundle": str(self.one.path), "bundles": str(bundles or self.bundles)}}

    def daemon(self, name: str, bundles: Path | None = None) -> ChildDaemon:
        return self.world.daemon(name, pipeline=SMALL_BATCHES, **self.model(bundles))

    def forecasts(self) -> list[list[Forecast]]:
        """Wait until each tick has its one outcome; return the forecasts of each partition, in their order."""
        found: list[list[Forecast]] = [[] for _ in range(PARTITIONS)]
        for record in self.world.await_outcomes():
            found[record.partition].append(Forecast.model_validate_json(record.value))
        return found

    def assert_switched(self, *models: Bundle) -> None:
        """Every partition was answered by these models, one after the other, and every instrument was told."""
        for forecasts in filter(None, self.forecasts()):
            turns = [
                a.model for a, b in zip(forecasts, [*forecasts[1:], None], strict=True) if not b or a.model != b.model
            ]
            assert turns == [bundle.id for bundle in models]
            told: Counter[tuple[str, str]] = Counter()
            for forecast in forecasts:
                if forecast.reset is ResetCause.REVISION:
                    told[forecast.instrument, forecast.model] += 1
            names = {forecast.instrument for forecast in forecasts}
            assert told == {(name, bundle.id): 1 for name in names for bundle in models[1:]}


@pytest.fixture
def desk(kafka: str, tmp_path: Path) -> Iterator[Desk]:
    one, two = (tiny_bundle(tmp_path, seed=seed, name=f"bundle-{seed}") for seed in (1, 2))
    world = World(kafka, tmp_path, one.path)
    yield Desk(world, one, two)
    world.close()


def readiness(daemon: ChildDaemon) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{daemon._port}/readyz", timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.read().decode())


def runs(daemon: ChildDaemon, bundle: Bundle) -> bool:
    return any(f'model="{bundle.id}"' in name for name in daemon.metrics() if name.startswith("tickcast_build_info"))


def damage(bundle: Path) -> None:
    raw = bytearray((bundle / WEIGHTS).read_bytes())
    raw[len(raw) // 2] ^= 1
    (bundle / WEIGHTS).write_bytes(raw)


def test_a_promoted_bundle_takes_over_and_is_rolled_back(desk: Desk) -> None:
    world, tool = desk.world, desk.tool
    daemons = [desk.daemon(name).wait_ready() for name in ("a", "b")]
    world.send_quotes(3000)
    world.await_outcomes()
    assert "nothing is pinned" in tool.text("bundle", "show")
    states = world.directory / "states.gz"
    tool.text("state", "export", str(states))
    world.send_quotes(120)
    world.await_outcomes()
    promoted = tool.json_with_notes("bundle", "promote", str(desk.two.path))
    assert promoted["pinned"] == promoted["pinned"] | {"bundle": desk.two.id, "previous": desk.one.id, "number": 1}
    assert {row["model"] for row in promoted["partitions"]} == {desk.two.id}
    assert all(runs(daemon, desk.two) for daemon in daemons)
    assert all(readiness(daemon) == "ready\n" for daemon in daemons)
    world.send_quotes(1000)
    desk.assert_switched(desk.one, desk.two)
    assert {row["model"] for row in tool.json("status")["partitions"]} == {desk.two.id}
    for daemon in daemons:
        metrics = daemon.metrics()
        assert metrics["tickcast_bundle_switches_total"] == 1
        assert metrics["tickcast_probe_variance"] == 0
    audited = tool.json_with_notes("audit")["total"]
    assert audited["forecasts"]["different"] == audited["not_judged"]["outcomes"] == 0
    assert audited["forecasts"]["equal"] > 0
    assert "change 2" in tool.text("bundle", "rollback")
    world.send_quotes(1000)
    desk.assert_switched(desk.one, desk.two, desk.one)
    earlier = tool.json_with_notes("audit", "--snapshot", str(states))
    assert earlier["total"]["forecasts"]["different"] == earlier["total"]["missing"] == 0
    assert 120 <= earlier["total"]["forecasts"]["equal"] < 3120
    assert all(
        f"on they are of bundle {desk.two.id}" in each["line"] for each in earlier["partitions"] if each["ticks"]
    )
    shown = tool.text("bundle", "show")
    assert f"is to run {desk.one.id}" in shown
    assert f"before it {desk.two.id}" in shown


def test_killed_while_it_switches_everything_is_answered_once(desk: Desk) -> None:
    world, random = desk.world, Random(7)
    daemon = desk.daemon("a").wait_ready()
    world.send_quotes(4000)
    for bundle in (desk.two, desk.one, desk.two):
        desk.tool.text("bundle", "promote", str(bundle.path), "--wait", "0")
        for _ in range(2):
            world.send_quotes(1500)
            line = "another model takes over" if random.random() < 0.5 else "the pinned bundle is loaded and proven"
            size = len(daemon.log.read_bytes())
            world.producer.flush()
            try:
                await_that(lambda: line.encode() in daemon.log.read_bytes()[size:] or runs(daemon, bundle), line)  # noqa: B023
            finally:
                daemon.kill()
            daemon.start().wait_ready()
    assert runs(daemon, desk.two)
    forecasts = desk.forecasts()
    assert all(found[-1].model == desk.two.id for found in forecasts if found)


def test_a_damaged_bundle_is_refused_and_the_old_one_goes_on(desk: Desk, tmp_path: Path) -> None:
    world, tool = desk.world, desk.tool
    own = tmp_path / "own"
    daemon = desk.daemon("a", own).wait_ready()
    shutil.copytree(desk.two.path, own / "two")
    damage(own / "two")
    world.send_quotes(500)
    damaged = tmp_path / "damaged"
    shutil.copytree(own / "two", damaged)
    assert str(damaged) in tool.refusal("bundle", "promote", str(damaged), code=3)
    assert "nothing is pinned" in tool.text("bundle", "show")
    done = tool.run("bundle", "promote", str(desk.two.path), "--wait", "2")
    assert done.returncode == 1
    assert "did not run it within 2 s" in done.stderr
    await_that(lambda: desk.two.id in readiness(daemon), "the refusal is said")
    assert "cannot read arrays" in readiness(daemon) or "were changed" in readiness(daemon)
    world.send_quotes(500)
    desk.assert_switched(desk.one)
    assert daemon.metrics()["tickcast_bundles_refused_total"] == 1
    shutil.copytree(desk.two.path, own / "two", dirs_exist_ok=True)
    await_that(lambda: runs(daemon, desk.two), "the mended bundle runs")
    world.send_quotes(500)
    desk.assert_switched(desk.one, desk.two)
    await_that(lambda: readiness(daemon) == "ready\n", "ready again")


def test_who_lacks_the_bundle_is_not_ready_and_takes_no_part_after_a_restart(desk: Desk, tmp_path: Path) -> None:
    world, own = desk.world, tmp_path / "own"
    has, lacks = desk.daemon("has").wait_ready(), desk.daemon("lacks", own).wait_ready()
    world.send_quotes(500)
    await_that(lambda: lacks.metrics()["tickcast_assigned_partitions"] == 2, "both have their share")
    desk.tool.run("bundle", "promote", str(desk.two.path), "--wait", "1")
    await_that(lambda: runs(has, desk.two), "the one that has it runs it")
    await_that(lambda: f"there is no bundle {desk.two.id} in {own}" in readiness(lacks), "the other says what it lacks")
    world.send_quotes(500)
    world.await_outcomes()
    assert runs(lacks, desk.one)
    assert lacks.stop() == 0
    lacks.start()
    await_that(lambda: lacks._logged_port() is not None, "it serves its probes")
    lacks._port = lacks._logged_port()
    await_that(lambda: f"there is no bundle {desk.two.id} in {own}" in readiness(lacks), "it is not ready")
    await_that(lambda: has.metrics()["tickcast_assigned_partitions"] == PARTITIONS, "the other serves all")
    world.send_quotes(500)
    forecasts = desk.forecasts()
    assert all(found[-1].model == desk.two.id for found in forecasts if found)
    shutil.copytree(desk.two.path, own / "two")
    lacks.wait_ready()
    assert runs(lacks, desk.two)
    world.send_quotes(500)
    world.await_outcomes()
