"""The demo: a real Kafka, a model trained on the spot, the daemon, a market, a live table, and the books at the end.

    prepare   disease and cure | broker, topics | training, unless a model is kept | daemon ready
    market    ticks at their own pace, outcomes read back and shown
    drain     until every acknowledged tick has its outcome, or the time is up
    close     daemon by SIGTERM, what it wrote last is read, broker

Whatever happens, the last line on standard output is one JSON object, and nothing that was started is left running.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

from rich.console import Console

from daemon.dev.demo.feed import Feed
from daemon.dev.demo.result import Result
from daemon.dev.demo.stage import DemoOptions, Stage, prepare
from daemon.dev.demo.stop import Interrupts
from daemon.dev.demo.table import View
from daemon.errors import TickcastError

#: Outcomes are milliseconds behind their ticks; a machine that was busy elsewhere gets the rest.
DRAIN_SECONDS = 20.0
READ_SECONDS = 0.1


def run_demo(options: DemoOptions, console: Console) -> None:
    """Run the demo; print its result as the last line on standard output.

    Raises
    ------
    TickcastError : the market could not be opened or had to be closed, or a tick is without its one outcome
    KeyboardInterrupt : before the market was open
    """
    result = Result()
    try:
        with Interrupts() as interrupts, ExitStack() as closing:
            try:
                stage = prepare(options, console, closing)
                interrupts.answer = "note"
                result.ledger, result.facts = stage.reader.ledger, stage.facts
                _run_market(stage, options.seconds, interrupts, console, result)
                _close_books(stage, result)
            finally:
                interrupts.answer = "ignore"
    finally:
        print(result.line(), flush=True)
    problems = result.problems()
    if problems:
        raise TickcastError(f"{'; '.join(problems)}; see the logs in {options.directory}")


def _run_market(stage: Stage, seconds: float, interrupts: Interrupts, console: Console, result: Result) -> None:
    """Let ticks in for so many seconds, then wait for the outcomes; a signal ends the one, a second one the other."""
    reader, facts = stage.reader, stage.facts
    feed = Feed(stage.producer, stage.ticks.present())
    closing_time = time.monotonic() + seconds
    feed.start()
    with View(console, reader.ledger, reader.scoreboard) as view:
        while feed.is_alive() and stage.runs() and not interrupts.count and time.monotonic() < closing_time:
            reader.read(READ_SECONDS)
            stage.probe()
            facts.seconds_left = max(0.0, closing_time - time.monotonic())
            view.show(facts)
        result.tick_count = feed.stop()
        facts.seconds_left = None
        drained_by = time.monotonic() + DRAIN_SECONDS
        while reader.ledger.outcome_count < result.tick_count and stage.runs() and interrupts.count < 2:
            if time.monotonic() > drained_by:
                break
            reader.read(READ_SECONDS)
            view.show(facts)
        stage.probe(at_once=True)
        view.show(facts, at_once=True)


def _close_books(stage: Stage, result: Result) -> None:
    """Stop the daemon, and count what stands in the topics now that nobody writes any more."""
    ended_early = not stage.runs()
    result.daemon_code = stage.daemon.stop()
    result.daemon_words = stage.daemon.tail() if ended_early else ""
    result.is_whole = stage.reader.read_to_end(DRAIN_SECONDS)
