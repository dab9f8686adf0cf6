"""The demo: a real Kafka, a model trained on the spot, the daemon, a market, a live table, and the books at the end.

    prepare   disease and cure | broker, topics | training, unless a model is kept | daemon ready
    market    ticks at their own pace, outcomes read back and shown
    drain     every acknowledged tick has its outcome, or the time is up
    close     daemon by SIGTERM, what it wrote last is read, broker

Whatever happens, the last line on standard output is one JSON object, and nothing that was started is left running.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from daemon.config import TopicSettings
from daemon.dev import disease
from daemon.dev.broker import Broker, find_broker, start_broker
from daemon.dev.child import ChildDaemon
from daemon.dev.demo_feed import Feed, FileTicks, SimulatedTicks, Ticks
from daemon.dev.demo_model import KeptModel, answers_of, measured_disease
from daemon.dev.demo_reader import OutcomeReader
from daemon.dev.demo_result import Result
from daemon.dev.demo_stop import Interrupts
from daemon.dev.demo_table import Facts, View
from daemon.dev.replay import TickProducer
from daemon.errors import LocalBrokerError
from daemon.transport.admin import create_topics
from daemon.transport.connection import Connection

PARTITIONS = 4
#: At 200 ticks/s outcomes are milliseconds behind; a machine that was busy elsewhere gets the rest.
DRAIN_SECONDS = 20.0
READ_SECONDS = 0.1
#: How often the daemon's metrics are asked for its canary; each time costs the reader a few milliseconds.
PROBE_SECONDS = 2.0


@dataclass(frozen=True)
class DemoOptions:
    """What is to be shown."""

    #: How long the market is open, in seconds.
    seconds: float
    #: A tick file instead of the simulated market.
    ticks: Path | None
    #: A bundle instead of one trained on the spot.
    bundle: Path | None
    #: Train anew where a model is kept.
    fresh: bool
    #: Where broker, model and logs live.
    directory: Path


@dataclass
class Stage:
    """Everything that runs while the market is open."""

    ticks: Ticks
    broker: Broker
    daemon: ChildDaemon
    producer: TickProducer
    reader: OutcomeReader
    facts: Facts
    probe_due: float = 0.0

    def runs(self) -> bool:
        """Whether the daemon lives.

        Raises
        ------
        LocalBrokerError : the broker does not; nothing more can be read or counted
        """
        if not self.broker.is_running():
            raise LocalBrokerError(f"the broker ended while the market was open; see {self.broker.log_file}")
        return self.daemon.process.poll() is None

    def probe(self, *, at_once: bool = False) -> None:
        """Ask the daemon for its canary, when it is time."""
        if at_once or time.monotonic() >= self.probe_due:
            self.probe_due = time.monotonic() + PROBE_SECONDS
            self.facts.take(self.daemon)


def run_demo(options: DemoOptions, console: Console) -> int:
    """Run the demo; return the exit code.

    Raises
    ------
    TickcastError : the market could not be opened or had to be closed
    KeyboardInterrupt : before the market was open
    """
    result = Result()
    try:
        with Interrupts() as interrupts, ExitStack() as closing:
            closing.callback(setattr, interrupts, "answer", "ignore")
            stage = _prepare(options, console, closing)
            interrupts.answer = "note"
            _market(stage, options.seconds, interrupts, console, result)
            result.daemon_code = stage.daemon.stop()
            result.read_all = stage.reader.read_to_end(DRAIN_SECONDS)
            result.take(stage.reader.ledger)
    finally:
        print(result.line(), flush=True)
    return result.report(options.directory)


def _prepare(options: DemoOptions, console: Console, closing: ExitStack) -> Stage:
    directory = options.directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    ticks: Ticks = FileTicks(options.ticks) if options.ticks else SimulatedTicks()
    settings: dict[str, Any] = {"session": [{"match": "*", "rule": "gap", "gap_seconds": ticks.gap_seconds}]}
    model = KeptModel(directory, ticks, settings)
    lines = None if options.fresh or options.bundle else model.lines()
    ...
