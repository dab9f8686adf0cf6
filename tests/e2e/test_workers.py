"""`tickcast run --workers`: one command, several processes of one group, on a real Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.dev.broker import free_port
from daemon.dev.child import to_toml
from tests.bundles import tiny_bundle
from tests.e2e.world import PARTITIONS, PATIENCE_SECONDS, World, await_that

pytestmark = pytest.mark.kafka


class Parent:
    """`tickcast run --workers N` with its own settings and log."""

    def __init__(self, world: World, workers: int = 2, **sections: dict[str, Any]) -> None:
        self.port = two_free_ports()
        settings = world.settings("desk", **{"metrics": {"port": self.port}, "log": {"format": "json"}, **sections})
        file = world.directory / "workers.toml"
        file.write_text(to_toml(settings))
        self.log = world.directory / "workers.log"
        command = [sys.executable, "-m", "daemon.cli.main", "run", "--config", str(file), "--workers", str(workers)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def lines(self, message: str) -> list[dict[str, Any]]:
        """Return the log lines with a message, of parent and workers."""
        written = self.log.read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in written if line.startswith("{") and line.endswith("}\n")]
        return [line for line in found if line["message"] == message]

    def pid(self, worker: int) -> int:
        """Return the process that holds a place now."""
        return int([line["pid"] for line in self.lines("worker starts") if line["worker"] == worker][-1])

    def ready(self, worker: int) -> bool:
        return get(self.port + worker, "/readyz") == "ready\n"

    def partitions(self, worker: int) -> float:
        return sample(get(self.port + worker, "/metrics"), "tickcast_assigned_partitions")

    def forecasts(self, worker: int) -> float:
        return sample(get(self.port + worker, "/metrics"), 'tickcast_ticks_total{outcome="forecast"}')

    def await_shares(self) -> None:
        """Wait until both workers are ready with half of the partitions each."""
        self.until(lambda: self.ready(0) and self.ready(1), "two workers are ready")
        self.until(lambda: self.partitions(0) == self.partitions(1) == PARTITIONS / 2, "each has its share")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait while the parent lives; say what was logged where it does not, or where the time is up."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert self.process.poll() is None, f"the parent ended before: {what}; {self.tail()}"
            assert time.monotonic() < deadline, f"not in time: {what}; {self.tail()}"
            time.sleep(0.05)

    def wait(self) -> int:
        try:
            return self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the parent goes on; {self.tail()}") from None

    def tail(self) -> str:
        return self.log.read_text()[-3000:]

    def close(self) -> None:
        """End the parent, and by that the workers."""
        self.process.kill()
        self.process.wait()
        for line in self.lines("worker starts"):
            await_that(lambda pid=line["pid"]: not runs(pid), "a worker outlived its parent")  # type: ignore[misc]


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, tiny_bundle(tmp_path).path)
    yield made
    made.close()


@pytest.fixture
def start(world: World) -> Iterator[Any]:
    made: list[Parent] = []

    def start_parent(*arguments: Any, **sections: Any) -> Parent:
        made.append(Parent(world, *arguments, **sections))
        return made[-1]

    yield start_parent
    for parent in made:
        parent.close()


def test_two_workers_share_the_ticks_and_one_that_is_killed_comes_back(world: World, start: Any) -> None:
    parent = start()
    parent.await_shares()
    world.send_quotes(1000)
    world.await_outcomes()
    assert parent.forecasts(0) > 0
    assert parent.forecasts(1) > 0
    assert parent.forecasts(0) + parent.forecasts(1) == 1000

    killed = parent.pid(1)
    world.send_quotes(2000)
    os.kill(killed, signal.SIGKILL)
    world.send_quotes(2000)
    parent.until(lambda: parent.pid(1) != killed, "it is started again")
    parent.await_shares()
    world.send_quotes(1000)
    world.await_outcomes()

    children = [parent.pid(0), parent.pid(1)]
    parent.process.send_signal(signal.SIGTERM)
    assert parent.wait() == 0, parent.tail()
    assert not any(map(runs, children))
    stopped = parent.lines("stopped")
    assert {line["instance"] for line in stopped} == {"desk-0", "desk-1"}
    assert all(line["clean"] for line in stopped)
    assert {line["instance"] for line in parent.lines("all workers ended")} == {"desk"}


def test_a_parent_that_is_killed_leaves_nobody_behind(world: World, start: Any) -> None:
    parent = start()
    parent.await_shares()
    children = [parent.pid(0), parent.pid(1)]
    parent.process.kill()
    parent.process.wait()
    await_that(lambda: not any(map(runs, children)), "the workers end")
    assert len(parent.lines("stopped")) == 2, "they finish as on SIGTERM"
    world.send_quotes(10)
    world.daemon().wait_ready()
    world.await_outcomes()


def test_a_signal_to_the_whole_service_is_one_request(start: Any) -> None:
    """As service managers do: parent and workers get it at the same time, and nothing is aborted."""
    parent = start()
    parent.await_shares()
    for pid in (parent.pid(0), parent.pid(1), parent.process.pid):
        os.kill(pid, signal.SIGTERM)
    assert parent.wait() == 0, parent.tail()
    assert len(parent.lines("stopped")) == 2


def test_an_end_that_no_restart_mends_stops_all_with_its_code(start: Any) -> None:
    parent = start(topics={"forecasts": "not-there"})
    assert parent.wait() == 5, parent.tail()
    assert "topics create" in parent.tail()
    assert parent.lines("worker ended with code 5, all stop")
    assert {line["worker"] for line in parent.lines("worker starts")} == {0, 1}


def test_the_parent_holds_neither_numpy_nor_a_connection(start: Any) -> None:
    parent = start()
    parent.await_shares()
    maps = Path(f"/proc/{parent.process.pid}/maps").read_text()
    assert "pydantic" in maps, "the settings are checked before anybody starts"
    assert "numpy" not in maps
    descriptors = Path(f"/proc/{parent.process.pid}/fd").iterdir()
    assert [link for link in descriptors if "socket:" in str(link.readlink())] == []


def two_free_ports() -> int:
    """Return a free port whose successor is free too."""
    while True:
        port = free_port()
        if free_port_is(port + 1):
            return port


def free_port_is(port: int) -> bool:
    from daemon.dev.broker import is_free

    return is_free(port)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def get(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def sample(text: str, name: str) -> float:
    return next((float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " ")), -1.0)
