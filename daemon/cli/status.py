"""`tickcast status`: how far a group is, partition by partition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.tables import table
from daemon.cli.topics import ConfigFile, Servers, load

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.core.marker import Marker
    from daemon.transport.connection import Connection
    from daemon.transport.group import GroupStatus

COLUMNS = ("partition", "owner", "phase", "committed", "end", "lag", "revision", "model")


def status(
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show who owns which partition of the ticks, and how far behind the forecasts are.

    Example: tickcast status --config tickcast.toml
    """
    from daemon.transport.connection import Connection
    from daemon.transport.group import read_group

    settings = load(config, bootstrap_servers)
    connection = Connection.from_settings(settings.kafka)
    group = read_group(connection, settings.kafka.group_id, settings.topics.ticks)
    markers = _markers(settings, connection, group)
    typer.echo(json.dumps(_as_json(group, markers)) if as_json else _as_text(group, markers))


def _markers(settings: Settings, connection: Connection, group: GroupStatus) -> Mapping[int, Marker]:
    """Return the marker of each partition's newest checkpoint; what cannot be told is left out."""
    from daemon.core.marker import MarkerError
    from daemon.errors import TickcastError
    from daemon.tools.state_topic import newest_marker
    from daemon.transport.kafka_reader import KafkaReader

    found: dict[int, Marker] = {}
    reader = KafkaReader(connection, topics={"state": settings.topics.state})
    try:
        for row in group.partitions:
            try:
                marker = newest_marker(reader, row.partition)
            except (MarkerError, TickcastError):  # the rest of the status stands without it
                continue
            if marker is not None:
                found[row.partition] = marker
    finally:
        reader.close()
    return found


def _as_json(group: GroupStatus, markers: Mapping[int, Marker]) -> dict[str, object]:
    return {
        "group_id": group.group_id,
        "state": group.state,
        "topic": group.topic,
        "partitions": [
            asdict(row) | dict(zip(COLUMNS[-2:], _runs(markers.get(row.partition)), strict=True))
            for row in group.partitions
        ],
    }


def _as_text(group: GroupStatus, markers: Mapping[int, Marker]) -> str:
    rows = (
        (*(getattr(row, column) for column in COLUMNS[:-2]), *_runs(markers.get(row.partition)))
        for row in group.partitions
    )
    state = group.state.lower() if group.state != "Dead" else "without members and offsets"
    return f"group {group.group_id} on {group.topic}: {state}\n{table(COLUMNS, rows)}"


def _runs(marker: Marker | None) -> tuple[str | None, str | None]:
    """Return revision and model of a checkpoint, None where it cannot be told."""
    return (None, None) if marker is None else (marker.revision, marker.model or None)
