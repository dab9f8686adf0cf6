"""What came out: every forecast of a run with its times, and what can be counted from them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson
from confluent_kafka import Consumer, TopicPartition

from bench.rig import PARTITIONS

#: Ticks of each partition whose payloads are compared.
SAMPLED_OFFSETS = 500
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Outcome(NamedTuple):
    """One forecast, as a `read_committed` consumer got it."""

    #: When it was in the reader's hands, and when the broker wrote it down; Unix time, seconds.
    arrived: float
    written: float
    instrument: str
    #: Place of its tick.
    partition: int
    offset: int
    #: When its tick was sent; seconds.
    sent: float
    step: int


def reading(bootstrap: str, topic: str) -> Consumer:
    """Return a `read_committed` consumer of a whole topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reader-of-{topic}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 20,
            # A partition that was caught up is asked again after this; the default of 1 s is for slow readers.
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    return consumer


class Reader:
    """Takes forecasts one by one: a consumer that gathers batches would measure itself."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        #: Payloads of the first ticks of every partition, to compare.
        self.samples: list[bytes] = []
        self._consumer = reading(bootstrap, topic)

    def read(self, done: Callable[[Sequence[Outcome]], bool], idle_seconds: float) -> list[Outcome]:
        """Return what comes, until `done` says so or nothing has come for so long."""
        found: list[Outcome] = []
        last = time.monotonic()
        while not done(found) and time.monotonic() - last < idle_seconds:
            message = self._consumer.poll(0.02)
            if message is None:
                continue
            error = message.error()
            if error is not None:
                if error.retriable():
                    continue
                raise SystemExit(f"the reader of forecasts failed: {error}")
            arrived, last = time.time(), time.monotonic()
            payload = message.value()
            assert payload is not None
            found.append(outcome(payload, arrived, message.timestamp()[1] / 1000))
            if found[-1].offset < SAMPLED_OFFSETS:
                self.samples.append(payload)
        return found

    def close(self) -> None:
        """Let go of the broker."""
        self._consumer.close()


def outcome(payload: bytes, arrived: float, written: float) -> Outcome:
    """Read a forecast."""
    said = orjson.loads(payload)
    _, partition, offset = said["id"].rsplit("-", 2)
    return Outcome(arrived, written, said["instrument"], int(partition), int(offset), said["ts"] / 1e9, said["step"])


@dataclass(frozen=True)
class Count:
    """Forecasts against ticks."""

    ticks: int
    forecasts: int
    #: Ticks without a forecast, and forecasts beyond the first of a tick.
    missing: int
    repeated: int
    #: Ticks of which a forecast says another `step` than all their instrument's ticks before lead to: the state behind
    #: it was not theirs.
    wrong_state: int


def count(ticks: int, outcomes: Iterable[Outcome]) -> Count:
    """Count the outcomes of a topic of ticks whose instruments are never reset."""
    times: Counter[tuple[int, int]] = Counter()
    steps: defaultdict[tuple[int, str], dict[int, set[int]]] = defaultdict(dict)
    for each in outcomes:
        times[each.partition, each.offset] += 1
        steps[each.partition, each.instrument].setdefault(each.offset, set()).add(each.step)
    forecasts = sum(times.values())
    wrong = sum(
        said != {number}
        for of_instrument in steps.values()
        for number, (_, said) in enumerate(sorted(of_instrument.items()))
    )
    return Count(ticks, forecasts, ticks - len(times), forecasts - len(times), wrong)


def percentiles(values: Iterable[float]) -> dict[str, float]:
    """Return p50, p99 and p99.9 in milliseconds, of seconds."""
    settled = sorted(values)
    return {name: 1000 * settled[int(len(settled) * share)] for name, share in SHARES.items()}


def rate(outcomes: Sequence[Outcome], warm_up: float) -> float:
    """Return forecasts per second by the broker's clock, from a share of them on."""
    times = sorted(each.written for each in outcomes)
    warm = times[int(warm_up * len(times)) :]
    return (len(warm) - 1) / (warm[-1] - warm[0])
