"""What enters and leaves the core: records of the input topic in, messages for the output topics out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]


class Record(Protocol):
    """One record as it is delivered: raw bytes and where they stood."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Kafka's own timestamp, milliseconds since the epoch; -1 where the record has none."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class InputRecord(NamedTuple):
    """A `Record` as every transport of ours makes it; a tuple, since nothing is made faster."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Message(NamedTuple):
    """One record to produce; `partition` is always explicit and equals the partition of the tick."""

    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
