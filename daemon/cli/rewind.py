"""`tickcast rewind`: where a stopped group goes on."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.tables import confirmed, table
from daemon.cli.topics import ConfigFile, Servers, load

if TYPE_CHECKING:
    from daemon.transport.offsets import When

COLUMNS = ("partition", "was at", "goes to", "ticks")
REMEDY = "stop all of its instances first; one that was killed leaves the group after 10 s"


def rewind(
    to: Annotated[str, typer.Option(help="earliest, latest, or a time: ISO 8601 with an offset from UTC.")],
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    partition: Annotated[
        list[int] | None, typer.Option("--partition", "-p", help="Only this partition; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; needs --yes.")] = False,
) -> None:
    """Set where a stopped group goes on, by the Kafka timestamp of its ticks; also where a new group begins.

    A partition that is set back behind its checkpoint starts cold, and its forecasts are published again.

    Example: tickcast rewind --to 2024-01-02T15:00:00Z --config tickcast.toml
    """
    from daemon.errors import SettingsError
    from daemon.transport.connection import Connection
    from daemon.transport.group import read_group
    from daemon.transport.offsets import offsets_at, require_stopped, set_offsets, settled_offsets

    when = parse_when(to)
    if as_json and not yes:
        raise SettingsError("--json prints nothing to ask with; give --yes, too")
    settings = load(config, bootstrap_servers)
    connection, group_id, ticks = (
        Connection.from_settings(settings.kafka),
        settings.kafka.group_id,
        settings.topics.ticks,
    )
    known = [row.partition for row in read_group(connection, group_id, ticks).partitions]
    wanted = _chosen(partition, known, ticks)
    require_stopped(connection, group_id, REMEDY)
    before = settled_offsets(connection, group_id, ticks, wanted)
    after = offsets_at(connection, ticks, wanted, when)
    if not as_json:
        typer.echo(table(COLUMNS, ((p, before[p], after[p], _moved(before[p], after[p])) for p in wanted)))
        for line in consequences(before, after):
            typer.echo(line)
    if not confirmed(f"set the offsets of group {group_id} so?", yes=yes):
        return
    set_offsets(connection, group_id, ticks, after, REMEDY)
    if as_json:
        rows = [{"partition": p, "before": before[p], "after": after[p]} for p in wanted]
        typer.echo(json.dumps({"group_id": group_id, "topic": ticks, "partitions": rows}))
    else:
        typer.echo(f"group {group_id} goes on there at its next start")


def parse_when(text: str, option: str = "--to") -> When:
    """Read a place in time, given as `option`.

    Returns
    -------
    when : an end, or milliseconds since the epoch, rounded up: no earlier record is meant

    Raises
    ------
    SettingsError : it is no time, or one without an offset
    """
    from daemon.errors import SettingsError

    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingsError(
            f"{option} {text!r} is neither earliest, latest nor a time such as 2024-01-02T15:00:00Z"
        ) from error
    if time.tzinfo is None:
        raise SettingsError(f"{option} {text!r} has no offset from UTC; write {text}Z if UTC is meant")
    return -((datetime.fromtimestamp(0, UTC) - time) // timedelta(milliseconds=1))


def consequences(before: dict[int, int | None], after: dict[int, int]) -> list[str]:
    """Say in words what such a change does."""
    back = [p for p, offset in before.items() if offset is not None and after[p] < offset]
    ahead = [p for p, offset in before.items() if offset is not None and after[p] > offset]
    new = [p for p, offset in before.items() if offset is None]
    lines = []
    if back:
        lines.append(
            f"set back: {_names(back)}; forecasts since then are published again, with the same ids; where a "
            "checkpoint is ahead of the new place, states start cold there"
        )
    if ahead:
        lines.append(f"set ahead: {_names(ahead)}; the ticks in between move the states, but get no forecast")
    if new:
        lines.append(f"new: {_names(new)}; where there is no checkpoint, states start cold there")
    return lines or ["nothing changes"]


def _chosen(partitions: list[int] | None, known: list[int], topic: str) -> list[int]:
    from daemon.errors import SettingsError

    unknown = sorted(set(partitions or ()) - set(known))
    if unknown:
        raise SettingsError(f"{topic} has no partition {unknown[0]}, only {known[0]} to {known[-1]}")
    return sorted(set(partitions)) if partitions else known


def _moved(before: int | None, after: int) -> str | None:
    return None if before is None else f"{after - before:+d}"


def _names(partitions: list[int]) -> str:
    return f"partition{'s' if len(partitions) > 1 else ''} {', '.join(map(str, partitions))}"
