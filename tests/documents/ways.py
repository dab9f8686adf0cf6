"""How each block of the documents is run or checked. A block for which nothing here says how fails its test.

To register a new one: a settings, spec or training file and a message are known by their keys; a command runs as it
stands, beside a daemon that serves, unless a table below says otherwise; what cannot run here goes into `UNRUN`,
with the reason.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from typer.main import get_command

from daemon.cli.main import app
from daemon.config import Settings
from daemon.model.spec_file import Spec
from daemon.training.options import TrainingOptions
from schemas import HEADER_PREFIX
from tests.documents.blocks import Block

#: Programs that blocks may call; any other is not even tried.
PROGRAMS = frozenset({"tickcast"})
#: Commands that cannot run in a test, or whole blocks, by how they begin: why not, or where they run instead.
UNRUN: Mapping[str, str] = {
    "make compile": "tests/e2e/test_compiled.py runs it on a copy; all other tests run on the sources",
    "make demo": "its command runs in tests/e2e/test_demo.py; make would install a second environment",
    "make test": "it is what runs this",
    "kafka-acls.sh": "no command of Kafka here; tests/deploy/test_rights.py holds them against the table",
    "kubectl": "no cluster here; tests/deploy/test_kubernetes.py holds the manifests against their schemas",
    "docker compose": "no engine here; tests/e2e/test_compose_stack.py runs the services as processes",
    "tickcast probe gold.h5": "tests/model/test_questions.py holds the transcript against what it prints",
}
#: Commands that go on until they are stopped.
ENDLESS = frozenset({"market", "run", "watch"})
#: Commands that work on files and settings alone.
OFFLINE = frozenset({"backtest", "broker start", "config check", "config show", "doctor bundle", "features"})
#: Commands that want a group that stands still.
STOPPED = frozenset({"rewind", "state reset"})
#: Commands that want ticks answered since the one before.
JUDGING = frozenset({"audit"})
#: Commands that import TensorFlow; they run in a test of their own, in one process.
TENSORFLOW = frozenset({"convert", "doctor data", "doctor model", "probe", "train"})
#: Options behind which stands what a command writes.
WRITES = ("--out", "--report", "--forecasts", "--history", "--stateless")
#: What a reader leaves to its default and a test cannot: ports that are free, and time.
ADDED: Mapping[str, str] = {
    "tickcast broker start": " --port 0",
    "tickcast doctor data": " --budget 2",
    "tickcast doctor model": " --budget 2",
    "tickcast train": " --epochs 1 --layers 1 --units 8",
}
#: Languages of blocks that are run, and of those that nothing has to be done with.
STEPS = frozenset({"sh", "console", "python"})
PROSE = frozenset({"text"})


class NoWay(AssertionError):
    """Nothing says how to run or check a block."""


def kind_of(block: Block) -> str:
    """Return what a block is: steps, prose, or the kind of a data block, for `test_data_blocks`.

    Raises
    ------
    NoWay : with what to do about it
    """
    if block.language in STEPS:
        _check_programs(block)
        return "steps"
    if block.language in PROSE:
        return "prose"
    if block.language == "toml":
        return _by_keys(block, tomllib.loads(block.text), _TOML)
    if block.language == "json":
        return _by_keys(block, json.loads(block.text), _JSON)
    if block.language == "yaml":
        return "yaml"
    raise NoWay(
        f"{block}: nothing says how to check {block.language or 'a block without a language'}; "
        "name a language, `text` for what is none, or register it in tests/documents/ways.py"
    )


#: `NAME=value` before a command.
_SETS = re.compile(r"[A-Z_]+=")


def is_unrun(block: Block, command: str) -> bool:
    return any(each.startswith(known) for known in UNRUN for each in (command, *block.commands[:1]))


def _check_programs(block: Block) -> None:
    if block.language == "python":
        return
    for command in block.commands:
        if is_unrun(block, command):
            continue
        if any(sign in command.partition(" #")[0] for sign in (";", "&&", "|")):
            raise NoWay(f"{block}: {command!r} is more than one command; give each a line of its own")
        if _words(command)[0] not in PROGRAMS:
            raise NoWay(
                f"{block}: {command!r} calls a program that does not run here; register it in tests/documents/ways.py, "
                "in UNRUN with the reason, or in PROGRAMS"
            )


def _words(command: str) -> list[str]:
    """Split a line, leaving out the variables that it sets before its program."""
    return [word for word in shlex.split(command, comments=True) if not _SETS.match(word)] or [""]


def command_name(command: str) -> str | None:
    """Return the tickcast command that a line calls, with the second word of a group of commands; None for others."""
    program, *words = _words(command)
    if program != "tickcast":
        return None
    group = hasattr(get_command(app).commands.get(words[0]), "commands")  # type: ignore[attr-defined]
    return " ".join(words[: 2 if group else 1])


def is_endless(command: str) -> bool:
    return command_name(command) in ENDLESS and "--history" not in command


def exit_codes(command: str) -> tuple[int, ...]:
    """Return the codes with which a command ends that has done what it was asked for; the doctor's 1 is a finding."""
    return (0, 1) if (command_name(command) or "").startswith("doctor ") else (0,)


def needs_tensorflow(block: Block, command: str) -> bool:
    """Say whether a line, or a block of Python, waits six seconds for TensorFlow."""
    if block.language == "python":
        return "convert(" in block.text or "keras" in block.text
    return command_name(command) in TENSORFLOW


def _sections(content: Mapping[str, Any]) -> bool:
    return content.keys() <= Settings.model_fields.keys()


_TOML = {
    "settings": _sections,
    "spec": lambda content: content.keys() <= Spec.model_fields.keys() and "features" in content,
    "training": lambda content: content.keys() <= {each.name for each in fields(TrainingOptions)},
}
#: In this order: the first that fits.
_JSON = {
    "dead letter": lambda content: f"{HEADER_PREFIX}topic" in content,
    "score": lambda content: "outcome_id" in content,
    "forecast": lambda content: "horizons" in content,
    "pin": lambda content: "previous" in content,
    "marker": lambda content: "next_offset" in content,
    "tick": lambda content: "instrument" in content and "ts" in content,
    "mapped tick": lambda content: True,
}


def _by_keys(block: Block, content: Any, kinds: Mapping[str, Any]) -> str:
    for kind, fits in kinds.items():
        if fits(content):
            return kind
    raise NoWay(f"{block}: its keys {', '.join(content)} are those of no kind of {block.language} file that is known")
