"""`tickcast run`: the daemon, or a parent of several."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.stopping import DEADLINE_SECONDS, Stopper, when_input_ends

if TYPE_CHECKING:
    from daemon.assembly import Engine
    from daemon.config import Settings
    from daemon.transport.connection import Connection
    from daemon.transport.port import Reader, Role, Sink, Source

#: Objects made before the collector looks for cycles. A batch makes some ten thousand and frees them without it; at
#: Python's default of 700 a sixth of a tick's time went into looking.
GC_THRESHOLD = 50_000
#: What a dead letter needs beside key and value: headers and the batch around it.
DEAD_LETTER_OVERHEAD_BYTES = 4096
#: What the bounds of all that is closed add up to: consumer 5 s, leaving the group 5 s, producer 5 s, reader 1 s. Below
#: the deadline, so that a close that hangs is told from one that began late because the broker is away.
CLOSE_SECONDS = 17.0
#: A new cluster makes the topics of its coordinators when it is first asked, and each of ours may wait 30 s for that.
COORDINATORS_SECONDS = 60.0


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
    from daemon.health import HealthServer
    from daemon.logs import facts, log
    from daemon.transport.connection import Connection
    from daemon.watchdog import Watchdog, end_process

    kafka = settings.kafka
    engine = build_engine(settings)
    health = engine.health
    # Never closed: the last thing that can hang is the end of the interpreter.
    Watchdog(health, end_process).start()
    server = HealthServer(settings.metrics.host, settings.metrics.port, engine.registry, health)
    log.info(
        "tickcast starts",
        extra=facts(model=engine.bundle.id, revision=engine.revision, metrics_port=server.port, pid=os.getpid()),
    )
    connection = Connection.from_settings(kafka)
    source, sink, reader = _connect(connection, settings, engine)
    service = build_service(settings, engine, source, sink, reader)
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
    finally:
        health.closing(DEADLINE_SECONDS)
        with health.allowing(CLOSE_SECONDS, "the clients to close"):
            source.close(leave=clean and kafka.stop == "leave")
            sink.close()
            reader.close()
            server.close()
        stopper.finish()
        log.info("stopped" if clean else "ended", extra=facts(clean=clean, offsets=service.committed))


def _connect(connection: Connection, settings: Settings, engine: Engine) -> tuple[Source, Sink, Reader]:
    """Wait for a cluster that can keep our promises, and join the group."""
    from daemon.logs import log
    from daemon.transport.admin import preflight
    from daemon.transport.kafka_reader import KafkaReader
    from daemon.transport.kafka_sink import KafkaSink
    from daemon.transport.kafka_source import KafkaSource
    from daemon.transport.offsets import begin_at_end
    from daemon.transport.topics import DEFAULT_MESSAGE_BYTES

    kafka, topics, health = settings.kafka, settings.topics, engine.health
    wait = kafka.broker_timeout_seconds
    health.waiting_for = "a broker"
    with health.allowing(wait + COORDINATORS_SECONDS, "a cluster that is ready"):
        limit = preflight(connection, settings)["dead_letters"].message_bytes_max or DEFAULT_MESSAGE_BYTES
    engine.pipeline.dead_letter_bytes_max = limit - DEAD_LETTER_OVERHEAD_BYTES
    with health.allowing(COORDINATORS_SECONDS, "the offsets of the group"):
        if kafka.auto_offset_reset == "latest" and begin_at_end(connection, kafka.group_id, topics.ticks):
            log.info("the group is new and begins at the end of the topic")
    names = {"instance_id": kafka.instance_id, "group_id": kafka.group_id}
    with health.allowing(2 * wait, "a consumer"):  # for a broker, then for the topic
        source = KafkaSource(connection, topic=topics.ticks, timeout_seconds=wait, **names)
    written: dict[Role, str] = {
        "forecasts": topics.forecasts,
        "dead_letters": topics.dead_letters,
        "state": topics.state,
    }
    if topics.scores:
        written["scores"] = topics.scores
    sink = KafkaSink(
        connection,
        topics=written,
        ticks_topic=topics.ticks,
        timeout_seconds=wait,
        **names,
    )
    # Its own short patience: recovery asks again, and the loop must not wait for one answer as long as for a cluster.
    reader = KafkaReader(connection, {"ticks": topics.ticks, "state": topics.state})
    return source, sink, reader
