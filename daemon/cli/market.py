"""`tickcast market`: a simulated market that goes on until it is stopped, and its past in a file."""

from __future__ import annotations

import gzip
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.stopping import SIGNALS

#: How long a request to stop may wait.
LOOK_SECONDS = 0.2
#: Times of day do not belong into a file that shall be the same every time.
GZIP_TIME = 0


def market(
    rate: Annotated[float, typer.Option(min=0.1, help="Ticks per second, all instruments together.")] = 200.0,
    instruments: Annotated[int, typer.Option(min=2, max=1000, help="How many; the last is a random walk.")] = 8,
    topic: Annotated[str | None, typer.Option(help="Topic to write to; default: the settings' topics.ticks.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option(help="Brokers, host:port; overrides the settings.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Settings file.", show_default=False)] = None,
    history: Annotated[
        Path | None,
        typer.Option(help="Write what this market did before to FILE.jsonl.gz, for training, and end."),
    ] = None,
) -> None:
    """Produce the ticks of a simulated market until SIGTERM or Ctrl-C.

    The market is a function of its rate and its instruments: a model trained on its history has seen none of the ticks
    that it produces. A session lasts 20 s, the pause after it 3 s.

    Example: tickcast market --history past.jsonl.gz && tickcast train past.jsonl.gz --out bundle

    Example: tickcast market --rate 200 --config tickcast.toml
    """
    from daemon.dev.demo.feed import SimulatedTicks

    ticks = SimulatedTicks(instruments, rate)
    if history is None:
        _produce(ticks.present(), ticks.present_title, topic, bootstrap_servers, config)
    else:
        _write(history, ticks.past())
        print(f"{ticks.past_title} in {history}")


def _produce(
    ticks: Iterable[Mapping[str, Any]], title: str, topic: str | None, servers: str | None, config: Path | None
) -> None:
    from daemon.cli.topics import load
    from daemon.dev.demo.feed import Feed
    from daemon.dev.replay import TickProducer
    from daemon.transport.connection import Connection

    settings = load(config, servers)
    topic = topic or settings.topics.ticks
    with closing(TickProducer(Connection.from_settings(settings.kafka), topic)) as producer:
        print(f"market into {topic}: {title}", file=sys.stderr, flush=True)
        # A thread sends and a flag ends it: an exception in the midst of sending would leave a tick that was sent and
        # not counted.
        asked = _asked_to_stop()
        feed = Feed(producer, ticks)
        feed.start()
        while feed.is_alive() and not asked:
            time.sleep(LOOK_SECONDS)
        count = feed.stop()
    print(f"{count} ticks in topic {topic}")


def _write(file: Path, ticks: Iterable[Mapping[str, Any]]) -> None:
    import orjson

    from daemon.errors import SettingsError

    if not file.name.endswith(".jsonl.gz"):
        raise SettingsError(f"--history {file}: the name must end in .jsonl.gz")
    try:
        with file.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=GZIP_TIME) as lines:
            lines.writelines(orjson.dumps(tick) + b"\n" for tick in ticks)
    except OSError as error:
        raise SettingsError(f"--history {file}: cannot write it: {error.strerror}; choose another place") from error


def _asked_to_stop() -> list[int]:
    """Take over the signals; they arrive in the list that is returned."""
    received: list[int] = []
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: received.append(number))
    return received
