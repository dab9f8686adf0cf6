"""`tickcast replay` against a real Kafka: every tick once, in order, where its instrument belongs."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import orjson
import pytest
from kafka import KafkaConsumer, TopicPartition

from daemon.dev import replay
from daemon.dev.broker import free_port
from daemon.dev.market import Market
from daemon.dev.replay import TickProducer, partition_of
from daemon.errors import TopicError
from daemon.transport.connection import Connection
from tests.kafka_fixture import make_topics

pytestmark = pytest.mark.kafka

TICKCAST = (sys.executable, "-c", "from daemon.cli.main import main; main()")


def tickcast(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TICKCAST, *arguments], capture_output=True, text=True, timeout=120, check=False)


def written(bootstrap: str, topic: str) -> dict[int, list[tuple[bytes, dict]]]:
    """Everything in a topic, by partition."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic))]
    ends = consumer.end_offsets(partitions)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    found: dict[int, list[tuple[bytes, dict]]] = defaultdict(list)
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        for partition, records in consumer.poll(timeout_ms=1000).items():
            found[partition.partition] += [(record.key, orjson.loads(record.value)) for record in records]
    consumer.close()
    return found


@pytest.fixture
def tick_file(tmp_path: Path) -> Path:
    path = tmp_path / "ticks.jsonl"
    path.write_bytes(b"".join(orjson.dumps(tick) + b"\n" for tick in itertools.islice(Market(1).ticks(), 3000)))
    return path


def test_every_tick_of_a_file_arrives_once_in_order_in_the_partition_of_its_instrument(kafka, tick_file):
    topic = make_topics(kafka, "replay", partitions=3).ticks
    result = tickcast("replay", str(tick_file), "--topic", topic, "--bootstrap-servers", kafka, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) | {"seconds": 0} == {"ticks": 3000, "topic": topic, "seconds": 0, "stopped": False}
    ticks = [orjson.loads(line) for line in tick_file.read_bytes().splitlines()]
    for partition, records in written(kafka, topic).items():
        assert [tick for _, tick in records] == [t for t in ticks if partition_of(t["instrument"], 3) == partition]
        assert all(key.decode() == tick["instrument"] for key, tick in records)


def test_limit_and_instruments_choose_ticks(kafka, tick_file):
    topic = make_topics(kafka, "replay", partitions=1).ticks
    options = ("--instruments", "FLOW[12]", "--limit", "100")
    result = tickcast("replay", str(tick_file), "--topic", topic, "--bootstrap-servers", kafka, *options)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"100 ticks in topic {topic}")
    names = [tick["instrument"] for _, tick in written(kafka, topic)[0]]
    assert len(names) == 100
    assert set(names) == {"FLOW1", "FLOW2"}


def test_ctrl_c_ends_a_slow_replay_and_says_what_was_sent(kafka, tick_file):
    topic = make_topics(kafka, "replay", partitions=1).ticks
    command = (*TICKCAST, "replay", str(tick_file), "--topic", topic, "--bootstrap-servers", kafka)
    with subprocess.Popen([*command, "--speed", "1", "--json"], stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not written(kafka, topic) and time.monotonic() < deadline:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    result = json.loads(output)
    assert process.returncode == 130
    assert result["stopped"]
    assert 0 < result["ticks"] == len(written(kafka, topic)[0]) < 3000


def test_more_ticks_than_may_be_on_their_way_are_all_acknowledged(kafka, monkeypatch):
    monkeypatch.setattr(replay, "IN_FLIGHT_MAX", 50)
    topic = make_topics(kafka, "replay", partitions=2).ticks
    producer = TickProducer(Connection(kafka), topic)
    for tick in itertools.islice(Market(2).ticks(), 500):
        producer.send(tick)
        assert len(producer._in_flight) <= 50
    producer.flush()
    producer.close()
    assert producer.acknowledged_count == 500
    assert sum(map(len, written(kafka, topic).values())) == 500


def test_a_missing_topic_is_named_with_its_remedy(kafka, monkeypatch):
    monkeypatch.setattr(replay, "START_TIMEOUT_SECONDS", 1.0)
    with pytest.raises(TopicError, match="there is no topic nowhere; create it with `tickcast topics create`"):
        TickProducer(Connection(kafka), "nowhere")


def test_a_bad_file_is_refused_in_one_line_before_the_broker_is_asked(tmp_path):
    result = tickcast("replay", str(tmp_path / "no.csv"), "--bootstrap-servers", f"127.0.0.1:{free_port()}")
    assert (result.returncode, result.stdout) == (8, "")
    assert result.stderr == f"tickcast: error: {tmp_path / 'no.csv'}: no such file; check the path\n"
