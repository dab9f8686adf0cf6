"""`tickcast config`: what the settings are, and whether they are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Show and check settings.")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="The settings file (TOML).", show_default=False)
]


@app.command()
def show(
    config: ConfigFile = None, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False
) -> None:
    """Print the settings in force, from file and environment, with passwords hidden.

    Example: tickcast config show --config tickcast.toml
    """
    from daemon.config import load_settings

    settings = load_settings(config).model_dump(mode="json")
    typer.echo(json.dumps(settings, indent=2) if as_json else as_toml(settings))


@app.command()
def check(config: ConfigFile = None) -> None:
    """Check the settings alone and the files with secrets, without cluster or bundle; exit 2 where something is wrong.

    Example: tickcast config check --config tickcast.toml
    """
    from daemon.boundaries import resolve_rules
    from daemon.config import load_settings
    from daemon.transport.clients import require_client
    from daemon.transport.connection import Connection

    settings = load_settings(config)
    require_client(settings)
    resolve_rules(settings.session)
    Connection.from_settings(settings.kafka)
    typer.echo("the settings are right")


def as_toml(settings: dict[str, Any]) -> str:
    """Write settings as TOML; keys that are not set stand as comments."""
    return "\n\n".join(_table([section], values) for section, values in settings.items() if values is not None)


def _table(path: list[str], values: dict[str, Any] | list[dict[str, Any]]) -> str:
    name = ".".join(path)
    if isinstance(values, list):
        return "\n\n".join(_keys(f"[[{name}]]", each) for each in values) or f"# no [[{name}]]"
    inner = [_table([*path, key], value) for key, value in values.items() if isinstance(value, dict) and value]
    plain = {key: value for key, value in values.items() if not (isinstance(value, dict) and value)}
    return "\n\n".join([_keys(f"[{name}]", plain), *inner])


def _keys(head: str, values: dict[str, Any]) -> str:
    lines = [f"# {key} is not set" if value is None else f"{key} = {_value(value)}" for key, value in values.items()]
    return "\n".join([head, *lines])


def _value(value: object) -> str:
    return "{}" if value == {} else json.dumps(value)
