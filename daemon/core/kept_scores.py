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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from daemon.core.intervals import Track

_COUNT = struct.Struct("<H")
_TRACK = struct.Struct("<7d")
_PENDING = struct.Struct("<3q7d")
TRACK_BYTES = _TRACK.size
PENDING_BYTES = _PENDING.size

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


#: Packs a forecast that waits, and reads the oldest of several; the fields of `Pending`.
pack_pending = _PENDING.pack
unpack_pending = _PENDING.unpack_from
#: Reads and writes a track among several; the fields of `Track`.
unpack_track = _TRACK.unpack_from
pack_track = _TRACK.pack_into


@dataclass(slots=True)
class Scores:
    """What an instrument keeps of its forecasts, of each horizon."""

    #: The tracks, packed one after the other.
    tracks: bytearray
    #: Per horizon the forecasts that wait, packed one after the other, the oldest first.
    pending: list[bytes]
    #: What the tracks make of forecasts, the `Correction` of one after the other; empty where nobody has looked yet.
    #: Replaced when a track moves, never written to: earlier rows of the batch keep theirs.
    corrections: array[float] = field(default_factory=lambda: array("d"), compare=False)
    #: True once every track knows its errors.
    known: bool = field(default=False, compare=False)

    def drop(self) -> None:
        """Give up what waits: its truth would lie behind a reset."""
        self.pending = [b""] * len(self.pending)

    def track(self, column: int) -> Track:
        """Return the track of one horizon."""
        return Track(*unpack_track(self.tracks, TRACK_BYTES * column))

    def waiting(self, column: int) -> list[Pending]:
        """Return the forecasts of one horizon that wait, the oldest first."""
        return [Pending(*numbers) for numbers in _PENDING.iter_unpack(self.pending[column])]


def new_scores(tracks: Sequence[Track], pending: Sequence[Sequence[Pending]]) -> Scores:
    """Return scores of these tracks and forecasts, one of each per horizon."""
    packed = b"".join(_TRACK.pack(*track) for track in tracks)
    return Scores(bytearray(packed), [b"".join(pack_pending(*each) for each in waiting) for waiting in pending])


def pack(scores: Scores) -> bytes:
    """Return scores as bytes."""
    tracks, pending = scores.tracks, scores.pending
    counts = [len(pending), *(len(waiting) // PENDING_BYTES for waiting in pending)]
    parts: list[bytes | bytearray] = [struct.pack(f"<{len(counts)}H", *counts)]
    for column, waiting in enumerate(pending):
        parts += (tracks[TRACK_BYTES * column : TRACK_BYTES * (column + 1)], waiting)
    return b"".join(parts)


def unpack(packed: bytes) -> Scores:
    """Return the scores that bytes hold; the bytes are whole, see `is_whole`."""
    counts = _counts(packed)
    at = _COUNT.size * (1 + len(counts))
    tracks, pending = [], []
    for count in counts:
        end = at + TRACK_BYTES + PENDING_BYTES * count
        tracks.append(packed[at : at + TRACK_BYTES])
        pending.append(packed[at + TRACK_BYTES : end])
        at = end
    return Scores(bytearray(b"".join(tracks)), pending)


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
