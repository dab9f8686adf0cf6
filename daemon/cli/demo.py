"""`tickcast demo`: everything on one machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli.watch import PORT

#: In the folder one works in, like the broker's own.
DIRECTORY = Path(".tickcast") / "demo"


def demo(
    seconds: Annotated[float, typer.Option(min=1, help="How long the market is open.")] = 60.0,
    ticks: Annotated[
        Path | None,
        typer.Option(help="A tick file: trains on its first half and replays the second.", show_default=False),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Run this bundle instead of training one.", show_default=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Train anew, although a model is kept.")] = False,
    directory: Annotated[Path, typer.Option("--dir", help="Folder of broker, model and logs.")] = DIRECTORY,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Whether to serve the live page.")] = True,
    page_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Its port; a free one is taken where this is not.")
    ] = PORT,
) -> None:
    """Show everything on this machine: a Kafka, a market, a model trained on the spot, the daemon, a live page.

    The last line on standard output is one JSON object with what was counted; the exit code is 0 when every tick has
    exactly one outcome.

    Example: tickcast demo --seconds 30
    """
    from rich.console import Console

    from daemon.dev.demo.stage import DemoOptions
    from daemon.dev.demo.story import run_demo

    run_demo(
        DemoOptions(seconds, ticks, bundle, fresh, directory, page_port if page else None), Console(highlight=False)
    )
