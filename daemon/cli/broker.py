"""`tickcast broker`: a real Apache Kafka on this machine, for development."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from daemon.dev.broker import Broker

app = typer.Typer(no_args_is_help=True, help="Run a real Apache Kafka on this machine, for development.")

#: In the folder one works in, not in the home: two checkouts never share records, and deleting one is easy to see.
DIRECTORY = Path(".tickcast") / "broker"
PORT = 9092

Port = Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")]
Directory = Annotated[Path, typer.Option("--dir", help="Folder of the broker's records, settings and output.")]


@app.command()
def run(port: Port = PORT, directory: Directory = DIRECTORY) -> None:
    """Run a broker in the foreground until Ctrl-C or SIGTERM; its topics are there again next time.

    Example: tickcast broker run --port 9092 --dir .tickcast/broker
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _start(port, directory) as broker:
            _announce(broker, directory)
            _watch(broker)
    except KeyboardInterrupt:
        pass
    typer.echo("broker stopped")


@app.command()
def start(port: Port = PORT, directory: Directory = DIRECTORY) -> None:
    """Start a broker in the background; does nothing where one serves the folder already.

    Example: tickcast broker start --port 9092
    """
    from daemon.dev.broker import find_broker

    broker = find_broker(directory)
    if broker is None:
        _announce(_start(port, directory), directory)
    elif port not in (0, broker.port):
        _refuse_other_port(broker, port)
    else:
        typer.echo(f"a broker runs already at {broker.bootstrap} (process {broker.pid})")


@app.command()
def stop(directory: Directory = DIRECTORY) -> None:
    """Stop the broker that serves a folder; its records stay.

    Example: tickcast broker stop
    """
    from daemon.dev.broker import find_broker

    broker = find_broker(directory)
    if broker is None:
        typer.echo(f"no broker serves {directory}")
        return
    broker.stop()
    typer.echo(f"broker at {broker.bootstrap} stopped")


@app.command()
def status(
    directory: Directory = DIRECTORY,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether a broker serves a folder, and where it listens.

    Example: tickcast broker status --json
    """
    from daemon.dev.broker import find_broker

    broker = find_broker(directory)
    if as_json:
        found = {"bootstrap_servers": broker.bootstrap, "pid": broker.pid} if broker else {}
        typer.echo(json.dumps({"running": broker is not None, "directory": str(directory)} | found))
    elif broker is None:
        typer.echo(f"no broker serves {directory}")
    else:
        typer.echo(f"broker at {broker.bootstrap} (process {broker.pid}) serves {directory}")


def _start(port: int, directory: Path) -> Broker:
    from daemon.dev.broker import start_broker
    from daemon.dev.broker_java import JARS_DIRECTORY, KAFKA_VERSION

    if not JARS_DIRECTORY.is_dir():
        typer.echo(f"fetching Apache Kafka {KAFKA_VERSION} (45 MB, once)", err=True)
    return start_broker(port or None, directory)


def _announce(broker: Broker, directory: Path) -> None:
    from daemon.dev.broker_java import KAFKA_VERSION

    typer.echo(
        f"Apache Kafka {KAFKA_VERSION} answers at {broker.bootstrap} (process {broker.pid}), data in {directory}"
    )


def _watch(broker: Broker) -> None:
    """Wait for the broker's end; `broker stop` elsewhere is an orderly one."""
    from daemon.dev.broker import STOPPED_CODES
    from daemon.errors import LocalBrokerError

    code = broker.wait()
    if code not in STOPPED_CODES:
        raise LocalBrokerError(f"the broker at {broker.bootstrap} ended by itself (code {code}); see {broker.log_file}")


def _refuse_other_port(broker: Broker, port: int) -> None:
    from daemon.errors import SettingsError

    raise SettingsError(
        f"the broker of this folder listens on port {broker.port}, not {port}; stop it first, or use another --dir"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM as Ctrl-C: one way to stop, whatever the broker is doing."""
    raise KeyboardInterrupt
