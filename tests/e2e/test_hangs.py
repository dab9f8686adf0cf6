"""The daemon as users run it, made to hang for real: in its poll, its commit, its close; and a broker that is away."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.dev.broker import start_broker
from daemon.dev.child import ChildDaemon, to_toml
from tests.bundles import tiny_bundle
from tests.e2e.world import PATIENCE_SECONDS, World, await_that

pytestmark = pytest.mark.kafka

STUCK_SECONDS = 3.0

#: `tickcast run` with one method of an adapter replaced by one that hangs, from its n-th call on.
PROGRAM = """
import sys, threading
from daemon.transport.kafka_sink import KafkaSink
from daemon.transport.kafka_source import KafkaSource

def spins_for_ever():
    while True:
        pass

def waits_for_ever():
    threading.Event().wait()

calls = 0
def planted(original, hang, after):
    def method(*arguments, **named):
        global calls
        calls += 1
        if calls > after:
            hang()
        return original(*arguments, **named)
    return method

def raises(*arguments, **named):
    from daemon.errors import TopicError
    raise TopicError("planted")

def stands_still(original):
    def method(source, *arguments):
        polled = original(source, *arguments)
        source._consumer.pause(*source._consumer.assignment())
        return polled
    return method

{plant}
sys.argv = ["tickcast", "run", "--config", sys.argv[1]]
from daemon.cli.main import main
main()
"""
POLL_SPINS = "KafkaSource.poll = planted(KafkaSource.poll, spins_for_ever, 10)"
COMMIT_WAITS = "KafkaSink.commit = planted(KafkaSink.commit, waits_for_ever, 2)"
CLOSE_WAITS = "KafkaSource.close = planted(KafkaSource.close, waits_for_ever, 0)"
#: The client goes on and brings nothing, as it was seen to do after a partition had been paused.
POLL_BRINGS_NOTHING = (
    "import daemon.service as service; service.LOOK_SECONDS = 1.0\nKafkaSource.poll = stands_still(KafkaSource.poll)"
)
SHORT_DEADLINE = "import daemon.cli.run as run; run.DEADLINE_SECONDS = 2.0; run.CLOSE_SECONDS = 1.0\n"
ERROR = "KafkaSource.poll = raises\n"


class Planted:
    """A daemon that will hang."""

    def __init__(self, world: World, plant: str) -> None:
        settings = world.settings(
            pipeline={"stuck_seconds": STUCK_SECONDS}, metrics={"port": 0}, log={"format": "json"}
        )
        self.file = world.directory / "planted.toml"
        self.file.write_text(to_toml(settings))
        self.log = world.directory / "planted.log"
        with self.log.open("wb") as log:
            command = [sys.executable, "-c", PROGRAM.format(plant=plant), str(self.file)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def logged(self, message: str) -> bool:
        return message in self.log.read_text()

    def last_words(self) -> tuple[dict[str, Any], str]:
        """Return the line that says what hangs, and all that comes after it."""
        lines = self.log.read_text().splitlines()
        at = next(n for n, line in enumerate(lines) if '"exit_code": 12' in line)
        return json.loads(lines[at]), "\n".join(lines[at + 1 :])


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, tiny_bundle(tmp_path).path)
    yield made
    made.close()


@pytest.fixture
def plant(world: World) -> Iterator[Any]:
    made: list[Planted] = []

    def start(text: str) -> Planted:
        made.append(Planted(world, text))
        return made[-1]

    yield start
    for each in made:
        each.process.kill()
        each.process.wait()


def assert_ended_stuck(planted: Planted, what: str, function: str) -> None:
    assert planted.process.wait(PATIENCE_SECONDS) == 12, planted.log.read_text()[-2000:]
    line, stacks = planted.last_words()
    assert line["message"].startswith(what)
    assert line["level"] == "error"
    assert "since" in line
    assert f"in {function}" in stacks


def test_a_poll_that_spins_ends_the_process(plant: Any) -> None:
    assert_ended_stuck(plant(POLL_SPINS), "the loop has not turned", "spins_for_ever")


def test_a_commit_that_never_returns_ends_the_process_and_the_next_one_goes_on(world: World, plant: Any) -> None:
    planted = plant(COMMIT_WAITS)
    send_until_it_ends(world, planted)
    assert planted.process.returncode == 12
    line, stacks = planted.last_words()
    assert "in waits_for_ever" in stacks
    assert re.match("the loop has not turned|the wait for a commit has not ended", line["message"])
    world.daemon().wait_ready()
    world.await_outcomes()


def test_a_close_that_hangs_after_a_signal_ends_the_process(plant: Any) -> None:
    planted = plant(SHORT_DEADLINE + CLOSE_WAITS)
    await_that(lambda: planted.logged("loop starts"), "the loop starts")
    planted.process.send_signal(signal.SIGTERM)
    assert_ended_stuck(planted, "the wait for the clients to close has not ended", "waits_for_ever")


def test_a_close_that_hangs_after_an_error_ends_the_process(plant: Any) -> None:
    assert_ended_stuck(
        plant(SHORT_DEADLINE + ERROR + CLOSE_WAITS), "the wait for the clients to close has not ended", "waits_for_ever"
    )


def test_a_loop_that_turns_and_leaves_ticks_lying_ends_the_process(world: World, plant: Any) -> None:
    planted = plant(POLL_BRINGS_NOTHING)
    send_until_it_ends(world, planted)  # what comes before the first pause is answered
    assert planted.process.returncode == 12, planted.log.read_text()[-2000:]
    line, stacks = planted.last_words()
    assert re.match(r"the loop turns without progress while [\d,]+ ticks wait", line["message"])
    assert "in turn" in stacks
    world.daemon().wait_ready()
    world.await_outcomes()


@pytest.fixture
def frozen_world(tmp_path: Path) -> Iterator[tuple[World, int]]:
    """A world whose broker may be frozen, and the broker's process id."""
    with start_broker(None, tmp_path / "kafka") as broker:
        made = World(broker.bootstrap, tmp_path, tiny_bundle(tmp_path).path)
        try:
            yield made, broker.pid
        finally:
            os.kill(broker.pid, signal.SIGCONT)
            made.close()


def test_a_broker_that_is_away_is_no_hang(frozen_world: tuple[World, int]) -> None:
    """Ticks are on their way when it goes, so that polls, a commit and the way to a new producer all meet it."""
    world, broker = frozen_world
    daemon = world.daemon(pipeline={"stuck_seconds": STUCK_SECONDS, "max_batch_ticks": 50}).wait_ready()
    world.send_quotes(5000)
    await_that(lambda: forecasts(daemon) > 100, "ticks flow")
    os.kill(broker, signal.SIGSTOP)
    until = time.monotonic() + 10 * STUCK_SECONDS
    while time.monotonic() < until:
        assert daemon.process.poll() is None, daemon.tail(20)
        assert livez(daemon) == "alive\n"
        time.sleep(0.2)
    os.kill(broker, signal.SIGCONT)
    world.await_outcomes()
    assert daemon.stop() == 0


def test_a_stop_while_the_broker_is_away_ends_in_time_and_is_no_hang(frozen_world: tuple[World, int]) -> None:
    world, broker = frozen_world
    daemon = world.daemon(pipeline={"stuck_seconds": STUCK_SECONDS, "max_batch_ticks": 50}).wait_ready()
    world.send_quotes(5000)
    await_that(lambda: forecasts(daemon) > 100, "ticks flow")
    os.kill(broker, signal.SIGSTOP)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(PATIENCE_SECONDS) in (0, 1, 4), daemon.tail(20)
    os.kill(broker, signal.SIGCONT)
    daemon.start().wait_ready()
    world.await_outcomes()


def test_a_daemon_that_was_paused_is_not_stuck_when_it_wakes(world: World) -> None:
    daemon = world.daemon(pipeline={"stuck_seconds": STUCK_SECONDS}).wait_ready()
    daemon.process.send_signal(signal.SIGSTOP)
    time.sleep(2 * STUCK_SECONDS)  # the pause itself is what is tested; shorter than the session
    daemon.process.send_signal(signal.SIGCONT)
    world.send_quotes(100)
    world.await_outcomes()
    assert livez(daemon) == "alive\n"
    assert daemon.stop() == 0


def send_until_it_ends(world: World, planted: Planted) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while planted.process.poll() is None:
        world.send_quotes(12)
        assert time.monotonic() < deadline, planted.log.read_text()[-2000:]
        time.sleep(0.1)


def forecasts(daemon: ChildDaemon) -> float:
    return daemon.metrics().get('tickcast_ticks_total{outcome="forecast"}', 0)


def livez(daemon: ChildDaemon) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{daemon._port}/livez", timeout=10) as answer:
        return str(answer.read().decode())
