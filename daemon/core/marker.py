"""The marker: the last record of every checkpoint, and the only record of the state topic that is read on its own.

A checkpoint is snapshots, tombstones and one marker, written in one transaction with the offset that they belong to.
So the newest marker of a partition says how far its newest snapshots go, and where the states came from.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from daemon.core.pin import Pin, from_fields
from schemas import ResetCause

FORMAT = 1
#: No instrument has this name: it holds a character that cannot be printed.
KEY = b"\x00marker"


class MarkerError(ValueError):
    """The value is no marker that this release can read."""


@dataclass(frozen=True, slots=True)
class Marker:
    """Where a partition's states stand, and where they began.

    `next_offset` is the first tick that is not in them. They began at `replay_start` with nothing; what they said was
    published from `live_from` on (the same, unless ticks before it were replayed to warm them up). `origin` is why
    they began, and what an instrument without a state is told since.

    Two markers are equal where their states are; what else their writers knew does not count.
    """

    group_id: str
    #: Id of the ticks topic; another one means that the topic was created anew, and offsets mean other ticks.
    topic_id: str
    revision: str
    next_offset: int
    replay_start: int
    live_from: int
    origin: ResetCause
    #: Id of the bundle that the states are of, for people: the revision says it, too. Empty where it is not known.
    model: str = field(default="", compare=False)
    #: The newest pin that the writer knew; see `daemon.core.pin`.
    pin: Pin | None = field(default=None, compare=False)


def encode(marker: Marker) -> bytes:
    """Return the marker as JSON, for people who look at the topic too; what is not known is left out."""
    content = {"format": FORMAT, **asdict(marker)}
    for name in ("model", "pin"):
        if not content[name]:
            del content[name]
    return json.dumps(content).encode()


def decode(value: bytes) -> Marker:
    """Read a marker.

    Raises
    ------
    MarkerError : it is none, or of an unknown format
    """
    try:
        content: Any = json.loads(value)
        version = content.pop("format")
        if version != FORMAT:
            raise MarkerError(f"marker of format {version}, known is {FORMAT}")
        content["origin"] = ResetCause(content["origin"])
        if "pin" in content:
            content["pin"] = from_fields(content["pin"])
        marker = Marker(**content)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise error if isinstance(error, MarkerError) else MarkerError(f"no marker: {error}") from error
    for each in fields(marker):
        expected = {"int": int, "str": str}.get(str(each.type))
        if expected is not None and type(getattr(marker, each.name)) is not expected:
            raise MarkerError(f"no marker: {each.name} is no {expected.__name__}")
    return marker
