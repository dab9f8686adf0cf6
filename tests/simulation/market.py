"""The ticks of a seed: several instruments, sessions, duplicates, late and bad ticks, overflows, a quiet partition."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

from daemon.core.pipeline import Pipeline
from daemon.core.records import InputRecord, Message
from daemon.transport.memory_log import MemoryLog
from tests import ticks
from tests.property.logs import INSTRUMENTS, LIMITS, SPEC, TWISTS, WAITS, build, rules
from tests.steps import RandomStep

PARTITIONS = 3
#: The last partition is quiet.
SHARES = (8, 4, 1)
TICKS = (20, 60)
#: Instruments whose ticks have no `seq`: nothing else would show that one was applied twice.
UNNUMBERED = (b"A.gap", b"F.never")
#: Twelve characters, as in a snapshot; each has a model and a warm-up of its own.
REVISIONS = ("revision-one", "revision-two")
STEPS = {name: RandomStep(len(SPEC.columns), len(SPEC.outputs), seed=n) for n, name in enumerate(REVISIONS)}
WARMUP_TICKS = {name: 2 + n for n, name in enumerate(REVISIONS)}
RULES = rules()
MARKET = "market"


def draw(random: Random) -> list[InputRecord]:
    """Return the ticks of all partitions in the order of time; their offsets mean nothing."""
    drawn = build(
        [
            (
                random.choice(INSTRUMENTS),
                random.choices(range(PARTITIONS), SHARES)[0],
                random.choice(WAITS),
                random.choice(("trade", "quote", "both")),
                random.choice(TWISTS),
                random.randint(-3, 3),
            )
            for _ in range(random.randint(*TICKS))
        ]
    )
    return [_without_seq(record) if record.key in UNNUMBERED else record for record in drawn]


def _without_seq(record: InputRecord) -> InputRecord:
    return record._replace(value=re.sub(rb'"seq": \d+, ', b"", record.value or b""))


def pipeline(revision: str, instruments_max: int) -> Pipeline:
    """Return the pipeline of a revision, without partitions."""
    return ticks.pipeline(
        replace(SPEC, model_id=revision),
        step=STEPS[revision],
        rules=RULES,
        limits=LIMITS,
        partitions=(),
        scores=True,
        warmup_ticks=WARMUP_TICKS[revision],
        instruments_per_partition_max=instruments_max,
    )


class Market:
    """Whoever writes the ticks; mostly outside any transaction, sometimes in one, sometimes in one that it aborts."""

    def __init__(self, log: MemoryLog, random: Random) -> None:
        self._log = log
        self._random = random
        self._todo = draw(random)
        #: What the daemon has to answer, by partition, as it will always be remembered.
        self.answerable: dict[int, list[InputRecord]] = {partition: [] for partition in range(PARTITIONS)}

    @property
    def open(self) -> bool:
        """True while ticks are to come."""
        return bool(self._todo)

    def write(self) -> str:
        """Write the next few ticks and return how."""
        count = self._random.randint(1, 6)
        now, self._todo = self._todo[:count], self._todo[count:]
        how = self._random.choices(("ticks", "ticks in a transaction", "aborted ticks"), (6, 1, 1))[0]
        if how == "ticks":
            for record in now:
                self._log.now_ms = record.timestamp
                self._keep(record, self._log.produce(record.partition, record.key, record.value))
        else:
            self._write_transaction(now, committed=how != "aborted ticks")
        return how

    def _write_transaction(self, records: list[InputRecord], *, committed: bool) -> None:
        claim = self._log.claim(MARKET)
        self._log.begin(claim)
        for record in records:
            self._log.now_ms = record.timestamp
            offset = self._log.append(claim, "ticks", Message(record.partition, record.key, record.value))
            if committed:
                self._keep(record, offset)
        self._log.end(claim, committed=committed)

    def _keep(self, record: InputRecord, offset: int) -> None:
        facts = (record.topic, record.partition, offset, record.timestamp, record.key, record.value)
        self.answerable[record.partition].append(InputRecord(*facts))
