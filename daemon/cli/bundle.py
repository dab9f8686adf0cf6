"""`tickcast bundle`: which model a group runs, changed while ticks flow."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.tables import table
from daemon.cli.topics import ConfigFile, Servers, load

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.core.pin import Pin
    from daemon.model.bundle import Bundle
    from daemon.model.shelf import Shelf
    from daemon.tools.pinning import Running
    from daemon.transport.connection import Connection

app = typer.Typer(no_args_is_help=True, help="Show, promote and roll back the model of a group, while ticks flow.")

COLUMNS = ("partition", "owner", "model", "revision", "checkpoint")
#: The name under which pins are written: two commands at once fence each other.
WRITER = "bundle"
BUNDLE_ID = re.compile(r"[0-9a-f]{16}")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Wait = Annotated[
    float, typer.Option(min=0, help="How many seconds to wait until all partitions run it; 0 does not wait.")
]


@app.command()
def promote(
    bundle: Annotated[str, typer.Argument(help="Folder of the bundle, or the id of one in [model] bundles.")],
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    wait: Wait = 60.0,
    as_json: Json = False,
) -> None:
    """Let a group run another bundle: test it here, copy it into [model] bundles, pin it, see all partitions take it.

    Each instance needs the bundle in its own [model] bundles; one that lacks it goes on with the old one, is not ready
    and says so. A bundle that is damaged or does not give Keras' own outputs is refused before anything is written.

    Example: tickcast bundle promote new-bundle --config tickcast.toml
    """
    settings = load(config, bootstrap_servers)
    found = _proven(settings, bundle)
    with _desk(settings) as desk:
        _change(desk, found, wait, as_json=as_json)


@app.command()
def rollback(
    config: ConfigFile = None, bootstrap_servers: Servers = None, wait: Wait = 60.0, as_json: Json = False
) -> None:
    """Let a group run the bundle that it ran before the last promotion.

    Example: tickcast bundle rollback --config tickcast.toml
    """
    from daemon.errors import SettingsError

    with _desk(load(config, bootstrap_servers)) as desk:
        pin = desk.pin()
        if pin is None or not pin.previous:
            raise SettingsError(
                f"group {desk.group_id} has nothing to go back to: "
                + ("no bundle is pinned" if pin is None else "what ran before is not known")
                + "; promote the bundle that it is to run"
            )
        _change(desk, _proven(desk.settings, pin.previous), wait, as_json=as_json)


@app.command()
def show(config: ConfigFile = None, bootstrap_servers: Servers = None, as_json: Json = False) -> None:
    """Show which bundle is pinned, whether it is on this machine, and what each partition runs.

    Example: tickcast bundle show --config tickcast.toml --json
    """
    from daemon.errors import BundleError

    with _desk(load(config, bootstrap_servers)) as desk:
        pin, rows = desk.pin(), desk.running()
        path = problem = None
        if pin is not None:
            try:
                path = desk.shelf.find(pin.bundle)
            except BundleError as error:
                problem = str(error)
    if as_json:
        where = {"path": None if path is None else str(path), "problem": problem}
        pinned = None if pin is None else asdict(pin)
        running = [asdict(row) for row in rows]
        typer.echo(json.dumps({"group_id": desk.group_id, "pinned": pinned, **where, "partitions": running}))
        return
    if pin is None:
        typer.echo(f"group {desk.group_id}: nothing is pinned, each instance runs its own [model] bundle")
    else:
        before = f", before it {pin.previous}" if pin.previous else ""
        typer.echo(f"group {desk.group_id} is to run {pin.bundle} (since {pin.at}, change {pin.number}{before})")
        typer.echo(f"on this machine: {problem or path}")
    typer.echo(table(COLUMNS, map(astuple, rows)))


def _change(desk: _Desk, bundle: Bundle, wait: float, *, as_json: bool) -> None:
    """Pin a bundle, and see what becomes of it."""
    from daemon.errors import TickcastError
    from daemon.tools.pinning import await_switch

    def say(line: str) -> None:
        typer.echo(line, err=as_json)

    say(f"{bundle.id}: whole, and gives Keras' own outputs on this machine")
    path = desk.keep(bundle)
    say(f"it lies in {path}")
    pin, written = desk.write(bundle.id)
    was = f", before it {pin.previous}" if pin.previous else ""
    say(f"{'pinned' if written else 'it was pinned already'} for group {desk.group_id} (change {pin.number}{was})")
    rows = desk.running()
    if desk.stands_still:
        say("the group does not run; its next start takes it")
    elif wait > 0:

        def seen(row: Running, seconds: float) -> None:
            say(f"partition {row.partition} runs it after {seconds:.1f} s ({row.owner or 'nobody owns it now'})")

        rows = await_switch(desk.running, bundle.id, wait, seen)
    behind = [row.partition for row in rows if row.model != bundle.id]
    if as_json:
        typer.echo(json.dumps({"pinned": asdict(pin), "path": str(path), "partitions": [asdict(row) for row in rows]}))
    if behind and wait > 0 and not desk.stands_still:
        raise TickcastError(
            f"pinned, but partition{'s' if len(behind) > 1 else ''} {', '.join(map(str, behind))} did not run it "
            f"within {wait:g} s; /readyz and the log of the owners say why, `tickcast bundle show` how far it is"
        )


def _proven(settings: Settings, name: str) -> Bundle:
    """Load and test a bundle: a folder, or the id of one in [model] bundles."""
    from daemon.errors import BundleError
    from daemon.model.bundle import Bundle
    from daemon.model.selftest import self_test

    path = Path(name)
    if not path.is_dir():
        if not BUNDLE_ID.fullmatch(name):
            raise BundleError(f"no bundle folder at {path}; give a folder, or the id of a bundle in [model] bundles")
        path = _shelf(settings).find(name)
    bundle = Bundle.load(path)
    self_test(bundle, settings.model.engine)
    return bundle


def _shelf(settings: Settings) -> Shelf:
    from daemon.model.shelf import Shelf

    return Shelf(settings.model.bundle, settings.model.bundles)


@dataclass
class _Desk:
    """Everything that a change of model needs."""

    settings: Settings
    connection: Connection
    reader: Any
    shelf: Shelf
    #: True where the group had no members when it was looked at last.
    stands_still: bool = False

    @property
    def group_id(self) -> str:
        """Return the group."""
        return self.settings.kafka.group_id

    def keep(self, bundle: Bundle) -> Path:
        """Lay a bundle on the shelf, and the one beside it that runs where nothing is pinned: for a rollback."""
        from daemon.errors import BundleError
        from daemon.model.bundle import Bundle as Load

        path = self.shelf.put(bundle)
        try:
            self.shelf.put(Load.load(self.settings.model.bundle))
        except BundleError as error:  # a machine that runs nothing itself has none
            print(f"tickcast: note: [model] bundle is not kept for a rollback: {error}", file=sys.stderr)
        return path

    def pin(self) -> Pin | None:
        """Return the pin in force."""
        from daemon.tools.pinning import pin_in_force

        return pin_in_force(self.reader, self.group_id)

    def running(self) -> list[Running]:
        """Return what each partition runs."""
        from daemon.tools.pinning import running
        from daemon.transport.group import read_group
        from daemon.transport.offsets import STOPPED

        group = read_group(self.connection, self.group_id, self.settings.topics.ticks)
        self.stands_still = group.state in STOPPED
        return running(self.reader, {row.partition: row.owner for row in group.partitions})

    def write(self, bundle_id: str) -> tuple[Pin, bool]:
        """Pin a bundle, unless it is pinned; return the pin in force, and whether it is new."""
        from daemon.tools.pinning import message, next_pin, require_ours
        from daemon.transport.connection import transactional_id
        from daemon.transport.kafka_writer import KafkaWriter

        topic = self.settings.topics.state
        require_ours(self.reader, self.group_id, topic)
        # The id first: whoever else was pinning is done or fenced, so what is read now is what our pin follows.
        with KafkaWriter(self.connection, transactional_id(self.group_id, WRITER)) as writer:
            before = self.pin()
            if before is not None and before.bundle == bundle_id:
                return before, False
            pin = next_pin(self.group_id, bundle_id, before, self._ran())
            with writer.transaction() as transaction:
                transaction.send(topic, message(pin))
        return pin, True

    def _ran(self) -> str:
        """Return the id of what runs where nothing was pinned so far."""
        from daemon.errors import BundleError
        from daemon.model.bundle import Bundle

        models = [row.model for row in self.running() if row.model is not None]
        if models:
            return models[0]
        try:
            return Bundle.load(self.settings.model.bundle).id
        except BundleError:
            return ""


@contextmanager
def _desk(settings: Settings) -> Iterator[_Desk]:
    from daemon.transport.admin import examine
    from daemon.transport.connection import Connection
    from daemon.transport.kafka_reader import KafkaReader

    connection = Connection.from_settings(settings.kafka)
    for problem in examine(connection, settings)[1]:
        raise problem
    reader = KafkaReader(connection, topics={"state": settings.topics.state})
    try:
        yield _Desk(settings, connection, reader, _shelf(settings))
    finally:
        reader.close()
