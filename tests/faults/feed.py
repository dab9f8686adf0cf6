"""The ticks of the proof: real ones where the file is there, else simulated; dirtied, and written in transactions.

The real feed has six instruments. Each stands here for many: its ticks are dealt out at random, most to a few names and
the rest to some rare ones, together more than a partition may keep, so that checkpoints are long and hold tombstones.
About two in a hundred ticks are bad, late or sent twice, and every instrument changes its session now and then.

The topic is written in transactions, and some of these are aborted first: its offsets have gaps, as those of any
transactional producer, and what was aborted must have no outcome.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from kafka import KafkaProducer

from daemon.dev.replay import partition_of
from tests.e2e.world import PARTITIONS

#: Names per real instrument.
COMMON, RARE = 3, 25
RARE_SHARE = 0.12
DIRT_SHARE = 0.02
#: Accepted ticks of an instrument in one session.
SESSION_TICKS = 400
LATE_NS = 10 * 10**9
#: Records in one transaction of the feed; every n-th is aborted, then sent again.
CHUNK = 1500
ABORT_EVERY = 6


class Raw(NamedTuple):
    """A record of the ticks topic, to be sent."""

    partition: int
    key: bytes
    value: bytes | None


def dirty(ticks: Iterable[Mapping[str, Any]], seed: int) -> Iterator[Raw]:
    """Deal ticks out to more instruments, give them `seq` and `session`, and mix dirt among them."""
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    for tick in ticks:
        number = COMMON + rng.randrange(RARE) if rng.random() < RARE_SHARE else rng.randrange(COMMON)
        name = f"{tick['instrument']}.{number}"
        seq = counts[name]
        counts[name] += 1
        made = {**tick, "instrument": name, "seq": 10 * seq, "session": f"s{seq // SESSION_TICKS}"}
        yield _raw(name, json.dumps(made).encode())
        if rng.random() < DIRT_SHARE:
            yield _raw(name, _spoilt(made, rng.randrange(6)))


def _spoilt(tick: Mapping[str, Any], kind: int) -> bytes | None:
    """Return what must become a dead letter, sent right after its instrument's good tick."""
    nothing = {"bid": None, "ask": None, "bid_size": None, "ask_size": None}
    later = {**tick, "seq": tick["seq"] + 1}
    bad: tuple[bytes | None, ...] = (
        json.dumps(tick).encode(),  # sent twice
        json.dumps({**later, "ts": tick["ts"] - LATE_NS}).encode(),
        json.dumps({**later, "bid": 2.0, "ask": 1.0}).encode(),
        json.dumps({**later, **nothing, "price": 0}).encode(),
        json.dumps(later).encode()[:-7],  # cut off
        None,
    )
    return bad[kind]


def _raw(name: str, value: bytes | None) -> Raw:
    return Raw(partition_of(name, PARTITIONS), name.encode(), value)


def write_feed(bootstrap: str, topic: str, feed: Sequence[Raw]) -> None:
    """Send the feed in transactions, some of them a second time after an aborted first one."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=f"{topic}-feed", linger_ms=5)
    producer.init_transactions()
    for number, start in enumerate(range(0, len(feed), CHUNK)):
        chunk = feed[start : start + CHUNK]
        if number % ABORT_EVERY == 1:
            _send(producer, topic, chunk)
            producer.abort_transaction()
        _send(producer, topic, chunk)
        producer.commit_transaction()
    producer.close()


def _send(producer: KafkaProducer, topic: str, chunk: Sequence[Raw]) -> None:
    producer.begin_transaction()
    futures = [producer.send(topic, raw.value, raw.key, partition=raw.partition) for raw in chunk]
    producer.flush()
    for future in futures:
        future.get(30)
