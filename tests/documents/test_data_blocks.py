"""Settings, specs and messages in the documents are what the program takes and writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from daemon.assembly import tick_decoder
from daemon.boundaries import resolve_rules
from daemon.config import load_settings
from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.model.spec_file import read_spec
from daemon.training.options import TrainingOptions, read_options
from schemas import Tick, TickDecoder, generate
from tests.documents.blocks import Block, all_blocks
from tests.documents.ways import PROSE, STEPS, kind_of

DATA = [block for block in all_blocks() if block.language not in STEPS | PROSE]


@pytest.mark.parametrize("block", DATA, ids=str)
def test_it_is_what_the_program_takes_or_writes(block: Block, tmp_path: Path) -> None:
    kind = kind_of(block)
    if kind == "yaml":
        assert yaml.safe_load(block.text)
    elif block.language == "toml":
        file = tmp_path / "file.toml"
        file.write_text(block.text, "utf-8")
        FILES[kind](file)
    elif kind == "mapped tick":
        assert map_before(block, tmp_path).decode(block.text.encode()).instrument
    else:
        MESSAGES[kind](json.loads(block.text))


def load(file: Path) -> None:
    """Read settings, and resolve their sessions, as a daemon does at its start."""
    resolve_rules(load_settings(file).session)


def valid_under(schema: dict[str, Any]) -> Callable[[Any], None]:
    return lambda message: jsonschema.validate(message, schema, jsonschema.Draft202012Validator)


def decode(message: dict[str, Any]) -> Tick:
    """Decode a tick as the daemon does, beyond what its schema can say."""
    jsonschema.validate(message, generate.tick_schema(), jsonschema.Draft202012Validator)
    return TickDecoder().decode(json.dumps(message).encode())


def map_before(block: Block, folder: Path) -> TickDecoder:
    """Return the decoder of the map that stands before a block on its page."""
    before = [each for each in DATA if each.document == block.document and each.line < block.line]
    text = next(each.text for each in reversed(before) if "[ticks.map]" in each.text)
    file = folder / "map.toml"
    file.write_text(text, "utf-8")
    return tick_decoder(load_settings(file))


FILES: dict[str, Callable[[Path], object]] = {
    "settings": load,
    "spec": read_spec,
    "training": lambda file: TrainingOptions(**read_options(file)),
}
MESSAGES: dict[str, Callable[[Any], object]] = {
    "tick": decode,
    "forecast": valid_under(generate.forecast_schema()),
    "score": valid_under(generate.score_schema()),
    "dead letter": valid_under(generate.dead_letter_headers_schema()),
    "marker": lambda message: markers.decode(json.dumps(message).encode()),
    "pin": lambda message: pins.decode(json.dumps(message).encode()),
}
