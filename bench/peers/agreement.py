"""Whether a contestant did the same work: its payloads against those of our own pipeline on the same ticks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
from kafka import KafkaConsumer, TopicPartition

from bench.peers.one_tick import COVERAGE, GAP_SECONDS, LIMITS, WARMUP_TICKS
from bench.peers.outcomes import SAMPLED_OFFSETS
from bench.rig import PARTITIONS, Rig
from daemon.core.pipeline import Pipeline, PipelineOptions
from daemon.core.records import Record
from daemon.core.sessions import Gap, Rules
from daemon.model.bundle import Bundle
from daemon.model.selftest import self_test

#: Fields that follow from the model's float32 sums, whose order is everybody's own.
COMPUTED = ("mean", "lower", "upper", "variance")


@dataclass(frozen=True)
class Agreement:
    """Payloads compared, by the id of their ticks."""

    compared: int
    #: Equal byte for byte.
    identical: int
    #: Another value in a field that is no sum of floats.
    different: int
    #: Largest difference of a price, relative to it; and of a variance, of which four digits are published.
    price_difference: float
    variance_difference: float
    #: Of all payloads against all expected ones.
    size: float


def agreement(payloads: Iterable[bytes], on: Rig, topic: str, bundle: Path) -> Agreement:
    """Compare payloads with those of the pipeline, over the first ticks of every partition of a topic."""
    found = {orjson.loads(payload)["id"]: payload for payload in payloads}
    ticks = [record for record in _first_ticks(on, topic) if f"{topic}-{record.partition}-{record.offset}" in found]
    expected = expected_payloads(bundle, ticks)
    return compare([(found[orjson.loads(payload)["id"]], payload) for payload in expected])


def expected_payloads(bundle: Path, ticks: Sequence[Record]) -> list[bytes]:
    """Return what the pipeline makes of ticks under the settings' defaults."""
    loaded = Bundle.load(bundle)
    options = PipelineOptions(LIMITS, WARMUP_TICKS, COVERAGE)
    pipeline = Pipeline(loaded.spec, self_test(loaded), Rules([], Gap(GAP_SECONDS)), options)
    for partition in range(PARTITIONS):
        pipeline.assign(partition)
    return [message.value for message in pipeline.advance(ticks).forecasts if message.value is not None]


def compare(pairs: Sequence[tuple[bytes, bytes]]) -> Agreement:
    """Compare (found, expected) payloads."""
    prices, variances, different = [0.0], [0.0], 0
    for ours, theirs in pairs:
        found, expected = orjson.loads(ours), orjson.loads(theirs)
        different += _other(found) != _other(expected)
        for name in COMPUTED:
            into = variances if name == "variance" else prices
            into += [abs(a - b) / abs(b) for a, b in zip(found[name] or (), expected[name] or (), strict=True)]
    sizes = [sum(map(len, side)) for side in zip(*pairs, strict=True)]
    return Agreement(
        len(pairs), sum(a == b for a, b in pairs), different, max(prices), max(variances), sizes[0] / sizes[1]
    )


def _other(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if name not in COMPUTED}


def _first_ticks(on: Rig, topic: str) -> list[Any]:
    consumer = KafkaConsumer(bootstrap_servers=on.bootstrap, enable_auto_commit=False, consumer_timeout_ms=1000)
    found: list[Any] = []
    for partition in range(PARTITIONS):
        here = TopicPartition(topic, partition)
        consumer.assign([here])
        consumer.seek_to_beginning(here)
        found += islice(consumer, SAMPLED_OFFSETS)
    consumer.close()
    return found
