"""The program `tickcast`: its commands, and the one place where an error becomes a line and an exit code.

Commands import what they need when they run, so that `tickcast --help` answers at once and serving never pays for
training.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Annotated

import typer

from daemon import __version__
from daemon.cli import (
    audit,
    backtest,
    broker,
    bundle,
    config,
    convert,
    deadletters,
    demo,
    doctor,
    features,
    market,
    probe,
    replay,
    rewind,
    run,
    state,
    status,
    topics,
    train,
    watch,
)
from daemon.errors import TickcastError
from daemon.logs import printable

EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130

#: Plain help and plain errors: the same text for people, logs and programs.
app = typer.Typer(
    name="tickcast",
    help="Streaming forecasts on Kafka: price ticks in, a forecast for every tick out, exactly once.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(run.run)
app.command()(status.status)
app.command()(watch.watch)
app.command()(demo.demo)
app.add_typer(broker.app, name="broker")
app.add_typer(topics.app, name="topics")
app.add_typer(state.app, name="state")
app.add_typer(bundle.app, name="bundle")
app.add_typer(deadletters.app, name="deadletters")
app.command()(rewind.rewind)
app.command()(audit.audit)
app.command()(replay.replay)
app.command()(market.market)
app.command()(train.train)
app.command()(backtest.backtest)
app.command()(convert.convert)
app.command()(features.features)
app.command()(probe.probe)
app.add_typer(doctor.app, name="doctor")
app.add_typer(config.app, name="config")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tickcast {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


def main() -> None:
    """Run the program and end the process with its exit code."""
    # Before anything imports numpy: the number of BLAS threads changes the bits of a product.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # A shell without job control starts its background jobs with SIGINT ignored; one sent to us is meant all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Failures of the client reach the user as our own line; `tickcast run` sets up its logs itself.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        result = app(standalone_mode=False)
    except typer.TyperException as error:  # wrong use
        return _fail_usage(error)
    except TickcastError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED
    return result if isinstance(result, int) else 0


def _fail(message: str, code: int) -> int:
    print("tickcast: error:", printable(" ".join(message.split())), file=sys.stderr)
    return code


def _fail_usage(error: typer.TyperException) -> int:
    message = error.format_message()
    if message.startswith("Usage:"):  # a group of commands named without a command: its whole help
        print(message, file=sys.stderr)
        return EXIT_WRONG_USE
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "tickcast"
    return _fail(f"{message.rstrip('.')}; see `{command} --help`", EXIT_WRONG_USE)


if __name__ == "__main__":
    main()
