"""Ticks at a steady rate from a process of its own, until it is told to stop.

By librdkafka, whichever client is measured: what the sender takes of two cores is missing to everybody alike. In a
`Feed` instruments take turns, so that every tick touches another one: the most snapshots that so many can lead to.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, islice
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Self

import orjson
from confluent_kafka import Producer

from bench.rig import PARTITIONS
from daemon.dev.replay import partition_of

#: A tick may be sent so much early: one sleep for several ticks costs the machine less than one for each.
EARLY_SECONDS = 0.002
#: Idempotent, because a retry would else put later ticks before earlier ones; a queue that holds any stock.
SENDING = {"linger.ms": 1, "enable.idempotence": True, "queue.buffering.max.messages": 1_000_000, "log_level": 3}


@dataclass(frozen=True)
class Mix:
    """What the ticks are like."""

    #: Ticks per second.
    rate: int
    #: Instruments at any time.
    instruments: int
    #: Instruments that a new one takes the place of, per second.
    newcomers_per_second: float = 0.0
    #: Ticks name sessions of this length; 0 names none.
    session_seconds: float = 0.0


class Feed:
    """Sends ticks while the block runs, stamped as they are sent; from number `begin` on, at most `tick_count`."""

    def __init__(self, bootstrap: str, topic: str, mix: Mix, *, begin: int = 0, tick_count: int | None = None) -> None:
        arguments = (bootstrap, topic, mix, begin, tick_count)
        self._process = get_context("spawn").Process(target=_send, args=arguments, daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()


def quotes(mix: Mix, begin: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the ticks of a mix without end; names and sessions follow from their number, not from a clock."""
    rng = random.Random(1)
    mids = [100.0 + i % 900 for i in range(mix.instruments)]
    for n in count(begin):
        seconds, slot = n / mix.rate, n % mix.instruments
        # How often the slot has been given to a new instrument; slots take turns in this too.
        generation = int(seconds * mix.newcomers_per_second + mix.instruments - 1 - slot) // mix.instruments
        mids[slot] *= 1 + rng.gauss(0, 1e-4)
        tick = {
            "instrument": f"INST{slot:05}" + (f".{generation}" if generation else ""),
            "ts": time.time_ns(),
            "bid": round(mids[slot] - 0.01, 4),
            "ask": round(mids[slot] + 0.01, 4),
            "bid_size": round(rng.expovariate(1), 3),
            "ask_size": round(rng.expovariate(1), 3),
        }
        if mix.session_seconds:
            tick["session"] = f"{seconds // mix.session_seconds:.0f}"
        yield tick


def send(bootstrap: str, topic: str, ticks: Iterable[Mapping[str, Any]], rate: int | None = None) -> None:
    """Send ticks, at a rate if there is one; those are stamped as they are sent."""
    producer = Producer({"bootstrap.servers": bootstrap, **SENDING})
    partitions: dict[str, int] = {}
    started = time.perf_counter()
    for n, tick in enumerate(ticks):
        if rate is not None:
            wait = started + n / rate - time.perf_counter()
            if wait > EARLY_SECONDS:
                time.sleep(wait)
            tick = {**tick, "ts": time.time_ns()}
        name = tick["instrument"]
        if name not in partitions:
            partitions[name] = partition_of(name, PARTITIONS)
        producer.produce(topic, orjson.dumps(tick), name, partitions[name])
        producer.poll(0)
    producer.flush()


def _send(bootstrap: str, topic: str, mix: Mix, begin: int, tick_count: int | None) -> None:
    send(bootstrap, topic, islice(quotes(mix, begin), tick_count), mix.rate)
