"""What an instrument keeps of its forecasts, and the same as bytes, bit for bit, as a snapshot ends with them.

    u16     count of horizons with scores; 0 where nothing is scored yet
    u16 ... per horizon: count of forecasts that wait for their truth
    ...     per horizon: its `Track` (7 x f64), then each `Pending` (3 x i64, 7 x f64)

Little-endian, without padding. Instruments keep their numbers packed, too: as objects they took five times the room,
more than all else of an instrument, and the collector of garbage walked over each of them. An instrument that comes
from a snapshot keeps all of the bytes until a tick of it needs what is in them: after a restart most of many
instruments are quiet for a while.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from daemon.core.intervals import Track

_COUNT = struct.Struct("<H")
_TRACK = struct.Struct("<7d")
_PENDING = struct.Struct("<3q7d")
_TRACK_AND_PENDING = struct.Struct("<7d3q7d")
TRACK_BYTES: Final = _TRACK.size
PENDING_BYTES: Final = _PENDING.size

NOTHING = _COUNT.pack(0)


class Pending(NamedTuple):
    """A forecast that waits for its truth. Plain numbers.

    `value`, `low` and `high` are in what the output's kind says: a log return, a difference or a price.
    """

    #: Step of the tick that is the truth.
    due: int
    #: Offset and event time of the tick that was forecast from, and its price.
    offset: int
    ts: int
    price: float
    #: As published.
    mean: float
    value: float
    #: Unit of errors.
    unit: float
    #: The ends that are judged; infinite where no interval was known.
    low: float
    high: float
    #: 1 where the published interval was widened to hold the price, else 0.
    holds_price: float


#: Pack the fields of a `Pending` and of a `Track`.
pack_pending = _PENDING.pack
pack_track = _TRACK.pack


@dataclass(slots=True)
class Scores:
    """What an instrument keeps of its forecasts."""

    #: Per horizon its track and then, the oldest first, the forecasts that wait: packed, as a snapshot has them.
    horizons: list[bytes]
    #: What the tracks make of forecasts, the `Correction` of one after the other; empty where nobody has looked yet.
    #: Replaced when a track moves, never written to: earlier rows of the batch keep theirs.
    corrections: array[float] = field(default_factory=lambda: array("d"), compare=False)
    #: True once every track knows its errors.
    known: bool = field(default=False, compare=False)

    def drop(self) -> None:
        """Give up what waits: its truth would lie behind a reset."""
        self.horizons = [packed[:TRACK_BYTES] for packed in self.horizons]

    def track(self, column: int) -> Track:
        """Return the track of a horizon."""
        return Track(*_TRACK.unpack_from(self.horizons[column]))

    def waiting(self, column: int) -> list[Pending]:
        """Return the forecasts of a horizon that wait, the oldest first."""
        return [Pending(*numbers) for numbers in _PENDING.iter_unpack(self.horizons[column][TRACK_BYTES:])]


def new_scores(tracks: Iterable[Track]) -> Scores:
    """Return scores of these tracks, without any forecast."""
    return Scores([pack_track(*track) for track in tracks])


def oldest(packed: bytes) -> tuple[Track, Pending]:
    """Return the track of a horizon and its oldest forecast; there is one."""
    numbers = _TRACK_AND_PENDING.unpack_from(packed)
    new = tuple.__new__  # of a named tuple: half the time of its constructor
    return new(Track, numbers[:7]), new(Pending, numbers[7:])


def pack(scores: Scores) -> bytes:
    """Return scores as bytes."""
    horizons = scores.horizons
    counts = [len(packed) // PENDING_BYTES for packed in horizons]  # a track is shorter than a forecast
    return b"".join((struct.pack(f"<H{len(counts)}H", len(counts), *counts), *horizons))


def unpack(packed: bytes) -> Scores:
    """Return the scores that bytes hold; the bytes are whole, see `is_whole`."""
    counts = _counts(packed)
    begin = _COUNT.size * (1 + len(counts))
    horizons = []
    for count in counts:
        end = begin + TRACK_BYTES + PENDING_BYTES * count
        horizons.append(packed[begin:end])
        begin = end
    return Scores(horizons)


def is_whole(packed: bytes) -> bool:
    """Say whether bytes hold what their counts say, and nothing else.

    Raises
    ------
    struct.error : the counts themselves are cut off
    """
    counts = _counts(packed)
    return len(packed) == (_COUNT.size + TRACK_BYTES) * len(counts) + PENDING_BYTES * sum(counts) + _COUNT.size


def horizon_count(packed: bytes) -> int:
    """Return how many horizons have scores."""
    return int(_COUNT.unpack_from(packed)[0])


def _counts(packed: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f"<{horizon_count(packed)}H", packed, _COUNT.size)
