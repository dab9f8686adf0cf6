"""The daemon as users run it: its own process, a real Kafka, signals, kills and bad input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.serializer import Serializer

from daemon.dev.child import ChildDaemon, to_toml
from schemas import HEADER_PREFIX, Forecast
from tests.bundles import tiny_bundle
from tests.e2e.world import LIMIT, PATIENCE_SECONDS, World, await_that, origin

pytestmark = pytest.mark.kafka


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, tiny_bundle(tmp_path).path)
    yield made
    made.close()


def test_sigterm_finishes_the_batch_and_says_where_it_stood(world: World) -> None:
    daemon = world.daemon().wait_ready()
    world.send_quotes(500)
    world.await_outcomes()
    metrics = daemon.metrics()
    assert metrics['tickcast_ticks_total{outcome="forecast"}'] == 500
    assert metrics["tickcast_probe_runs_total"] >= 0
    assert metrics["tickcast_probe_variance"] == 0
    assert daemon.stop() == 0
    last = json.loads(daemon.log.read_text().splitlines()[-1])
    assert last["message"] == "stopped"
    assert sum(last["offsets"].values()) == 500


def test_a_restart_goes_on_where_the_last_one_stopped(world: World) -> None:
    world.send_quotes(300)
    first = world.daemon().wait_ready()
    world.await_outcomes()
    assert first.stop() == 0
    world.send_quotes(300)
    second = first.start().wait_ready()
    forecasts = [Forecast.model_validate_json(r.value) for r in world.await_outcomes()]
    assert second.stop() == 0
    assert Counter(f.reset for f in forecasts) == {"first": 12, None: 588}  # the states came along


def test_kill_in_full_flight_loses_and_doubles_nothing(world: World) -> None:
    daemon = world.daemon(pipeline={"max_batch_ticks": 100}).wait_ready()
    for _ in range(3):
        world.send_quotes(2000)
        await_that(lambda: daemon.metrics().get('tickcast_ticks_total{outcome="forecast"}', 0) > 300, "ticks flow")
        daemon.kill()
        daemon.start().wait_ready()
    world.await_outcomes()


def test_a_second_instance_joins_and_leaves(world: World) -> None:
    one = world.daemon("one").wait_ready()
    world.send_quotes(1000)
    two = world.daemon("two").wait_ready()
    await_that(lambda: two.metrics()["tickcast_assigned_partitions"] == 2, "the second instance has its share")
    world.send_quotes(1000)
    world.await_outcomes()
    assert two.metrics()['tickcast_ticks_total{outcome="forecast"}'] > 0
    assert two.stop() == 0
    await_that(lambda: one.metrics()["tickcast_assigned_partitions"] == 4, "the first instance has all again")
    world.send_quotes(1000)
    world.await_outcomes()


GOOD = {"instrument": "GOOD", "bid": 10.0, "ask": 11.0}

BAD = {
    "not_json": [b"{", b"\xff\xfe{", b"[1]", b'"text"', b"null", b"{}x"],
    "empty": [None, b""],
    "missing_field": [
        b"{}",
        b'{"instrument":"A"}',
        b'{"instrument":"A","ts":%d}',
        b'{"instrument":"A","ts":%d,"bid":1}',
    ],
    "wrong_type": [b'{"instrument":7,"ts":%d,"price":1}', b'{"instrument":"A","ts":%d,"price":"1"}'],
    "not_finite": [b'{"instrument":"A","ts":%d,"price":NaN}', b'{"instrument":"A","ts":%d,"price":1e999}'],
    "price_not_positive": [b'{"instrument":"A","ts":%d,"price":0}', b'{"instrument":"A","ts":%d,"bid":-1,"ask":1}'],
    "crossed_quote": [b'{"instrument":"A","ts":%d,"bid":2,"ask":1}'],
    "naive_time": [b'{"instrument":"A","ts":"2026-01-01T00:00:00","price":1}'],
    "time_unit": [b'{"instrument":"A","ts":1767225600000,"price":1}'],
    "future_time": [b'{"instrument":"A","ts":4000000000000000000,"price":1}'],
    "invalid_value": [b'{"instrument":"A\\u0007","ts":%d,"price":1}', b'{"instrument":"","ts":%d,"price":1}'],
    "late": [b'{"instrument":"GOOD","ts":1600000000000000000,"price":10}'],
}


class NullSerializer(Serializer):
    """Writes what kafka-python's `send` refuses and other clients write: a record with neither key nor value."""

    def serialize(self, topic: str, headers: object, data: object) -> None:
        return None


def test_bad_ticks_become_dead_letters_and_harm_nobody(world: World) -> None:
    daemon = world.daemon().wait_ready()

    def send_good() -> None:
        world.send(json.dumps({**GOOD, "ts": time.time_ns()}).encode(), b"GOOD", 0)

    expected: dict[tuple[int, int], tuple[str, bytes | None, bytes | None]] = {}
    send_good()
    for reason, values in BAD.items():
        for value in values:
            raw = value.replace(b"%d", b"%d" % time.time_ns()) if value else value
            expected[world.send(raw, b"k", 0)] = (reason, b"k", raw)
            send_good()
    largest = b"x" * (LIMIT - 80)
    expected[world.send(largest, None, 0)] = ("not_json", None, largest)
    tick = json.dumps({**GOOD, "ts": time.time_ns()}).encode()
    expected[world.send(tick, b"\xff\xfe", 0)] = ("key_not_utf8", b"\xff\xfe", tick)
    nothing = KafkaProducer(bootstrap_servers=world.bootstrap, value_serializer=NullSerializer())
    at = nothing.send(world.topics.ticks, b"", None, partition=0).get(30).offset
    nothing.close()
    world.sent.append((0, at))
    expected[0, at] = ("empty", None, b"")
    send_good()
    found = world.await_outcomes()
    letters = {origin(r): r for r in found if r.headers}
    assert {at: (reason_of(r), r.key, r.value) for at, r in letters.items()} == expected
    steps = [Forecast.model_validate_json(r.value).step for r in found if not r.headers]
    assert steps == list(range(len(steps))), "the good instrument's state was touched"
    metrics = daemon.metrics()
    for reason, values in BAD.items():
        more = reason in ("not_json", "empty")  # the largest one, and the one without a key
        assert metrics[f'tickcast_dead_letters_total{{reason="{reason}"}}'] == len(values) + more


def reason_of(record: ConsumerRecord) -> str:
    return dict(record.headers)[HEADER_PREFIX + "reason"].decode()


def run_to_the_end(world: World, settings: Mapping[str, Any]) -> tuple[int, str]:
    """Run a daemon that must refuse to start; return its exit code and the one line it says."""
    file = world.directory / "refused.toml"
    file.write_text(to_toml(settings))
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli.main", "run", "--config", str(file)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("tickcast: error: ")
    assert "Traceback" not in done.stderr
    return done.returncode, lines[0]


def test_a_missing_or_tampered_bundle_is_refused(world: World) -> None:
    free = {"port": 0}
    code, line = run_to_the_end(world, world.settings(model={"bundle": "/nowhere"}, metrics=free))
    assert code == 3
    assert "/nowhere" in line
    weights = world.bundle / "weights.npz"
    raw = bytearray(weights.read_bytes())
    raw[len(raw) // 2] ^= 1
    weights.write_bytes(raw)
    code, line = run_to_the_end(world, world.settings(metrics=free))
    assert code == 3
    assert str(world.bundle) in line


def test_wrong_settings_and_an_absent_cluster_have_their_own_codes(world: World) -> None:
    free = {"port": 0}
    code, line = run_to_the_end(world, world.settings(metrics={"port": 0, "hosts": "x"}))
    assert (code, "metrics.hosts" in line) == (2, True)
    code, line = run_to_the_end(world, world.settings(metrics=free, topics={"forecasts": "not-there"}))
    assert code == 5
    assert "not-there" in line
    assert "topics create" in line
    away = world.settings(metrics=free)
    away["kafka"] |= {"bootstrap_servers": "127.0.0.1:1", "broker_timeout_seconds": 1.0}
    code, line = run_to_the_end(world, away)
    assert code == 4
    assert "127.0.0.1:1" in line


def test_a_second_process_under_the_same_instance_ends_the_older_one(world: World) -> None:
    older = world.daemon("same").wait_ready()
    newer = ChildDaemon(world.directory, world.settings("same"), name="newer")
    world.daemons.append(newer.start())
    newer.wait_ready()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while older.process.poll() is None:
        world.send_quotes(12)
        assert time.monotonic() < deadline, "the older process goes on"
        time.sleep(0.1)
    assert older.process.returncode == 7
    assert newer.process.poll() is None
    world.await_outcomes()


def test_serving_imports_no_tensorflow(world: World) -> None:
    daemon = world.daemon().wait_ready()
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert "numpy" in maps
    assert not re.search("tensorflow|pandas", maps)


def test_a_second_signal_aborts(world: World) -> None:
    daemon = world.daemon().wait_ready()
    world.send_quotes(20_000)
    os.kill(daemon.process.pid, signal.SIGTERM)
    os.kill(daemon.process.pid, signal.SIGTERM)
    assert daemon.process.wait(PATIENCE_SECONDS) in (0, 1)
    daemon.start().wait_ready()
    world.await_outcomes()


def test_latest_begins_at_the_end_once_and_for_all(world: World) -> None:
    world.send_quotes(100)
    world.sent.clear()
    daemon = world.daemon(kafka={"auto_offset_reset": "latest"}).wait_ready()
    world.send_quotes(50)
    world.await_outcomes()
    daemon.kill()
    world.send_quotes(50)
    daemon.start().wait_ready()
    world.await_outcomes()
