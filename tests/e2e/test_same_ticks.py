"""The same ticks under many names get the same forecasts, to the bit, whoever sends them and whatever runs beside them.

The published failure behind this: a service held one stateful Keras LSTM, and 50 clients that sent the same input at
once got predictions of variance 0.00347, each made out of the state of whoever had asked before. Resets and a lock
brought the variance to 0, at one request at a time. Here nobody waits for anybody: 50 producers, each with 20
instruments of its own and its own order among them, and every instrument has a state of its own.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord

from daemon.dev.child import ChildDaemon
from daemon.dev.replay import partition_of
from tests.bundles import tiny_bundle
from tests.e2e.world import PARTITIONS, World, await_that

pytestmark = pytest.mark.kafka

PRODUCERS, NAMES_EACH, STEPS = 50, 20, 25
NAMES = PRODUCERS * NAMES_EACH
TICKS = NAMES * STEPS
FORECASTS = 'tickcast_ticks_total{outcome="forecast"}'
#: Small batches, so that the canary, which has one tick in each, comes round many times.
SMALL = {"pipeline": {"max_batch_ticks": 200}}
#: What a forecast says about its tick and its state; `id` and `instrument` alone may differ.
OWN = ("id", "instrument")


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, tiny_bundle(tmp_path, units=16, layers=2).path)
    yield made
    made.close()


def test_fifty_producers_get_the_same_forecasts_for_the_same_ticks(world: World) -> None:
    daemon = world.daemon(**SMALL).wait_ready()
    send_at_once(world)
    await_that(lambda: daemon.metrics().get(FORECASTS, 0) >= TICKS, "every tick has its forecast")
    check_equal(world.await_outcomes())
    check_canary(daemon)


@pytest.mark.long
def test_the_forecasts_stay_the_same_across_a_rebalance_and_a_kill(world: World) -> None:
    """A second instance takes its share in full flight and is killed; replayed states give the same bits."""
    first, second = world.daemon("first", **SMALL).wait_ready(), world.daemon("second", **SMALL)
    sending = threading.Thread(target=send_at_once, args=(world,))
    sending.start()
    await_that(lambda: first.metrics().get(FORECASTS, 0) > TICKS / 50, "the first instance has ticks")
    second.wait_ready()
    await_that(lambda: second.metrics().get(FORECASTS, 0) > 0, "the second instance has ticks")
    second.kill()
    sending.join()
    second.start().wait_ready()
    first.kill()
    first.start().wait_ready()
    check_equal(world.await_outcomes())


def tick(step: int, began_ns: int) -> dict[str, float]:
    """Return the quote that every instrument gets at one step: it moves at some steps and rests at others."""
    bid = 100 + 0.01 * (step * 7 % 11 // 2)
    return {"ts": began_ns + step * 1_000_000, "bid": bid, "ask": bid + 0.01 * (1 + step % 3)}


def send_at_once(world: World) -> None:
    """Send all ticks from 50 producers on threads of their own, released together."""
    began_ns = time.time_ns() - 3600 * 10**9
    ticks = [tick(step, began_ns) for step in range(STEPS)]
    gate = threading.Barrier(PRODUCERS)

    def produce(number: int) -> list[tuple[int, int]]:
        producer = KafkaProducer(bootstrap_servers=world.bootstrap, linger_ms=5)
        gate.wait(60)
        futures = []
        for name, step in interleaved(number):
            value = json.dumps({"instrument": name, **ticks[step]}).encode()
            partition = partition_of(name, PARTITIONS)
            futures.append(producer.send(world.topics.ticks, value, name.encode(), partition=partition))
        producer.flush()
        producer.close()
        return [(future.value.partition, future.value.offset) for future in futures]

    with ThreadPoolExecutor(PRODUCERS) as pool:
        for sent in pool.map(produce, range(PRODUCERS)):
            world.sent += sent


def interleaved(number: int) -> Iterator[tuple[str, int]]:
    """Yield the instruments of one producer with their next step, in an order of its own."""
    steps: dict[int, int] = defaultdict(int)
    for name in np.random.default_rng(number).permutation(np.repeat(np.arange(NAMES_EACH), STEPS)).tolist():
        yield f"I{number * NAMES_EACH + name}", steps[name]
        steps[name] += 1


def check_equal(outcomes: list[ConsumerRecord]) -> None:
    """Hold what all instruments were told at each step against each other, as the text that was written."""
    assert not any(record.headers for record in outcomes), "a tick became a dead letter"
    told: dict[int, set[str]] = defaultdict(set)
    names: dict[int, set[str]] = defaultdict(set)
    means: list[str] = []
    for record in outcomes:
        forecast = json.loads(record.value)
        step = forecast["step"]
        names[step].add(forecast["instrument"])
        told[step].add(json.dumps({key: value for key, value in forecast.items() if key not in OWN}))
        means.append(json.dumps(forecast["mean"]))
        assert None not in (forecast["lower"], forecast["upper"], forecast["variance"])
    assert {step: len(found) for step, found in names.items()} == dict.fromkeys(range(STEPS), NAMES)
    assert {step: len(found) for step, found in told.items()} == dict.fromkeys(range(STEPS), 1)
    assert len(set(means)) > STEPS / 2, "forecasts that never change would be equal too"


def check_canary(daemon: ChildDaemon) -> None:
    """The daemon itself asked the same questions between the ticks, and always got the same answers."""
    metrics = daemon.metrics()
    assert metrics["tickcast_probe_runs_total"] > 0
    assert metrics["tickcast_probe_variance"] == 0
    assert metrics["tickcast_probe_max_difference"] == 0
