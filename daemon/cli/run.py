"""`tickcast run`: the daemon."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from daemon.config import Settings

#: Objects made before the collector looks for cycles. A batch makes some ten thousand and frees them without it; at
#: Python's default of 700 a sixth of a tick's time went into looking.
GC_THRESHOLD = 50_000
#: What a dead letter needs beside key and value: headers and the batch around it.
DEAD_LETTER_OVERHEAD_BYTES = 4096


def run(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The settings file (TOML).", show_default=False)
    ] = None,
) -> None:
    """Run the daemon: ticks in, a forecast for every tick out, until SIGTERM.

    Example: tickcast run --config tickcast.toml
    """
    from daemon.config import load_settings
    from daemon.logs import configure_logs

    settings = load_settings(config)
    configure_logs(settings.log.format, settings.log.level)
    _run(settings)


def _run(settings: Settings) -> None:
    from daemon.assembly import build_engine, build_service
    from daemon.health import HealthServer
    from daemon.logs import facts, log
    from daemon.stopping import Stopper
    from daemon.transport.admin import preflight
    from daemon.transport.connection import Connection
    from daemon.transport.kafka_sink import KafkaSink
    from daemon.transport.kafka_source import KafkaSource
    from daemon.transport.topics import DEFAULT_MESSAGE_BYTES

    kafka, topics = settings.kafka, settings.topics
    engine = build_engine(settings)
    server = HealthServer(settings.metrics.host, settings.metrics.port, engine.registry, engine.health)
    log.info(
        "tickcast starts",
        extra=facts(model=engine.bundle.id, revision=engine.revision, metrics_port=server.port, pid=os.getpid()),
    )
    connection = Connection.from_settings(kafka)
    engine.health.waiting_for = "a broker"
    limit = preflight(connection, settings)["dead_letters"].message_bytes_max or DEFAULT_MESSAGE_BYTES
    engine.pipeline.dead_letter_bytes_max = limit - DEAD_LETTER_OVERHEAD_BYTES
    wait = kafka.broker_timeout_seconds
    source = KafkaSource(
        connection, topic=topics.ticks, group_id=kafka.group_id, instance_id=kafka.instance_id, timeout_seconds=wait
    )
    sink = KafkaSink(
        connection,
        topics={"forecasts": topics.forecasts, "dead_letters": topics.dead_letters, "state": topics.state},
        ticks_topic=topics.ticks,
        group_id=kafka.group_id,
        instance_id=kafka.instance_id,
        timeout_seconds=wait,
    )
    service = build_service(settings, engine, source, sink)
    gc.freeze()  # what stands by now stays
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    stopper = Stopper(service.stop)
    stopper.install()
    clean = False
    try:
        service.run()
        clean = True
    finally:
        source.close(leave=clean and kafka.stop == "leave")
        sink.close()
        server.close()
        stopper.finish()
        log.info("stopped" if clean else "ended", extra=facts(clean=clean, offsets=service.committed))
