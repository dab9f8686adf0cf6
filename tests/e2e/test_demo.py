"""`tickcast demo` as a user runs it, with a small ready-made bundle in place of the training."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import psutil
import pytest

from tests.bundles import tiny_bundle

PATIENCE_SECONDS = 90.0


class Demo:
    """One demo as a child process, and all processes it was seen to have."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        command = [sys.executable, "-u", "-m", "daemon.cli.main", "demo", *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=directory, stdout=pipe, stderr=pipe, text=True)
        self.children: list[psutil.Process] = []
        self.lines: list[str] = []
        self.errors = ""
        self._guard = Timer(PATIENCE_SECONDS, self.process.kill)
        self._guard.start()

    def await_line(self, start: str) -> str:
        """Return the first line that begins so, noting the processes that run by then."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if line.startswith(start):
                break
        self.children = psutil.Process(self.process.pid).children(recursive=True)
        return self.lines[-1]

    def end(self) -> tuple[int, dict[str, Any]]:
        """Wait for the end; return the exit code and the JSON of the last line."""
        output, self.errors = self.process.communicate()
        self._guard.cancel()
        self.lines += output.splitlines()
        return self.process.returncode, json.loads(self.lines[-1])

    def left_running(self) -> list[list[str]]:
        """Return the command lines of what it started, or what works in its folder, and still runs."""
        seen = {child.pid: child for child in self.children if child.is_running()}
        for process in psutil.process_iter():
            try:
                if any(str(self.directory) in word for word in process.cmdline()):
                    seen[process.pid] = process
            except psutil.Error:
                continue
        return [process.cmdline() for process in seen.values()]

    def close(self) -> None:
        self._guard.cancel()
        self.process.kill()
        self.process.communicate()
        for child in self.children:
            if child.is_running():
                child.kill()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_bundle(tmp_path)
    return tmp_path


@pytest.fixture
def demo(folder: Path, request: pytest.FixtureRequest) -> Iterator[Demo]:
    made = Demo(folder, "--bundle", "bundle", "--page-port", "0", "--seconds", request.param)
    yield made
    made.close()


def assert_balanced(result: dict[str, Any], ticks_min: int) -> None:
    assert result["ticks"] >= ticks_min
    assert result["forecasts"] + result["dead_letters"] == result["ticks"]
    assert result["dead_letters"] == 0
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p99"]
    assert result["probe_runs"] > 0
    assert result["probe_variance"] == 0


@pytest.mark.kafka
@pytest.mark.parametrize("demo", ["8"], indirect=True)
def test_every_tick_of_the_demo_has_one_outcome(demo: Demo) -> None:
    demo.await_line("market")
    assert len(demo.children) >= 3  # a broker, a daemon and the page
    (line,) = (line for line in demo.lines if line.startswith("page"))
    address = line.removeprefix("page     live at ")
    with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:
        assert b"<title>tickcast live</title>" in answer.read()
    code, result = demo.end()
    assert (code, demo.errors) == (0, "")
    assert_balanced(result, ticks_min=800)
    assert demo.left_running() == []
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=PATIENCE_SECONDS)


@pytest.mark.kafka
@pytest.mark.parametrize("demo", ["60"], indirect=True)
def test_ctrl_c_closes_the_market_and_the_books_balance(demo: Demo) -> None:
    demo.await_line("market")
    assert "skill" in demo.await_line("5")  # the first line of figures, with 55 or 54 s left
    demo.process.send_signal(signal.SIGINT)
    code, result = demo.end()
    assert (code, demo.errors) == (0, "")
    assert_balanced(result, ticks_min=100)
    assert demo.left_running() == []


@pytest.mark.kafka
@pytest.mark.parametrize("demo", ["60"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_market_opens_leaves_nothing_running(demo: Demo, number: signal.Signals) -> None:
    demo.await_line("kafka")  # the daemon is about to start
    demo.process.send_signal(number)
    code, result = demo.end()
    assert code == 130
    assert result["ticks"] == 0
    assert demo.left_running() == []


@pytest.mark.kafka
@pytest.mark.parametrize("demo", ["60"], indirect=True)
def test_a_daemon_that_dies_is_named_and_the_demo_fails(demo: Demo) -> None:
    demo.await_line("market")
    (daemon,) = (child for child in demo.children if "run" in child.cmdline())
    daemon.kill()
    code, result = demo.end()
    assert code == 1
    assert result["forecasts"] <= result["ticks"]
    assert "the daemon ended with code -9" in demo.errors
    assert demo.left_running() == []


@pytest.mark.tensorflow
def test_a_stateful_keras_model_drifts_and_its_conversion_does_not() -> None:
    command = [sys.executable, "-m", "daemon.dev.demo.disease"]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    answers = json.loads(done.stdout)
    assert len(set(answers["keras"])) == 5
    assert len(answers["converted"]) == 5
    assert len(set(answers["converted"])) == 1
    assert answers["a"] == answers["b"]  # bit for bit, although they took turns
    assert answers["a"] == pytest.approx(answers["keras"][:3], rel=1e-5)
