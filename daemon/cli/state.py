"""`tickcast state`: what the state topic holds, at any time; and resets, while the group stands still."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.tables import confirmed, table
from daemon.cli.topics import ConfigFile, Servers, load
from daemon.logs import printable

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.stored import Stored
    from daemon.tools.state_reset import ResetPlan
    from daemon.tools.state_view import InstrumentRow, PartitionRow
    from daemon.transport.connection import Connection
    from daemon.transport.group import GroupStatus

app = typer.Typer(no_args_is_help=True, help="List, show, export and reset the states of instruments.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

PARTITION_COLUMNS = ("partition", "revision", "checkpoint", "committed", "instruments", "origin", "live from")
INSTRUMENT_COLUMNS = (
    "instrument", "partition", "step", "session", "last event time", "price", "reset offset", "bytes",
)  # fmt: skip
_NOTED_COLUMNS = (*INSTRUMENT_COLUMNS, "note")
REMEDY = (
    "stop it first, one that was killed leaves after 10 s; a running group resets an instrument when its ticks carry a "
    "new `session`"
)
#: Numbers of the state vector that a person is shown.
STATE_SHOWN = 8


@app.command("list")
def list_states(
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    instruments: Annotated[bool, typer.Option("--instruments", help="One line for each instrument, too.")] = False,
    as_json: Json = False,
) -> None:
    """List the checkpoints of all partitions, also while the group runs.

    Example: tickcast state list --config tickcast.toml --instruments
    """
    from daemon.tools.state_view import instrument_rows, partition_row

    partitions: list[PartitionRow] = []
    states: list[InstrumentRow] = []
    with _looking(config, bootstrap_servers) as look:
        for partition, committed in look.committed.items():
            stored = look.read(partition)
            row = partition_row(partition, stored, committed)
            partitions.append(row)
            if instruments and row.problem is None and (marker := stored.marker()) is not None:
                states += instrument_rows(partition, stored, marker)
    if as_json:
        found: dict[str, Any] = {"group_id": look.settings.kafka.group_id, "topic": look.settings.topics.state}
        found["partitions"] = [asdict(row) for row in partitions]
        if instruments:
            found["instruments"] = [asdict(row) for row in states]
        typer.echo(json.dumps(found))
        return
    typer.echo(table(PARTITION_COLUMNS, (astuple(row)[:-1] for row in partitions)))
    for row in partitions:
        if row.problem is not None:
            typer.echo(f"problem: partition {row.partition}: {row.problem}", err=True)
    if instruments:
        noted = [astuple(row) for row in states]
        head, cut = (INSTRUMENT_COLUMNS, -1) if all(row[-1] is None for row in noted) else (_NOTED_COLUMNS, None)
        typer.echo("\n" + table(head, (row[:cut] for row in noted)))


@app.command()
def show(
    instrument: Annotated[str, typer.Argument(help="Name of the instrument.")],
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    as_json: Json = False,
) -> None:
    """Show everything that the newest checkpoint holds of an instrument.

    Example: tickcast state show BTC-USD --config tickcast.toml --json
    """
    from daemon.core.marker import MarkerError
    from daemon.core.snapshot import SnapshotError
    from daemon.errors import SettingsError, TopicError
    from daemon.tools.state_reset import no_such_instrument
    from daemon.tools.state_view import bundle_cell_names, snapshot_facts, snapshot_of

    found: list[dict[str, Any]] = []
    known: list[str] = []
    with _looking(config, bootstrap_servers) as look:
        for partition in look.committed:
            stored = look.read(partition)
            known += (key.decode(errors="replace") for key in stored.values)
            value = stored.values.get(instrument.encode())
            try:
                marker = None if value is None else stored.marker()
            except MarkerError as error:
                raise TopicError(f"partition {partition}: {error}; is {look.settings.topics.state} ours?") from error
            if value is None or marker is None:
                continue
            snapshot = snapshot_of(stored, instrument.encode(), marker)
            if isinstance(snapshot, SnapshotError):
                raise TopicError(
                    f"partition {partition}: the snapshot of {instrument} cannot be used, it starts cold: {snapshot}"
                )
            facts = snapshot_facts(snapshot, marker, bundle_cell_names(look.settings, marker.revision))
            found.append({"partition": partition, "bytes": len(value)} | facts)
    if not found:
        raise SettingsError(no_such_instrument(instrument, sorted(known)))
    typer.echo(json.dumps({"snapshots": found}) if as_json else "\n\n".join(map(_as_text, found)))


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="Where to write; compressed where the name ends in .gz.")],
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    as_json: Json = False,
) -> None:
    """Write all snapshots and their markers to a file, also while the group runs; `tickcast audit` can start from it.

    Example: tickcast state export state.jsonl.gz --config tickcast.toml
    """
    from daemon.tools.state_export import write_export

    with _looking(config, bootstrap_servers) as look:
        settings, partitions = look.settings, list(look.committed)
        stored = ((partition, look.read(partition)) for partition in partitions)
        count = write_export(file, settings.topics.state, settings.kafka.group_id, partitions, stored)
    if as_json:
        typer.echo(json.dumps({"file": str(file), "partitions": len(partitions), "records": count}))
    else:
        typer.echo(f"{count} records of {len(partitions)} partitions in {file}")


@app.command()
def reset(
    instruments: Annotated[list[str] | None, typer.Argument(help="Names of the instruments.")] = None,
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    everything: Annotated[bool, typer.Option("--all", help="Reset every instrument.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Let instruments begin anew at the next start of a stopped group; their next forecast says reset "operator".

    Example: tickcast state reset BTC-USD ETH-USD --config tickcast.toml
    """
    from daemon.errors import SettingsError
    from daemon.tools.state_reset import Planner
    from daemon.transport.offsets import require_stopped, settled_offsets

    if bool(instruments) is everything:
        raise SettingsError("name the instruments to reset, or give --all")
    with _looking(config, bootstrap_servers) as look:
        group_id, ticks = look.settings.kafka.group_id, look.settings.topics.ticks
        require_stopped(look.connection, group_id, REMEDY)
        committed = settled_offsets(look.connection, group_id, ticks, list(look.committed))
        planner = Planner(None if everything else instruments)
        for partition, offset in committed.items():
            planner.add(partition, look.read(partition), offset)
    plan = planner.plan()
    for note in plan.notes:
        typer.echo(note)
    count = len(plan.resets)
    if not count:
        typer.echo("nothing to reset")
    elif confirmed(f"reset {count} instrument{'s' if count > 1 else ''} of group {group_id}?", yes=yes):
        _write(look, plan, committed)
        typer.echo(f"{count} reset{'s' if count > 1 else ''} written; the next start of the group takes them over")


def _write(look: _Look, plan: ResetPlan, committed: Mapping[int, int | None]) -> None:
    """Write the resets, one transaction for each partition, in the order that `daemon.tools.state_reset` explains."""
    from daemon.errors import TickcastError
    from daemon.tools.state_reset import unchanged
    from daemon.transport.connection import transactional_id
    from daemon.transport.kafka_writer import KafkaWriter
    from daemon.transport.offsets import require_stopped, settled_offsets

    group_id, topics = look.settings.kafka.group_id, look.settings.topics
    written: list[str] = []
    with KafkaWriter(look.connection, transactional_id(group_id, "state-reset")) as writer:
        for partition, resets in plan.by_partition().items():
            try:
                with writer.transaction() as transaction:
                    for each in resets:
                        transaction.send(topics.state, each.message)
                    transaction.flush()
                    require_stopped(look.connection, group_id, REMEDY)
                    unchanged(committed, lambda: settled_offsets(look.connection, group_id, topics.ticks, [*committed]))
            except TickcastError as error:
                if written:
                    raise type(error)(
                        f"{error}; those of partition {', '.join(written)} were written before"
                    ) from error
                raise
            written.append(str(partition))


@dataclass(frozen=True)
class _Look:
    """An open look at the state topic of a group."""

    settings: Settings
    connection: Connection
    reader: Any
    #: Committed offset of every partition, as it stands, open transactions or not.
    committed: Mapping[int, int | None]

    def read(self, partition: int) -> Stored:
        from daemon.tools.state_topic import read_stored

        return read_stored(self.reader, partition)


@contextmanager
def _looking(config: Path | None, bootstrap_servers: str | None) -> Iterator[_Look]:
    from daemon.transport.connection import Connection
    from daemon.transport.group import read_group
    from daemon.transport.kafka_reader import KafkaReader

    settings = load(config, bootstrap_servers)
    connection = Connection.from_settings(settings.kafka)
    group: GroupStatus = read_group(connection, settings.kafka.group_id, settings.topics.ticks)
    reader = KafkaReader(connection, topics={"ticks": settings.topics.ticks, "state": settings.topics.state})
    try:
        yield _Look(settings, connection, reader, {row.partition: row.committed for row in group.partitions})
    finally:
        reader.close()


def _as_text(facts: dict[str, Any]) -> str:
    facts = dict(facts)
    marker, times, cells, state = (facts.pop(name) for name in ("marker", "times", "cells", "state"))
    lines = [(name.replace("_", " "), times.get(name) or _cell(value)) for name, value in facts.items()]
    lines += [(f"marker: {name.replace('_', ' ')}", _cell(value)) for name, value in marker.items()]
    named = cells.items() if isinstance(cells, dict) else ((f"cell {index}", cell) for index, cell in enumerate(cells))
    lines += [(name, _cell(value)) for name, value in named]
    shown = ", ".join(f"{number:.6g}" for number in state[:STATE_SHOWN])
    more = ", ... (all with --json)" if len(state) > STATE_SHOWN else ""
    lines.append(("state", f"{len(state)} numbers: {shown}{more}" if state else "none, it will be reset"))
    width = max(len(name) for name, _ in lines) + 2
    return "\n".join(f"{name:{width}}{printable(str(value))}" for name, value in lines)


def _cell(value: object) -> str:
    return "-" if value is None else repr(value) if isinstance(value, float) else str(value)
