"""`tickcast topics`: the topics of a service, created, checked and grown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.errors import TickcastError
    from daemon.transport.topics import TopicFacts

app = typer.Typer(no_args_is_help=True, help="Create, check and grow the topics.")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="The settings file (TOML).", show_default=False)
]
Servers = Annotated[str | None, typer.Option(help="Brokers, host:port; overrides the settings.", show_default=False)]


@app.command()
def create(
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Partitions of each topic; default: those of the ticks topic, else 4.")
    ] = None,
    replication: Annotated[
        int | None, typer.Option(min=1, help="Copies of each partition; default: the cluster's.")
    ] = None,
) -> None:
    """Create the topics that are missing; those that are there stay as they are.

    Example: tickcast topics create --config tickcast.toml --partitions 8
    """
    from daemon.transport.admin import create_topics
    from daemon.transport.connection import Connection
    from daemon.transport.topics import names_by_role

    settings = load(config, bootstrap_servers)
    created = create_topics(Connection.from_settings(settings.kafka), settings.topics, partitions, replication)
    for name in names_by_role(settings.topics).values():
        typer.echo(f"{name} {'created' if name in created else 'was there'}")


@app.command()
def check(
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as one JSON object.")] = False,
) -> None:
    """Check topics and rights as `tickcast run` does at start; the exit code is that of the first problem.

    Example: tickcast topics check --config tickcast.toml
    """
    from daemon.transport.admin import examine
    from daemon.transport.connection import Connection

    settings = load(config, bootstrap_servers)
    facts, problems = examine(Connection.from_settings(settings.kafka), settings)
    if as_json:
        typer.echo(json.dumps(_as_json(facts, problems)))
    else:
        for topic in facts.values():
            typer.echo(f"{topic.name}: {_count(topic.partitions)}")
        for problem in problems:
            typer.echo(f"problem: {problem}", err=True)
        if not problems:
            typer.echo("nothing is wrong")
    if problems:
        raise typer.Exit(problems[0].exit_code)


@app.command()
def grow(
    partitions: Annotated[int, typer.Option(min=1, help="Partitions that each topic shall have.")],
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
) -> None:
    """Give all topics more partitions, the ticks last; running daemons take the new ones over within seconds.

    An instrument whose ticks move to another partition begins there with a fresh state.

    Example: tickcast topics grow --config tickcast.toml --partitions 8
    """
    from daemon.transport.admin import grow_topics
    from daemon.transport.connection import Connection

    settings = load(config, bootstrap_servers)
    for step in grow_topics(Connection.from_settings(settings.kafka), settings.topics, partitions):
        typer.echo(step)


def load(config: Path | None, bootstrap_servers: str | None) -> Settings:
    """Read the settings, with the brokers of the command line where they are given."""
    from daemon.config import load_settings

    return load_settings(config, {"kafka": {"bootstrap_servers": bootstrap_servers}} if bootstrap_servers else None)


def _as_json(facts: Mapping[str, TopicFacts], problems: Sequence[TickcastError]) -> dict[str, Any]:
    topics = {
        role: {"name": topic.name, "partitions": topic.partitions, "max_message_bytes": topic.message_bytes_max}
        for role, topic in facts.items()
    }
    return {"topics": topics, "problems": [str(problem) for problem in problems]}


def _count(partitions: int | None) -> str:
    return "not there" if partitions is None else "1 partition" if partitions == 1 else f"{partitions} partitions"
