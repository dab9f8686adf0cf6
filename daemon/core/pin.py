"""The pin: which bundle a group runs, as one record of its state topic.

It stands in the first partition, whoever owns that, under a key of its own, so compaction keeps it. `tickcast bundle`
writes it; every process of the group follows it. Markers repeat the newest pin that their writer knew, so that who
starts finds it near the end of the partition and need not read all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

FORMAT = 1
#: No instrument has this name: it holds a character that cannot be printed.
KEY = b"\x00bundle"
#: The partition of the state topic that holds it.
PARTITION = 0


class PinError(ValueError):
    """The value is no pin that this release can read."""


@dataclass(frozen=True, slots=True)
class Pin:
    """An operator's word that a group runs a bundle."""

    group_id: str
    #: Id of the bundle.
    bundle: str
    #: Id of the one before it, for a rollback; empty where nobody knew it.
    previous: str
    #: Grows by one with each pin of the group; the largest one is in force.
    number: int
    #: When it was written, ISO 8601; for people.
    at: str


def encode(pin: Pin) -> bytes:
    """Return the pin as JSON, for people who look at the topic too."""
    return json.dumps({"format": FORMAT, **asdict(pin)}).encode()


def decode(value: bytes | None) -> Pin:
    """Read a pin.

    Raises
    ------
    PinError : it is none, or of an unknown format
    """
    try:
        content: Any = json.loads(value or b"")
        version = content.pop("format")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PinError(f"no pin: {error}") from error
    if version != FORMAT:
        raise PinError(f"pin of format {version}, known is {FORMAT}")
    return from_fields(content)


def from_fields(content: Mapping[str, Any]) -> Pin:
    """Read a pin from its fields.

    Raises
    ------
    PinError : they are not those of a pin
    """
    try:
        pin = Pin(**content)
    except TypeError as error:
        raise PinError(f"no pin: {error}") from error
    for name, value in asdict(pin).items():
        expected = int if name == "number" else str
        if type(value) is not expected:
            raise PinError(f"no pin: {name} is no {expected.__name__}")
    return pin


def newest(one: Pin | None, other: Pin | None) -> Pin | None:
    """Return the pin in force; of two with the same number the first."""
    if one is None or other is None:
        return one or other
    return other if other.number > one.number else one
