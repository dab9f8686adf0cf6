"""The development broker: it starts, keeps its records, dies and comes back, and says what is wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from daemon.dev.broker import Broker, find_broker, start_broker
from daemon.errors import LocalBrokerError
from tests.kafka_fixture import make_topics

pytestmark = pytest.mark.kafka


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
        found.stop()
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
