"""The turns of a stack: every layer takes every row once, after what it reads, from where that was written."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.step import Waves
from daemon.model.front import TOGETHER, Front, Run

sizes = st.lists(st.integers(1, 70), min_size=1, max_size=12).map(lambda each: sorted(each, reverse=True))


def waves_of(sizes):
    return Waves((0, *accumulate(sizes)), np.empty(0, np.intp))


def test_layers_take_waves_one_behind_the_other_and_alike_turns_are_one_run():
    front = Front(waves_of([6, 3, 3, 3, 1]), 2, tile_rows=4, thin=(2,))
    assert list(front.runs()) == [
        Run(source=0, target=2, rows=8, times=1, first=0, last=1),
        Run(source=2, target=4, rows=4, times=1, first=0, last=1),  # the lower layer is at its second wave,
        Run(source=2, target=4, rows=8, times=1, first=1, last=2),  # the upper one at its first
        Run(source=4, target=6, rows=4, times=1, first=0, last=2),
        Run(source=6, target=7, rows=4, times=1, first=0, last=2),
        Run(source=7, target=8, rows=2, times=1, first=0, last=1),
        Run(source=7, target=8, rows=4, times=1, first=1, last=2),
        Run(source=8, target=9, rows=2, times=1, first=1, last=2),
    ]
    assert front.before(1).tolist()[:7] == [8, 9, 10, 11, 12, 13, 16]


def test_a_long_chain_is_one_run():
    runs = list(Front(waves_of([1] * 100), 3, tile_rows=4, thin=(2,)).runs())
    assert [(run.times, run.first, run.last) for run in runs] == [
        (1, 0, 1),
        (1, 0, 2),
        (98, 0, 3),
        (1, 1, 3),
        (1, 2, 3),
    ]


@given(sizes, st.integers(1, 8), st.sampled_from((1, 2, 4, 8)), st.sampled_from(((), (2,), (4, 2))))
def test_every_row_of_every_layer_is_computed_once_and_after_what_it_reads(sizes, layers, tile_rows, thin):
    waves = waves_of(sizes)
    front = Front(waves, layers, tile_rows, [rows for rows in thin if rows < tile_rows])
    # Numbers of states, by layer and place of the board: where they have to be read, and what stands there.
    source, after = waves.source(sizes[0]), sizes[0] + np.arange(sum(sizes))
    wanted, stands = np.full((2, layers, front.rows), -1)
    for layer in range(layers):
        low = front.start(layer)
        stands[layer, low : low + sizes[0]] = np.arange(sizes[0])
        wanted[layer, front.before(layer)] = source
    computed = np.zeros((layers, len(after)), np.intp)
    for run in front.runs():
        tiles = -(-run.rows // tile_rows)
        assert tiles * (run.last - run.first) <= TOGETHER
        for time in range(run.times):
            read, written = (
                slice((tile + time * tiles) * tile_rows, (tile + time * tiles) * tile_rows + run.rows)
                for tile in (run.source, run.target)
            )
            below = stands.copy()  # the layers of a turn do not see what the others of it write
            for layer in range(run.first, run.last):
                rows = np.isin(front.before(layer), np.arange(front.rows)[read])
                assert (stands[layer, read][wanted[layer, read] >= 0] == source[rows]).all()
                if layer:
                    assert (below[layer - 1, front.after(layer - 1)[rows]] == after[rows]).all()
                stands[layer, written] = -1
                stands[layer, front.after(layer)[rows]] = after[rows]
                assert (front.after(layer)[rows] - written.start < run.rows).all()
                computed[layer, rows] += 1
    assert (computed == 1).all()
