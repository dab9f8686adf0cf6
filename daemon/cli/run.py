"""`tickcast run`: the daemon, or a parent of several."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.stopping import DEADLINE_SECONDS, Stopper, when_input_ends

if TYPE_CHECKING:
    from daemon.assembly import Engine
    from daemon.config import Settings
    from daemon.pins import PinFollower
    from daemon.transport.connection import Connection
    from daemon.transport.port import Reader, Sink, Source

#: Objects made before the collector looks for cycles. A batch makes some ten thousand and frees them without it; at
#: Python's default of 700 a sixth of a tick's time went into looking.
GC_THRESHOLD = 50_000
#: What a dead letter needs beside key and value: headers and the batch around it.
DEAD_LETTER_OVERHEAD_BYTES = 4096
#: What the bounds of all that is closed add up to: consumer 5 s, leaving the group 5 s, producer 5 s, readers 1 s each.
#: Below the deadline, so that a close that hangs is told from one that began late because the broker is away.
CLOSE_SECONDS = 18.0
#: A new cluster makes the topics of its coordinators when it is first asked, and each of ours may wait 30 s for that.
COORDINATORS_SECONDS = 60.0
#: For each of the brokers, when it is asked whether we are still let in.
KNOCK_SECONDS = 5.0
#: How often a pinned bundle that is missing is looked for.
PINNED_SECONDS = 1.0


def run(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The settings file (TOML).", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes on this machine, all of one group.")] = 1,
    leash: Annotated[bool, typer.Option("--leash", hidden=True, help="Stop when standard input ends.")] = False,
) -> int:
    """Run the daemon: ticks in, a forecast for every tick out, until SIGTERM.

    Example: tickcast run --config tickcast.toml
    """
    from daemon.config import load_settings
    from daemon.logs import configure_logs

    settings = load_settings(config)
    kafka, metrics = settings.kafka, settings.metrics
    configure_logs(settings.log.format, settings.log.level, instance=kafka.instance_id)
    if workers > 1:
        from daemon.workers import run_workers

        arguments = ["run", "--leash", *(["--config", str(config)] if config else [])]
        return run_workers(workers, arguments, kafka.instance_id, metrics.port)
    stopper = Stopper()
    if leash:
        when_input_ends(sys.stdin.fileno(), stopper.ask)
    _run(settings, stopper)
    return 0


def _run(settings: Settings, stopper: Stopper) -> None:
    from daemon.assembly import build_engine, build_service
    from daemon.errors import BrokerUnavailable
    from daemon.health import HealthServer
    from daemon.logs import facts, log
    from daemon.pins import PinFollower
    from daemon.transport.clients import require_client
    from daemon.transport.connection import Connection
    from daemon.transport.kafka_reader import KafkaReader
    from daemon.transport.knock import knock
    from daemon.watchdog import Watchdog, end_process

    kafka = settings.kafka
    require_client(settings)
    engine = build_engine(settings)
    health = engine.health
    # Never closed: the last thing that can hang is the end of the interpreter.
    Watchdog(health, end_process).start()
    server = HealthServer(settings.metrics.host, settings.metrics.port, engine.registry, health)
    log.info(
        "tickcast starts",
        extra=facts(model=engine.model.id, revision=engine.revision, metrics_port=server.port, pid=os.getpid()),
    )
    connection = Connection.from_settings(kafka)
    _prepare(connection, settings, engine)
    follower_reader = KafkaReader(connection, {"state": settings.topics.state})
    follower = PinFollower(follower_reader, kafka.group_id)
    _take_pinned(engine, follower, kafka.broker_timeout_seconds)
    source, sink, reader = _connect(connection, settings, engine)
    service = build_service(settings, engine, source, sink, reader, follower)
    gc.freeze()  # what stands by now stays
    gc.set_threshold(GC_THRESHOLD, 20, 20)

    def stop() -> None:
        health.closing(DEADLINE_SECONDS)
        service.stop()

    stopper.install(stop)
    clean = False
    try:
        service.run()
        clean = True
    except BrokerUnavailable:
        knock(connection, KNOCK_SECONDS)  # a login that is refused by now looks like a lost connection; this one tells
        raise
    finally:
        health.closing(DEADLINE_SECONDS)
        with health.allowing(CLOSE_SECONDS, "the clients to close"):
            source.close(leave=clean and kafka.stop == "leave")
            sink.close()
            reader.close()
            follower_reader.close()
            server.close()
        stopper.finish()
        log.info("stopped" if clean else "ended", extra=facts(clean=clean, offsets=service.committed))


def _prepare(connection: Connection, settings: Settings, engine: Engine) -> None:
    """Wait for a cluster that can keep our promises."""
    from daemon.logs import log
    from daemon.transport.admin import preflight
    from daemon.transport.offsets import begin_at_end
    from daemon.transport.topics import DEFAULT_MESSAGE_BYTES

    kafka, health = settings.kafka, engine.health
    health.waiting_for = "a broker"
    with health.allowing(kafka.broker_timeout_seconds + COORDINATORS_SECONDS, "a cluster that is ready"):
        limit = preflight(connection, settings)["dead_letters"].message_bytes_max or DEFAULT_MESSAGE_BYTES
    engine.dead_letter_bytes_max = limit - DEAD_LETTER_OVERHEAD_BYTES
    with health.allowing(COORDINATORS_SECONDS, "the offsets of the group"):
        if kafka.auto_offset_reset == "latest" and begin_at_end(connection, kafka.group_id, settings.topics.ticks):
            log.info("the group is new and begins at the end of the topic")


def _take_pinned(engine: Engine, follower: PinFollower, patience_seconds: float) -> None:
    """Take the bundle that the group has pinned; who lacks it takes no part until it is there, or another is pinned."""
    from daemon.errors import BrokerUnavailable, BundleError
    from daemon.logs import facts, log

    health, said = engine.health, ""
    deadline = time.monotonic() + patience_seconds
    while True:
        health.turned()
        try:
            with health.allowing(COORDINATORS_SECONDS, "the pinned bundle"):
                pin = follower.look()
                if pin is not None and pin.bundle != engine.model.id:
                    engine.take(pin.bundle)
                    log.info("the pinned bundle runs", extra=facts(model=engine.model.id, revision=engine.revision))
            return
        except BundleError as error:
            health.waiting_for = f"the pinned bundle: {error}"
            if str(error) != said:
                log.error("not ready, takes no part in the group", extra=facts(reason=str(error)))
            said = str(error)
        except BrokerUnavailable:
            if time.monotonic() >= deadline:
                raise
        time.sleep(PINNED_SECONDS)


def _connect(connection: Connection, settings: Settings, engine: Engine) -> tuple[Source, Sink, Reader]:
    """Join the group."""
    from daemon.transport.clients import make_reader, make_sink, open_source

    with engine.health.allowing(2 * settings.kafka.broker_timeout_seconds, "a consumer"):  # a broker, then the topic
        source = open_source(connection, settings)
    return source, make_sink(connection, settings), make_reader(connection, settings)
