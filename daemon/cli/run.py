"""`tickcast run`: the daemon."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from daemon.assembly import Engine
    from daemon.config import Settings
    from daemon.service import Service
    from daemon.transport.port import Sink, Source


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
    from daemon.transport.connection import connection_of

    engine = build_engine(settings)
    server = HealthServer(settings.metrics.host, settings.metrics.port, engine.registry, engine.health)
    log.info(
        "tickcast starts",
        extra=facts(model=engine.bundle.id, revision=engine.revision, metrics_port=server.port, pid=os.getpid()),
    )
    connection = connection_of(settings)
    preflight(connection, settings)
    source, sink = _open_transport(settings)
    service = build_service(settings, engine, source, sink)
    stopper = Stopper(lambda: setattr(service, "stopping", True))
    stopper.install()
    clean = False
    try:
        service.run()
        clean = True
    finally:
        source.close(leave=clean and settings.kafka.stop == "leave")
        sink.close()
        server.close()
        stopper.finish()
        log.info("stopped" if clean else "ended", extra=facts(clean=clean, offsets=service.committed))
