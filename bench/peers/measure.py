"""One contestant, alone on the broker: works off a stock of ticks, follows steady rates, is killed and started again.

All of it is one life of the contestant on topics of its own, in this order, so that caches, compilers and states are
warm when latency is measured. Outputs get the broker's clock (LogAppendTime): Kafka Streams and Quix Streams hand the
tick's own timestamp on.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.feed import send
from bench.peers.agreement import agreement
from bench.peers.children import Child
from bench.peers.contestants import Contestant
from bench.peers.feeder import INSTRUMENTS, feeding
from bench.peers.outcomes import Outcome, Reader, count, percentiles, rate
from bench.rig import PARTITIONS, Rig, made_ticks
from daemon.config import TopicSettings

#: Share of the stock after which the clock starts.
WARM_UP = 0.2
#: Seconds of a steady rate that are left out: what is still open of the stock's last commit.
SETTLE_SECONDS = 3.0
#: Ticks that are sent after the last that counts: some only commit when more comes.
TAIL_SECONDS = 1.0
RATES = (1_000, 10_000)
#: Who cannot work so much faster than the ticks come is not asked: its latency would be the length of the queue.
HEADROOM = 1.2
#: Ticks per second around a kill, for all who can.
KILL_RATE = 1_000
#: After a kill ticks go on coming for so long; longer than most need to be back.
AFTER_KILL_SECONDS = 8.0
#: Longer than a consumer group or a transaction coordinator waits for somebody who is dead, by any default.
PATIENCE_SECONDS = 100.0
LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    #: Of the contestant's own count of ticks.
    share: float = 1.0
    seconds: float = 12.0
    #: Before a kill: long enough that every store has been written to.
    before_kill_seconds: float = 12.0


QUICK = Sizes(share=0.1, seconds=5.0, before_kill_seconds=6.0)


class Run:
    """One run of one contestant."""

    def __init__(self, on: Rig, contestant: Contestant, bundle: Path, cache: Path, sizes: Sizes) -> None:
        self._on = on
        self._contestant = contestant
        self._sizes = sizes
        self._bundle = bundle
        self._topics = _topics(on, contestant.key)
        command, environment = contestant.command(on, self._topics, bundle, cache)
        self._log = on.directory / f"{contestant.key}.log"
        self._child = Child(command, environment, self._log)
        self._reader = Reader(on.bootstrap, self._topics.forecasts)
        self._outcomes: list[Outcome] = []
        self._sent = 0

    def __call__(self) -> dict[str, Any]:
        """Return all figures."""
        try:
            found: dict[str, Any] = self._throughput()
            speed = found["ticks_per_second"]
            found["latency"] = {str(each): self._latency(each) if speed > HEADROOM * each else None for each in RATES}
            found["recovery"] = self._recovery(min(KILL_RATE, int(speed / 2)))
            found["in_all"] = asdict(count(self._sent, self._outcomes))
            return found
        finally:
            self._child.kill()
            self._reader.close()
            _forget(self._on, self._contestant.key)

    def _throughput(self) -> dict[str, Any]:
        ticks = max(int(self._contestant.ticks * self._sizes.share), 50)
        send(self._on.bootstrap, self._topics.ticks, made_ticks(ticks, INSTRUMENTS))
        self._sent += ticks
        self._child.start()
        looks = self._follow(ticks)
        peak = self._child.peak_megabytes()
        outcomes = self._read_all()
        written, cpu = zip(*looks, strict=True)
        warm = max(i for i, number in enumerate(written) if number <= WARM_UP * written[-1])
        # Offsets count the marks of transactions, too; they are a share of the ticks that does not change.
        share = (written[-1] - written[warm]) / written[-1]
        return {
            "ticks_per_second": rate(outcomes, WARM_UP),
            "cpu_seconds_per_million_ticks": (cpu[-1] - cpu[warm]) / (share * ticks) * 1e6,
            "peak_megabytes": peak,
            "stock": asdict(count(self._sent, self._outcomes)),
            "payloads": asdict(agreement(self._reader.samples, self._on, self._topics.ticks, self._bundle)),
        }

    def _follow(self, ticks: int) -> list[tuple[int, float]]:
        """Watch the output grow until all ticks are through; return its size and the processor time, look by look."""
        settings = {
            "bootstrap.servers": self._on.bootstrap,
            "group.id": "follow",
            "isolation.level": "read_uncommitted",
        }
        consumer = Consumer(settings)
        places = [TopicPartition(self._topics.forecasts, partition) for partition in range(PARTITIONS)]
        looks: list[tuple[int, float]] = []
        moved = time.monotonic()
        while not looks or looks[-1][0] < ticks:
            self._child.check()
            written = sum(consumer.get_watermark_offsets(place, cached=False)[1] for place in places)
            if not looks or written > looks[-1][0]:
                moved = time.monotonic()
            elif time.monotonic() - moved > PATIENCE_SECONDS:
                raise SystemExit(f"{self._contestant.key} stopped at {written:,} of {ticks:,}; see {self._log}")
            looks.append((written, self._child.cpu_seconds()))
            time.sleep(LOOK_SECONDS)
        consumer.close()
        return looks

    def _latency(self, ticks_per_second: int) -> dict[str, float]:
        seconds = SETTLE_SECONDS + self._sizes.seconds + TAIL_SECONDS
        started = time.time()
        with feeding(self._on.bootstrap, self._topics.ticks, ticks_per_second, int(ticks_per_second * seconds)):
            self._sent += int(ticks_per_second * seconds)
            outcomes = self._read_all()
        begin = min(each.sent for each in outcomes if each.sent > started) + SETTLE_SECONDS
        end = begin + self._sizes.seconds
        return percentiles(each.arrived - each.sent for each in outcomes if begin < each.sent < end)

    def _recovery(self, ticks_per_second: int) -> dict[str, Any]:
        before = self._sizes.before_kill_seconds
        number = int(ticks_per_second * (before + AFTER_KILL_SECONDS))
        with feeding(self._on.bootstrap, self._topics.ticks, ticks_per_second, number):
            self._sent += number
            deadline = time.time() + before
            self._read(lambda _: time.time() > deadline)
            killed = time.time()
            self._child.kill()
            self._child.start()
            after = self._read_all()
        firsts: dict[int, float] = {}
        for each in after:
            if each.sent > killed:  # earlier ticks may have been on their way to the broker already
                firsts.setdefault(each.partition, each.arrived - killed)
        return {
            "ticks_per_second": ticks_per_second,
            "first_seconds": min(firsts.values(), default=None),
            "every_partition_seconds": max(firsts.values()) if len(firsts) == PARTITIONS else None,
        }

    def _read_all(self) -> list[Outcome]:
        """Read until every tick sent so far has its forecast, or nothing comes any more."""
        seen = {(each.partition, each.offset) for each in self._outcomes}

        def done(found: Sequence[Outcome]) -> bool:
            if found:
                seen.add((found[-1].partition, found[-1].offset))
            return len(seen) >= self._sent

        return self._read(done)

    def _read(self, done: Callable[[Sequence[Outcome]], bool]) -> list[Outcome]:
        found = self._reader.read(done, PATIENCE_SECONDS)
        self._outcomes += found
        self._child.check()
        return found


def _topics(on: Rig, key: str) -> TopicSettings:
    """Create the topics of a run, the output with the broker's clock."""
    admin = AdminClient({"bootstrap.servers": on.bootstrap})
    forecasts = NewTopic(f"{key}-forecasts", PARTITIONS, config={"message.timestamp.type": "LogAppendTime"})
    for created in admin.create_topics([forecasts]).values():
        created.result()
    return on.topics(key)


def _forget(on: Rig, key: str) -> None:
    """Delete all topics of a run, those that a peer has made for itself, too: cleaning them would cost the next one."""
    admin = AdminClient({"bootstrap.servers": on.bootstrap})
    ours = [topic for topic in admin.list_topics().topics if f"{key}-" in topic]
    for deleted in admin.delete_topics(ours).values():
        deleted.result()


def measure(on: Rig, contestant: Contestant, bundle: Path, cache: Path, sizes: Sizes) -> dict[str, Any]:
    """Run one contestant."""
    print(f"{contestant.key} ...", file=sys.stderr)
    return Run(on, contestant, bundle, cache, sizes)()
