"""`tickcast watch`: the live page."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.topics import ConfigFile, Servers, load

if TYPE_CHECKING:
    from daemon.transport.port import Readable

PORT = 8050


def watch(
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    host: Annotated[str, typer.Option(help="Address to listen on; whoever reaches it sees the page.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = PORT,
    since: Annotated[
        str | None,
        typer.Option(
            help="Begin at earliest, latest, or a time (ISO 8601); default: a minute ago.", show_default=False
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name by which browsers reach the page, beside localhost and addresses; may be repeated."),
    ] = None,
) -> None:
    """Serve the live page: instruments, prices with their forecasts, latency, variance, skill.

    It reads ticks and forecasts as any other subscriber does, without a group, and changes nothing.

    Example: tickcast watch --config tickcast.toml --port 8050
    """
    import asyncio

    from daemon.assembly import tick_decoder
    from daemon.cli.rewind import parse_when
    from daemon.errors import SettingsError
    from daemon.logs import configure_logs
    from daemon.transport.connection import Connection
    from daemon.transport.kafka_follower import KafkaFollower
    from daemon.web.board import Board

    if not (importlib.util.find_spec("starlette") and importlib.util.find_spec("uvicorn")):
        raise SettingsError("the live page needs starlette and uvicorn; install them: pip install 'tickcast[watch]'")
    from daemon.web.server import Page, listen, serve

    settings = load(config, bootstrap_servers)
    configure_logs(settings.log.format, settings.log.level)
    when = None if since is None else parse_when(since, "--since")
    topics: dict[Readable, str] = {"ticks": settings.topics.ticks, "forecasts": settings.topics.forecasts}
    follower = KafkaFollower(Connection.from_settings(settings.kafka), topics, since=when)
    board = Board(topics, tick_decoder(settings), settings.pipeline.future_skew_seconds * 1000)
    page = Page(board, allow_host or ())
    with listen(host, port) as listener:
        typer.echo(f"the live page is at {_address(host, listener.getsockname()[1])}; Ctrl-C ends it")
        asyncio.run(serve(page, follower, listener))


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
