"""Writes the JSON Schemas in `schemas/json/` and `schemas/asyncapi.yaml` from the message classes.

`python -m schemas.generate` writes them; with `--check` it writes nothing and fails where a file is not what it would
write. The files are committed, so that users read them without Python, and a test compares.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

from schemas.dead_letter import HEADER_PREFIX, Reason
from schemas.forecast import SCHEMA_VERSION, Forecast, ResetCause
from schemas.score import SCORE_VERSION, Score
from schemas.tick import TS_NS_MAX, TS_NS_MIN, Tick

FOLDER = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
#: Content type of values that are no JSON, or not always.
OPAQUE = "application/octet-stream"

Schema = dict[str, Any]


def tick_schema() -> Schema:
    """Return the JSON Schema of a tick.

    Whatever the decoder takes is valid under it. The converse does not hold: order of quotes and times, for example,
    are beyond a schema.
    """
    schema: Schema = Tick.model_json_schema()
    ts = schema["properties"]["ts"]
    ts["anyOf"] = [{"type": "integer", "minimum": TS_NS_MIN, "maximum": TS_NS_MAX}, {"type": "string"}]
    schema["properties"]["fields"]["anyOf"][0]["additionalProperties"] = False
    schema["anyOf"] = [_present("price"), _present("bid", "ask")]
    return {"$schema": DIALECT, **schema}


def forecast_schema() -> Schema:
    """Return the JSON Schema of a forecast, strict: every field is there, and no other."""
    schema: Schema = Forecast.model_json_schema(mode="serialization")
    schema["$defs"][ResetCause.__name__] = _named_values(ResetCause)
    schema["properties"]["schema_version"] = {"const": SCHEMA_VERSION, "description": "Version of this message."}
    schema["required"] = list(schema["properties"])
    return {"$schema": DIALECT, **schema}


def score_schema() -> Schema:
    """Return the JSON Schema of a score, strict: every field is there, and no other."""
    schema: Schema = Score.model_json_schema(mode="serialization")
    schema["properties"]["schema_version"] = {"const": SCORE_VERSION, "description": "Version of this message."}
    schema["required"] = list(schema["properties"])
    return {"$schema": DIALECT, **schema}


def dead_letter_headers_schema() -> Schema:
    """Return the JSON Schema of a dead letter's headers, as an object of header name -> text."""
    integer = {"type": "string", "pattern": "^-?[0-9]+$"}
    always: dict[str, Schema] = {
        "topic": {"type": "string", "description": "Topic of the tick."},
        "partition": integer | {"description": "Partition of the tick, and of the dead letter."},
        "offset": integer | {"description": "Offset of the tick."},
        "timestamp": integer | {"description": "Kafka timestamp of the tick, milliseconds since the epoch."},
        "reason": _named_values(Reason) | {"description": "Why the tick could not be used."},
        "detail": {"type": "string", "description": "What exactly was wrong, for people."},
        "attempt": integer | {"description": "How many times the tick was tried, this time included."},
    }
    truncated: dict[str, Schema] = {
        "truncated": {"const": "true", "description": "The value was too large for the topic, its end is missing."},
        "original_length": integer | {"description": "Bytes of the whole value."},
        "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "SHA-256 of the whole value."},
    }
    return {
        "$schema": DIALECT,
        "title": "DeadLetterHeaders",
        "description": "Headers of a dead letter, UTF-8 text each. Key and value are those of the tick, byte for byte.",
        "type": "object",
        "properties": {HEADER_PREFIX + name: schema for name, schema in (always | truncated).items()},
        "required": [HEADER_PREFIX + name for name in always],
        "dependentRequired": {HEADER_PREFIX + "truncated": [HEADER_PREFIX + name for name in truncated]},
    }


def asyncapi() -> Schema:
    """Return the AsyncAPI document, from the view of an application that uses tickcast."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tickcast",
            "version": f"{SCHEMA_VERSION}.0.0",
            "description": "Price ticks in, one multi-horizon forecast per tick out, exactly once. The operations are "
            "yours: you send ticks, you receive forecasts. Topic names are the defaults. All topics have the same "
            "number of partitions, and a tick, its outcome and its state stand in the same partition number.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "ticks": _channel("ticks", "tick", "Trades and quotes, as your producer partitions them."),
            "forecasts": _channel(
                "forecasts", "forecast", "One forecast per accepted tick. Read it with isolation.level=read_committed."
            ),
            "scores": _channel(
                "scores",
                "score",
                "A sample of forecasts with their outcomes; only where `[topics] scores` names it. Read it with "
                "read_committed.",
            ),
            "deadLetters": _channel(
                "tickcast-dead-letters", "deadLetter", "Ticks that could not be used. Read it with read_committed."
            ),
            "state": _channel(
                "tickcast-state", "state", "Snapshots of the instruments' states; tickcast's own, do not write to it."
            ),
        },
        "operations": {
            "sendTicks": _operation("send", "ticks", "Send ticks."),
            "receiveForecasts": _operation("receive", "forecasts", "Receive the forecasts."),
            "receiveScores": _operation("receive", "scores", "Receive forecasts with their outcomes."),
            "receiveDeadLetters": _operation("receive", "deadLetters", "Receive the ticks that could not be used."),
        },
        "components": {"messages": _messages()},
    }


def documents() -> dict[Path, str]:
    """Return the text of every generated file."""
    import yaml  # a development tool: the daemon runs without it

    schemas = {
        "tick": tick_schema(),
        "forecast": forecast_schema(),
        "score": score_schema(),
        "dead_letter_headers": dead_letter_headers_schema(),
    }
    texts = {FOLDER / "json" / f"{name}.schema.json": json.dumps(schemas[name], indent=2) + "\n" for name in schemas}
    texts[FOLDER / "asyncapi.yaml"] = yaml.safe_dump(asyncapi(), sort_keys=False, width=120, allow_unicode=True)
    return texts


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` say which ones differ; return the exit code."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m schemas.generate [--check]", file=sys.stderr)
        return 2
    stale = {path: text for path, text in documents().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if arguments:
            print(f"{path} is stale: run python -m schemas.generate", file=sys.stderr)
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, "utf-8")
    return 1 if stale and arguments else 0


def _present(*names: str) -> Schema:
    return {"required": list(names), "properties": {name: {"type": "number"} for name in names}}


def _named_values(enum: type[StrEnum]) -> Schema:
    """Return a schema of the enum's values, each with its meaning."""
    return {"oneOf": [{"const": str(value), "description": value.meaning} for value in enum]}  # type: ignore[attr-defined]


def _channel(address: str, message: str, description: str) -> Schema:
    cleanup = "compact" if message == "state" else "delete"
    return {
        "address": address,
        "description": description,
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "bindings": {"kafka": {"topicConfiguration": {"cleanup.policy": [cleanup]}, "bindingVersion": "0.5.0"}},
    }


def _operation(action: str, channel: str, summary: str) -> Schema:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}


def _messages() -> Schema:
    return {
        "tick": _message("The instrument, UTF-8; it chooses the partition.", payload=_file("tick")),
        "forecast": _message("The instrument, UTF-8.", payload=_file("forecast")),
        "score": _message("The instrument, UTF-8.", payload=_file("score")),
        "deadLetter": _message("The tick's key.", contentType=OPAQUE, headers=_file("dead_letter_headers")),
        "state": _message("The instrument, or the partition's marker.", contentType=OPAQUE),
    }


def _message(key: str, **parts: object) -> Schema:
    kafka = {"key": {"type": "string", "description": key}, "bindingVersion": "0.5.0"}
    return {**parts, "bindings": {"kafka": kafka}}


def _file(name: str) -> Schema:
    return {"$ref": f"./json/{name}.schema.json"}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
