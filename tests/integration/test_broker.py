"""The development broker: it starts, keeps its records, dies and comes back, and says what is wrong."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from daemon.dev.broker import Broker, find_broker, start_broker
from daemon.errors import LocalBrokerError
from tests.kafka_fixture import make_topics

pytestmark = pytest.mark.kafka

TICKCAST = (sys.executable, "-c", "from daemon.cli.main import main; main()")


def write(broker: Broker, topic: str, value: bytes) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    producer.send(topic, value, partition=0).get(timeout=30)
    producer.close()


def read_one(broker: Broker, topic: str) -> bytes:
    consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(topic, 0)])
    try:
        (records,) = consumer.poll(timeout_ms=30_000).values()
        return records[0].value
    finally:
        consumer.close()


@pytest.mark.long
def test_records_survive_a_kill_and_a_clean_stop_and_the_port_stays(tmp_path: Path):
    with start_broker(None, tmp_path) as broker:
        topic = make_topics(broker.bootstrap, "survivor", partitions=1).ticks
        write(broker, topic, b"kept")
        broker.kill()
        assert not broker.is_running()
    with start_broker(broker.port, tmp_path) as killed:
        assert killed.bootstrap == broker.bootstrap
        assert read_one(killed, topic) == b"kept"
        killed.stop()
        assert not killed.is_running()
    with start_broker(broker.port, tmp_path) as stopped:
        assert read_one(stopped, topic) == b"kept"


def test_a_running_broker_is_found_by_its_directory_and_not_started_twice(tmp_path: Path):
    assert find_broker(tmp_path) is None
    with start_broker(None, tmp_path) as broker:
        found = find_broker(tmp_path)
        assert found is not None
        assert (found.pid, found.bootstrap) == (broker.pid, broker.bootstrap)
        with pytest.raises(LocalBrokerError, match=rf"process {broker.pid}.* already serves"):
            start_broker(None, tmp_path)
        # From another process, while its parent, we, does not ask how it ended.
        stopped = tickcast("broker", "stop", "--dir", str(tmp_path))
        assert stopped.returncode == 0, stopped.stderr
        assert not broker.is_running()
    assert find_broker(tmp_path) is None


def test_a_broker_that_dies_while_starting_says_why(tmp_path: Path):
    with pytest.raises(LocalBrokerError, match=r"ended while starting: .*no\.such\.Authorizer.*broker\.log"):
        start_broker(None, tmp_path, properties={"authorizer.class.name": "no.such.Authorizer"})
    assert find_broker(tmp_path) is None


def test_a_taken_port_is_refused_before_anything_is_written(tmp_path: Path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(LocalBrokerError, match=rf"port {port} is taken.*--port"):
            start_broker(port, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def tickcast(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TICKCAST, *arguments], capture_output=True, text=True, timeout=120, check=False)


def has_ended(pid: int) -> bool:
    """Say whether nothing of a process runs; whoever inherited it may take its time to ask how it ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_background_broker_starts_once_says_where_it_is_and_stops(tmp_path: Path):
    def state() -> dict[str, object]:
        return json.loads(tickcast("broker", "status", "--json", "--dir", str(tmp_path)).stdout)

    assert not state()["running"]
    started = tickcast("broker", "start", "--port", "0", "--dir", str(tmp_path))
    try:
        assert started.returncode == 0, started.stderr
        running = state()
        assert running["running"]
        assert str(running["bootstrap_servers"]) in started.stdout
        again = tickcast("broker", "start", "--port", "0", "--dir", str(tmp_path))
        assert (again.returncode, state()["pid"]) == (0, running["pid"])
        other_port = tickcast("broker", "start", "--port", "19092", "--dir", str(tmp_path))
        assert other_port.returncode == 2
    finally:
        stopped = tickcast("broker", "stop", "--dir", str(tmp_path))
    assert (stopped.returncode, state()["running"]) == (0, False)
    assert has_ended(int(str(running["pid"])))


@pytest.mark.parametrize("how", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_foreground_broker_stops_cleanly_on_a_signal(tmp_path: Path, how: signal.Signals):
    command = [*TICKCAST, "broker", "run", "--port", "0", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "answers at 127.0.0.1:" in process.stdout.readline()
        broker = find_broker(tmp_path)
        assert broker is not None
        process.send_signal(how)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "broker stopped\n"
    assert not broker.is_running()
    assert find_broker(tmp_path) is None


@pytest.mark.long
def test_foreground_broker_that_is_killed_ends_with_an_error(tmp_path: Path):
    command = [*TICKCAST, "broker", "run", "--port", "0", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        broker = find_broker(tmp_path)
        assert broker is not None
        psutil.Process(broker.pid).kill()
        _, errors = process.communicate(timeout=60)
    assert process.returncode == LocalBrokerError.exit_code
    assert errors.startswith("tickcast: error: the broker at 127.0.0.1:")
    assert errors.count("\n") == 1
