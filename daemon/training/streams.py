"""Lays sequences of unequal length side by side, so that a recurrent model runs over many of them at once.

A *stream* is one row of the batch: pieces of sequences one after the other, cut into chunks of `CHUNK_TICKS`. The
state is carried from chunk to chunk, as in the daemon it is carried from tick to tick, and starts anew where a piece
begins. Gradients stay within a chunk (truncated back-propagation, Williams and Peng 1990).

In window mode a row of the batch is a window: one piece that ends at the tick it is about, begins with an empty state
and is shorter where its session has just begun. Only its last row counts, so each tick costs a run over its window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from daemon.core.step import F32

#: Ticks through which gradients flow; 128 took longer for each update and came out level.
CHUNK_TICKS = 64
#: Ticks at the start of a piece that was cut out of a session: the state is not yet what the daemon's would be there.
BURN_IN_TICKS = 32
#: Inputs are squashed softly beyond about so many standard deviations; a power of two, see `Network.plain_model`. On
#: real ticks, outliers cost a linear fit a tenth of its skill.
SQUASH = 4.0


@dataclass(frozen=True)
class SessionRows:
    """One session of one instrument: the state starts anew at its first row."""

    #: float32 array, shape (ticks, features), scaled
    x: F32
    #: float32 array, shape (ticks, outputs), in output units; 0 where there is no target
    y: F32
    #: float32 array, shape (ticks, outputs): weight in the loss, 0 where there is no target
    weight: F32


@dataclass(frozen=True)
class Piece:
    """Rows `begin` to `end` of a sequence, to be run in one go."""

    sequence: int
    begin: int
    end: int


@dataclass(frozen=True)
class Chunk:
    """What a batch sees at once; arrays have shapes (streams, ticks, ...), ticks being CHUNK_TICKS or a window's."""

    x: F32
    y: F32
    weight: F32
    #: float32 array, shape (streams, 1): 0 where the state starts anew before this chunk, else 1
    keep: F32
    #: Which rows of which sequence stand in each stream; None where the stream is empty.
    source: tuple[Piece | None, ...]


def shuffled(sequences: Sequence[SessionRows], streams: int, window: int | None, random: Generator) -> Iterator[Chunk]:
    """Yield every row that has a target once, in an order of its own each time.

    Parameters
    ----------
    window : ticks of a window; None where the state is carried
    """
    lengths = [len(rows.x) for rows in sequences]
    if window is None:
        return chunks(sequences, cut(lengths, streams, random), streams)
    pieces = [piece for piece in window_pieces(lengths, window) if _counts(sequences, piece)]
    random.shuffle(pieces)
    return windows(sequences, pieces, streams, window)


def cut(lengths: Sequence[int], streams: int, random: Generator) -> list[Piece]:
    """Cut sequences into pieces short enough to fill so many streams evenly, elsewhere each time."""
    longest = max(-(-sum(lengths) // streams), 4 * CHUNK_TICKS)
    pieces = []
    for sequence, length in enumerate(lengths):
        begin = 0
        while length - begin > longest:
            end = begin + int(random.integers(longest // 2, longest + 1))
            pieces.append(Piece(sequence, begin, end))
            begin = end
        pieces.append(Piece(sequence, begin, length))
    random.shuffle(pieces)
    return pieces


def chunks(sequences: Sequence[SessionRows], pieces: Sequence[Piece], streams: int) -> Iterator[Chunk]:
    """Deal pieces to the streams, each to the one that ends first, and yield them chunk by chunk."""
    rows: list[list[tuple[Piece, bool]]] = [[] for _ in range(streams)]
    for piece in pieces:
        row = min(rows, key=len)
        for begin in range(piece.begin, piece.end, CHUNK_TICKS):
            part = Piece(piece.sequence, begin, min(begin + CHUNK_TICKS, piece.end))
            row.append((part, begin == piece.begin))
    for step in range(max(map(len, rows))):
        yield _chunk(sequences, [row[step] if step < len(row) else None for row in rows])


def window_pieces(lengths: Sequence[int], window: int) -> list[Piece]:
    """Return the window that each row ends, in order; none reaches across the begin of its sequence."""
    return [
        Piece(sequence, max(end - window, 0), end)
        for sequence, length in enumerate(lengths)
        for end in range(1, length + 1)
    ]


def windows(sequences: Sequence[SessionRows], pieces: Sequence[Piece], streams: int, window: int) -> Iterator[Chunk]:
    """Yield windows side by side, in the order given; a short one stands on the left, as rows see no later ones."""
    for low in range(0, len(pieces), streams):
        x, y, weight = _blank(sequences, streams, window)
        some = pieces[low : low + streams]
        for row, piece in enumerate(some):
            sequence, last = sequences[piece.sequence], piece.end - 1
            at = last - piece.begin
            x[row, : at + 1] = sequence.x[piece.begin : piece.end]
            y[row, at], weight[row, at] = sequence.y[last], sequence.weight[last]
        source = (*some, *[None] * (streams - len(some)))
        yield Chunk(x, y, weight, np.zeros((streams, 1), np.float32), source)


def _counts(sequences: Sequence[SessionRows], piece: Piece) -> bool:
    return bool(sequences[piece.sequence].weight[piece.end - 1].any())


def _blank(sequences: Sequence[SessionRows], streams: int, ticks: int) -> tuple[F32, F32, F32]:
    features, outputs = sequences[0].x.shape[1], sequences[0].y.shape[1]
    x, y = (np.zeros((streams, ticks, width), np.float32) for width in (features, outputs))
    return x, y, np.zeros_like(y)


def _chunk(sequences: Sequence[SessionRows], parts: Sequence[tuple[Piece, bool] | None]) -> Chunk:
    x, y, weight = _blank(sequences, len(parts), CHUNK_TICKS)
    keep: NDArray[np.float32] = np.ones((len(parts), 1), np.float32)
    for row, found in enumerate(parts):
        if found is None:
            continue
        part, starts = found
        sequence, rows = sequences[part.sequence], slice(part.begin, part.end)
        count = part.end - part.begin
        x[row, :count], y[row, :count], weight[row, :count] = sequence.x[rows], sequence.y[rows], sequence.weight[rows]
        if starts:
            keep[row] = 0.0
            if part.begin > 0:
                weight[row, :BURN_IN_TICKS] = 0.0
    return Chunk(x, y, weight, keep, tuple(found and found[0] for found in parts))
