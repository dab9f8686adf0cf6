"""Lays sequences of unequal length side by side, so that a recurrent model runs over many of them at once.

A *stream* is one row of the batch: pieces of sequences one after the other, cut into chunks of `CHUNK_TICKS`. The
state is carried from chunk to chunk, as in the daemon it is carried from tick to tick, and starts anew where a piece
begins. Gradients stay within a chunk (truncated back-propagation, Williams and Peng 1990).
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
    """What a batch sees at once; arrays have shapes (streams, CHUNK_TICKS, ...)."""

    x: F32
    y: F32
    weight: F32
    #: float32 array, shape (streams, 1): 0 where the state starts anew before this chunk, else 1
    keep: F32
    #: Which rows of which sequence stand in each stream; None where the stream is empty.
    source: tuple[Piece | None, ...]


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


def _chunk(sequences: Sequence[SessionRows], parts: Sequence[tuple[Piece, bool] | None]) -> Chunk:
    features, outputs = sequences[0].x.shape[1], sequences[0].y.shape[1]
    x = np.zeros((len(parts), CHUNK_TICKS, features), np.float32)
    y = np.zeros((len(parts), CHUNK_TICKS, outputs), np.float32)
    weight = np.zeros_like(y)
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
