"""Snapshots: the state of one instrument as bytes, bit for bit; and what stands in the state topic beside them.

A snapshot is the value of a record in the state topic, keyed by its instrument. Little-endian, without padding:

    bytes   what
    4       b"TCS" and the format, 2
    4       CRC-32 of everything after it
    12      revision, ASCII
    8 x i64 next_offset, last_offset, reset_offset, step, last_ts, session_start, session_end, session_since
    i64     seq
    5 x f64 bid, ask, bid_size, ask_size, price
    u8      which of seq, session, spoken_session, bid, ask, bid_size, ask_size, price are known, one bit each
    u8, u8  codes of pending_reset and untold_reset, 0 for none
    2 x u16 lengths in bytes: session, spoken_session
    2 x u32 counts of numbers: cells, state
    ...     session, spoken_session (UTF-8), cells (f64), state (f32): (h, c) of every layer
    ...     scores, see `kept_scores`

Format 1 ended with the state. A snapshot without cells and state is a *reset*: nothing is kept, and the next tick says
why.

Invariants
----------
- decode(encode(x)) is x, to the bit, NaN and signed zeros included.
- Bytes that are not whole raise `SnapshotError`; none of them reaches a state.
- A format is read by the release that writes it and by the next one, see `READERS`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from daemon.core import kept_scores
from daemon.core.instrument import FLOAT_BYTES, NEVER, Instrument
from daemon.core.step import F32
from schemas import ResetCause

FORMAT = 2
MAGIC = b"TCS"
_HEAD = struct.Struct("<3sBI")
_BODY = struct.Struct("<12s9q5d3B2H2I")
#: Stable numbers of causes; 0 is none. Append only.
_CAUSES = (
    None,
    ResetCause.FIRST,
    ResetCause.SESSION,
    ResetCause.NON_FINITE,
    ResetCause.COLD,
    ResetCause.REVISION,
    ResetCause.OPERATOR,
)
#: float32 as the format has it, whatever the machine's own order.
FLOATS = np.dtype("<f4")
_CODES = {cause: code for code, cause in enumerate(_CAUSES)}


class SnapshotError(ValueError):
    """The bytes are no snapshot that this release can read."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One instrument as it stood before the tick at `next_offset` of its partition."""

    revision: str
    next_offset: int
    #: Without a slot.
    instrument: Instrument
    #: (h, c), float32 of shape (state_size,); empty for a reset.
    state: F32

    @property
    def is_reset(self) -> bool:
        """True where nothing of the instrument is kept."""
        return not self.instrument.packed_cells


def encode(revision: str, next_offset: int, instrument: Instrument, state: bytes) -> bytes:
    """Return the snapshot of an instrument.

    Parameters
    ----------
    revision : 12 ASCII characters
    next_offset : of the partition; every tick before it that was accepted is in the state
    state : the float32 numbers of (h, c), little-endian
    """
    seq, session, spoken = instrument.seq, instrument.session, instrument.spoken_session
    bid, ask, bid_size, ask_size = instrument.bid, instrument.ask, instrument.bid_size, instrument.ask_size
    price = instrument.price
    known = (
        (seq is not None)
        | (session is not None) << 1
        | (spoken is not None) << 2
        | (bid is not None) << 3
        | (ask is not None) << 4
        | (bid_size is not None) << 5
        | (ask_size is not None) << 6
        | (price is not None) << 7
    )
    session_bytes = b"" if session is None else session.encode()
    spoken_bytes = b"" if spoken is None else spoken.encode()
    body = _BODY.pack(
        revision.encode(),
        next_offset,
        instrument.last_offset,
        instrument.reset_offset,
        instrument.step,
        instrument.last_ts,
        instrument.session_start,
        instrument.session_end,
        instrument.session_since,
        0 if seq is None else seq,
        0.0 if bid is None else bid,
        0.0 if ask is None else ask,
        0.0 if bid_size is None else bid_size,
        0.0 if ask_size is None else ask_size,
        0.0 if price is None else price,
        known,
        _CODES[instrument.pending_reset],
        _CODES[instrument.untold_reset],
        len(session_bytes),
        len(spoken_bytes),
        len(instrument.packed_cells) // FLOAT_BYTES,
        len(state) // 4,
    )
    scores = instrument.packed_scores if instrument.scores is None else kept_scores.pack(instrument.scores)
    content = b"".join(
        (body, session_bytes, spoken_bytes, instrument.packed_cells, state, scores or kept_scores.NOTHING)
    )
    return _HEAD.pack(MAGIC, FORMAT, zlib.crc32(content)) + content


def encode_reset(revision: str, next_offset: int, name: str, cause: ResetCause, last_offset: int) -> bytes:
    """Return a snapshot that keeps nothing but the instrument's place among the least recently accepted."""
    gone = Instrument(name, -1, [], cause)
    gone.last_offset = last_offset
    return encode(revision, next_offset, gone, b"")


def decode(name: str, value: bytes) -> Snapshot:
    """Read a snapshot of any format that is still read.

    Raises
    ------
    SnapshotError : no snapshot, damaged, or of an unknown format
    """
    if len(value) < _HEAD.size:
        raise SnapshotError(f"{len(value)} bytes are no snapshot")
    magic, version, checksum = _HEAD.unpack_from(value)
    if magic != MAGIC:
        raise SnapshotError("no snapshot of tickcast")
    if version not in READERS:
        raise SnapshotError(f"format {version} is not known here, only {', '.join(map(str, READERS))}")
    if zlib.crc32(memoryview(value)[_HEAD.size :]) != checksum:
        raise SnapshotError("damaged: the checksum does not fit")
    try:
        return READERS[version](name, value)
    except (struct.error, ValueError, IndexError) as error:
        raise SnapshotError(f"damaged: {error}") from error


def _read_2(name: str, value: bytes) -> Snapshot:
    snapshot, end = _read(name, value)
    scores = value[end:]
    if not kept_scores.is_whole(scores):
        raise SnapshotError(f"damaged: {len(value)} bytes do not fit its lengths")
    if scores != kept_scores.NOTHING:
        snapshot.instrument.packed_scores = scores
    return snapshot


def _read_1(name: str, value: bytes) -> Snapshot:
    snapshot, end = _read(name, value)
    if len(value) != end:
        raise SnapshotError(f"damaged: {len(value)} bytes do not fit its lengths")
    return snapshot


def _read(name: str, value: bytes) -> tuple[Snapshot, int]:
    """Read what all formats begin with, and return where it ends."""
    (revision, next_offset, last_offset, reset_offset, step, last_ts, session_start, session_end, session_since,
     seq, bid, ask, bid_size, ask_size, price, known, pending, untold,
     session_length, spoken_length, cell_count, state_count) = _BODY.unpack_from(value, _HEAD.size)  # fmt: skip
    session_at = _HEAD.size + _BODY.size
    spoken_at = session_at + session_length
    cells_at = spoken_at + spoken_length
    state_at = cells_at + FLOAT_BYTES * cell_count
    instrument = Instrument(name, -1, (), _CAUSES[pending])
    instrument.packed_cells = value[cells_at:state_at]
    instrument.untold_reset = _CAUSES[untold]
    instrument.last_offset, instrument.reset_offset, instrument.step = last_offset, reset_offset, step
    instrument.last_ts, instrument.session_since = last_ts, session_since
    instrument.session_start, instrument.session_end = session_start, session_end
    # One line per field: a loop over names was measured at 3 us a snapshot, this at 1.
    instrument.seq = seq if known & 1 else None
    instrument.session = value[session_at:spoken_at].decode() if known & 2 else None
    instrument.spoken_session = value[spoken_at:cells_at].decode() if known & 4 else None
    instrument.bid = bid if known & 8 else None
    instrument.ask = ask if known & 16 else None
    instrument.bid_size = bid_size if known & 32 else None
    instrument.ask_size = ask_size if known & 64 else None
    instrument.price = price if known & 128 else None
    state = np.frombuffer(value, FLOATS, state_count, state_at)
    return Snapshot(revision.decode("ascii"), next_offset, instrument, state), state_at + 4 * state_count


#: What reads which format: the present one and the one before it.
READERS: dict[int, Callable[[str, bytes], Snapshot]] = {1: _read_1, 2: _read_2}

assert NEVER == -(2**63), "the format stores it as an i64"
