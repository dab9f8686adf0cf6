"""`tickcast status`: how far a group is, partition by partition."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from daemon.transport.group import GroupStatus

COLUMNS = ("partition", "owner", "phase", "committed", "end", "lag", "revision")


def status(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The settings file (TOML).", show_default=False)
    ] = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Brokers, host:port; overrides the settings.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show who owns which partition of the ticks, and how far behind the forecasts are.

    Example: tickcast status --config tickcast.toml
    """
    from daemon.cli.topics import load
    from daemon.transport.connection import Connection
    from daemon.transport.group import read_group

    settings = load(config, bootstrap_servers)
    group = read_group(Connection.from_settings(settings.kafka), settings.kafka.group_id, settings.topics.ticks)
    typer.echo(json.dumps(_as_json(group)) if as_json else _as_text(group))


def _as_json(group: GroupStatus) -> dict[str, object]:
    return {
        "group_id": group.group_id,
        "state": group.state,
        "topic": group.topic,
        "partitions": [asdict(row) | {"revision": None} for row in group.partitions],
    }


def _as_text(group: GroupStatus) -> str:
    rows = [COLUMNS, *(tuple(_cell(getattr(row, column, None)) for column in COLUMNS) for row in group.partitions)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    state = group.state.lower() if group.state != "Dead" else "without members and offsets"
    return "\n".join([f"group {group.group_id} on {group.topic}: {state}", *lines])


def _cell(value: object) -> str:
    return "-" if value is None else str(value)
