"""Streams: every row of every sequence once, in order, with the state carried inside a piece and nowhere else; or as
windows, each row as the end of one that stays in its session."""

from __future__ import annotations

import numpy as np
import pytest

from daemon.training.streams import BURN_IN_TICKS, CHUNK_TICKS, Piece, SessionRows, chunks, cut, shuffled

LENGTHS = [1, 63, 64, 65, 1000, 7, 2500]


def sessions() -> list[SessionRows]:
    """Rows that say where they come from: column 0 the sequence, column 1 the row."""
    found = []
    for number, length in enumerate(LENGTHS):
        x = np.column_stack([np.full(length, number), np.arange(length)]).astype(np.float32)
        found.append(SessionRows(x, x[:, :1], np.ones((length, 1), np.float32)))
    return found


@pytest.mark.parametrize("streams", [1, 4, 16])
def test_pieces_cover_every_sequence_once_and_fill_the_streams(streams):
    pieces = cut(LENGTHS, streams, np.random.default_rng(0))
    for sequence, length in enumerate(LENGTHS):
        bounds = sorted((piece.begin, piece.end) for piece in pieces if piece.sequence == sequence)
        assert [begin for begin, _ in bounds] == [0, *(end for _, end in bounds[:-1])]
        assert bounds[-1][1] == length
    longest = max(piece.end - piece.begin for piece in pieces)
    assert longest <= max(-(-sum(LENGTHS) // streams), 4 * CHUNK_TICKS)


def test_cuts_move_from_epoch_to_epoch_and_repeat_with_the_seed():
    random, again = np.random.default_rng(1), np.random.default_rng(1)
    first, second = cut(LENGTHS, 8, random), cut(LENGTHS, 8, random)
    assert first != second
    assert [cut(LENGTHS, 8, again), cut(LENGTHS, 8, again)] == [first, second]


@pytest.mark.parametrize("streams", [1, 3, 8])
def test_every_row_comes_once_and_follows_the_row_before_unless_the_state_starts_anew(streams):
    pieces = cut(LENGTHS, streams, np.random.default_rng(2))
    begins = {(piece.sequence, piece.begin) for piece in pieces}
    seen = []
    before: list[tuple[int, int] | None] = [None] * streams
    for chunk in chunks(sessions(), pieces, streams):
        for stream, piece in enumerate(chunk.source):
            if piece is None:
                assert not chunk.weight[stream].any()
                continue
            rows = [tuple(map(int, row)) for row in chunk.x[stream, : piece.end - piece.begin]]
            assert rows == [(piece.sequence, row) for row in range(piece.begin, piece.end)]
            if rows[0] in begins:
                assert chunk.keep[stream, 0] == 0
            else:
                assert chunk.keep[stream, 0] == 1
                assert rows[0] == (before[stream][0], before[stream][1] + 1)
            before[stream] = rows[-1]
            seen += rows
    assert sorted(seen) == [(number, row) for number, length in enumerate(LENGTHS) for row in range(length)]


def test_the_burn_in_of_a_piece_inside_a_session_has_no_weight_and_a_session_start_has():
    inside, start = Piece(4, 100, 300), Piece(6, 0, 200)
    weights = [chunk.weight[..., 0] for chunk in chunks(sessions(), [inside, start], 2)]
    assert not weights[0][0, :BURN_IN_TICKS].any()
    assert weights[0][0, BURN_IN_TICKS:].all()
    assert weights[0][1].all()
    assert weights[1].all()


def test_rows_behind_the_end_of_a_piece_have_no_weight():
    (chunk,) = chunks(sessions(), [Piece(5, 0, 7)], 1)
    assert chunk.weight[0, :7].all()
    assert not chunk.weight[0, 7:].any()


@pytest.mark.parametrize(("streams", "window"), [(1, 2), (50, 20), (5000, 65)])
def test_each_row_with_a_target_ends_one_window_that_stays_in_its_session(streams, window):
    rows = sessions()
    rows[4].weight[:500] = 0.0
    wanted = {(number, row) for number, length in enumerate(LENGTHS) for row in range(length)}
    wanted -= {(4, row) for row in range(500)}
    ends = []
    for chunk in shuffled(rows, streams, window, np.random.default_rng(3)):
        assert chunk.x.shape == (streams, window, 2)
        assert not chunk.keep.any()
        for stream, piece in enumerate(chunk.source):
            if piece is None:
                assert not chunk.weight[stream].any()
                continue
            last = min(piece.end, window) - 1  # short windows stand on the left
            assert np.flatnonzero(chunk.weight[stream]).tolist() == [last]
            found = [tuple(map(int, row)) for row in chunk.x[stream, : last + 1]]
            assert found == [(piece.sequence, row) for row in range(piece.end - last - 1, piece.end)]
            assert chunk.y[stream, last, 0] == piece.sequence
            ends.append(found[-1])
    assert len(ends) == len(wanted)
    assert set(ends) == wanted
    assert ends != sorted(ends)
