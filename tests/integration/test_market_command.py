"""`tickcast market` as it is run: its past is the same every time, its present goes on until it is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daemon.cli.main import app
from daemon.dev.demo.feed import SimulatedTicks
from daemon.errors import SettingsError
from daemon.tick_files import read_ticks
from schemas import Tick
from tests.e2e.world import await_that, read_topics
from tests.kafka_fixture import make_topics

TICKCAST = (sys.executable, "-m", "daemon.cli.main")


def invoke(*arguments: str):
    return CliRunner().invoke(app, ["market", *arguments])


def test_the_history_is_a_tick_file_and_the_same_every_time(tmp_path: Path) -> None:
    files = [tmp_path / "one.jsonl.gz", tmp_path / "other.jsonl.gz"]
    for file in files:
        done = invoke("--history", str(file))
        assert done.exit_code == 0, done.output
        assert done.stdout == f"60,000 ticks of a simulated market in {file}\n"
    assert files[0].read_bytes() == files[1].read_bytes()
    assert list(read_ticks(files[:1], in_order=True)) == list(SimulatedTicks().past())


@pytest.mark.parametrize(
    ("name", "said"), [("past.csv", "must end in .jsonl.gz"), ("no/past.jsonl.gz", "No such file")]
)
def test_a_history_that_cannot_be_written_is_one_clear_line(tmp_path: Path, name: str, said: str) -> None:
    error = invoke("--history", str(tmp_path / name)).exception
    assert isinstance(error, SettingsError)
    assert said in str(error)


@pytest.mark.kafka
def test_it_goes_on_until_sigterm_and_a_second_one_goes_on_after_it(kafka: str, tmp_path: Path) -> None:
    topic = make_topics(kafka, "market").ticks
    command = (*TICKCAST, "market", "--topic", topic, "--bootstrap-servers", kafka, "--rate", "500")
    sent = 0
    for run in (1, 2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            await_that(lambda: len(read_topics(kafka, topic)) >= sent + 100, "a hundred ticks")  # noqa: B023
            process.send_signal(signal.SIGTERM)
            output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        sent += int(output.split()[0])
        assert output.endswith(f" ticks in topic {topic}\n"), run
        assert len(read_topics(kafka, topic)) == sent
    latest: dict[str, int] = {}
    now = time.time_ns()
    for record in read_topics(kafka, topic):
        tick = Tick.model_validate_json(record.value)
        assert record.key == tick.instrument.encode()
        assert tick.seq is None  # it would begin anew with the second run, and its ticks would be duplicates
        assert latest.get(tick.instrument, 0) <= tick.ts < now
        latest[tick.instrument] = tick.ts
