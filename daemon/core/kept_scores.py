"""What an instrument keeps of its forecasts, and the same as bytes, bit for bit, as a snapshot ends with them.

    u16     count of horizons with scores; 0 where nothing is scored yet
    u16 ... per horizon: count of forecasts that wait for their truth
    ...     per horizon: its `Track` (7 x f64), then each `Pending` (3 x i64, 7 x f64)

Little-endian, without padding. An instrument that comes from a snapshot keeps the bytes until a tick of it needs what
is in them: after a restart most of many instruments are quiet for a while, and objects take several times the room and
most of the time of reading a snapshot.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from daemon.core.intervals import Track

_COUNT = struct.Struct("<H")
_TRACK = struct.Struct("<7d")
_PENDING = struct.Struct("<3q7d")
#: The fields of a track in the order of its constructor.
_numbers = attrgetter("low", "high", "low_debt", "high_debt", "mean_square", "still", "count")

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


@dataclass(slots=True)
class Scores:
    """What an instrument keeps of its forecasts, one of each per horizon."""

    tracks: list[Track]
    pending: list[list[Pending]]
    #: What the tracks make of forecasts, the `Correction` of one after the other; empty where nobody has looked yet.
    #: Replaced when a track moves, never written to: earlier rows of the batch keep theirs.
    corrections: array[float] = field(default_factory=lambda: array("d"), compare=False)
    #: True once every track knows its errors.
    known: bool = field(default=False, compare=False)

    def drop(self) -> None:
        """Give up what waits: its truth would lie behind a reset."""
        for waiting in self.pending:
            waiting.clear()


def pack(scores: Scores) -> bytes:
    """Return scores as bytes."""
    counts = [len(scores.tracks), *map(len, scores.pending)]
    parts = [struct.pack(f"<{len(counts)}H", *counts)]
    for track, waiting in zip(scores.tracks, scores.pending, strict=True):
        parts.append(_TRACK.pack(*_numbers(track)))
        parts += [_PENDING.pack(*forecast) for forecast in waiting]
    return b"".join(parts)


def unpack(packed: bytes) -> Scores:
    """Return the scores that bytes hold; the bytes are whole, see `is_whole`."""
    counts = _counts(packed)
    at = _COUNT.size * (1 + len(counts))
    scores = Scores([], [])
    for count in counts:
        scores.tracks.append(Track(*_TRACK.unpack_from(packed, at)))
        at += _TRACK.size
        end = at + _PENDING.size * count
        scores.pending.append([Pending(*numbers) for numbers in _PENDING.iter_unpack(packed[at:end])])
        at = end
    return scores


def is_whole(packed: bytes) -> bool:
    """Say whether bytes hold what their counts say, and nothing else.

    Raises
    ------
    struct.error : the counts themselves are cut off
    """
    counts = _counts(packed)
    return len(packed) == (_COUNT.size + _TRACK.size) * len(counts) + _PENDING.size * sum(counts) + _COUNT.size


def horizon_count(packed: bytes) -> int:
    """Return how many horizons have scores."""
    return int(_COUNT.unpack_from(packed)[0])


def _counts(packed: bytes) -> tuple[int, ...]:
    return struct.unpack_from(f"<{horizon_count(packed)}H", packed, _COUNT.size)
