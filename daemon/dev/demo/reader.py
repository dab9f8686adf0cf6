"""Reads ticks and outcomes as their users do, `read_committed`, into the demo's books."""

from __future__ import annotations

import time
from typing import Any

import orjson
from kafka import KafkaConsumer, TopicPartition

from daemon.config import TopicSettings
from daemon.dev.demo.ledger import Ledger
from daemon.dev.demo.scoreboard import Scoreboard
from daemon.transport.connection import Connection
from daemon.transport.kafka_client import connect
from daemon.transport.topics import names_by_role
from schemas.dead_letter import HEADER_PREFIX

CONNECT_SECONDS = 15.0
#: While the broker holds a fetch of quiet partitions, what came in on the others waits for it.
FETCH_MAX_WAIT_MS = 10


class OutcomeReader:
    """One consumer without a group, from the beginning of the topics of ticks, forecasts and dead letters."""

    def __init__(self, connection: Connection, topics: TopicSettings, partitions: int) -> None:
        self.ledger = Ledger()
        self.scoreboard = Scoreboard()
        self._names = names_by_role(topics)
        self._consumer = connect(
            KafkaConsumer,
            connection,
            CONNECT_SECONDS,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            metrics_enabled=False,
        )
        # Ticks first: of what one poll brings, they are noted before the outcomes that name them.
        roles = ("ticks", "forecasts", "dead_letters")
        self._assigned = [TopicPartition(self._names[role], number) for role in roles for number in range(partitions)]
        self._consumer.assign(self._assigned)
        self._consumer.seek_to_beginning()

    def read(self, timeout_seconds: float) -> None:
        """Take in what comes within `timeout_seconds`, returning with the first of it."""
        fetched = self._consumer.poll(timeout_ms=timeout_seconds * 1000)
        read_ms = time.time() * 1000
        for partition in self._assigned:
            for record in fetched.get(partition, ()):
                self._note(record, read_ms)

    def read_to_end(self, timeout_seconds: float) -> bool:
        """Read up to where the topics end now; return False where the time did not suffice."""
        deadline = time.monotonic() + timeout_seconds
        ends = self._consumer.end_offsets(self._assigned)
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            if time.monotonic() > deadline:
                return False
            self.read(0.1)
        return True

    def close(self) -> None:
        """Let the consumer go."""
        self._consumer.close(autocommit=False)

    def _note(self, record: Any, read_ms: float) -> None:
        if record.topic == self._names["ticks"]:
            self.ledger.tick(f"{record.topic}-{record.partition}-{record.offset}", record.timestamp)
        elif record.topic == self._names["forecasts"]:
            forecast = orjson.loads(record.value)
            self.scoreboard.add(forecast, self.ledger.forecast(forecast["id"], read_ms))
        else:
            origin = {name.removeprefix(HEADER_PREFIX): value.decode() for name, value in record.headers}
            self.ledger.dead_letter(f"{origin['topic']}-{origin['partition']}-{origin['offset']}")
