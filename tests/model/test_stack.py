"""Layers on one another take turns: the same bits as layer by layer, row by row, however many there are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.step import scan_waves
from daemon.model import stack
from daemon.model.front import TOGETHER
from daemon.model.numpy_step import TILE_ROWS, NumpyStep
from daemon.model.program import Node, Program
from daemon.model.selftest import check_scan, slots_agree
from daemon.model.stack import LAYERS_MAX, Stack
from tests.bundles import tiny_program
from tests.model.test_numpy_step import CELLS, FEATURES, cell, draw, in_waves, same


def stacked(kind, layers, units=5, seed=0):
    rng = np.random.default_rng(seed)
    widths = [FEATURES, *[units] * (layers - 1)]
    return Program(FEATURES, tuple(Node(cell(kind, rng, width, units), (at,)) for at, width in enumerate(widths)))


def parts(step):
    return [part for part, _ in step._parts if isinstance(part, Stack)]


def one_layer_each(program, tile_rows=TILE_ROWS):
    """Return a step for each layer on its own."""
    return [
        NumpyStep(Program(width, (Node(node.op, (0,)),)), tile_rows)
        for width, node in zip(program.widths, program.nodes, strict=False)
    ]


@given(
    kind=st.sampled_from(CELLS),
    layers=st.integers(1, LAYERS_MAX + 3),
    tile_rows=st.sampled_from((2, 4, 8)),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=20).map(lambda each: sorted(each, reverse=True)),
    seed=st.integers(0, 2**16),
)
def test_a_stack_gives_the_bits_of_its_layers_one_after_the_other(kind, layers, tile_rows, lengths, seed):
    program = stacked(kind, layers, seed=seed)
    waves, rng = in_waves(lengths), np.random.default_rng(seed)
    step = NumpyStep(program, tile_rows)
    x, start = draw(rng, sum(lengths), FEATURES), draw(rng, len(lengths), step.state_size)
    y, final, finite = step.scan(x, start, waves)
    low = 0
    for layer in one_layer_each(program, tile_rows):
        own = slice(low, low + layer.state_size)
        x, ends, sound = layer.scan(x, np.ascontiguousarray(start[:, own]), waves)
        assert same((final[:, own],), (ends,))
        assert sound.all()
        low = own.stop
    assert same((y,), (x,))
    assert finite.all()


def test_layers_that_are_alike_are_one_stack_and_others_are_not():
    assert [part.state_size for part in parts(NumpyStep(stacked("lstm", 3)))] == [30]
    assert [part.state_size for part in parts(NumpyStep(stacked("gru", LAYERS_MAX + 1)))] == [5 * LAYERS_MAX, 5]
    assert len(parts(NumpyStep(stacked("gru reset first", 2)))) == 2
    rng = np.random.default_rng(0)
    mixed = [cell("lstm", rng, FEATURES, 5), cell("lstm of relu", rng, 5, 5), cell("lstm", rng, 5, 4)]
    assert len(parts(NumpyStep(Program(FEATURES, tuple(Node(op, (at,)) for at, op in enumerate(mixed)))))) == 3


def test_a_layer_whose_output_is_read_twice_is_still_the_same():
    rng = np.random.default_rng(0)
    below, above, beside = (cell("lstm", rng, width, 5) for width in (FEATURES, 5, 5))
    forked = NumpyStep(Program(FEATURES, (Node(below, (0,)), Node(above, (1,)), Node(beside, (1,)))))
    straight = NumpyStep(Program(FEATURES, (Node(below, (0,)), Node(beside, (1,)))))
    x, state = draw(rng, 6, FEATURES), draw(rng, 6, 30)
    y, after = forked.step(x, state)
    without = np.r_[0:10, 20:30]
    assert same((y, after[:, without]), straight.step(x, np.ascontiguousarray(state[:, without])))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_wave_too_wide_to_work_on_at_once_gives_each_row_its_own_bits(layers):
    step, rows = NumpyStep(stacked("lstm", layers)), TILE_ROWS * TOGETHER * 2 + 3
    rng = np.random.default_rng(0)
    waves = in_waves([3] * (rows - 200) + [1] * 200)
    x, start = draw(rng, waves.bounds[-1], FEATURES), draw(rng, rows, step.state_size)
    found = step.scan(x, start, waves)
    assert same(found, scan_waves(step, x, start, waves))
    alone = [step.step(x[row : row + 1], start[row : row + 1])[0] for row in range(rows)]
    assert same((found[0][:rows],), (np.concatenate(alone),))


def test_thin_waves_give_the_same_bits_on_fewer_rows_as_on_whole_tiles(monkeypatch):
    program = tiny_program(FEATURES, 2, units=64, layers=2)
    thin = NumpyStep(program)
    monkeypatch.setattr(Stack, "_agrees", lambda stack, rows: False)
    whole = NumpyStep(program)
    waves, rng = in_waves([9, 7, 7, 4, 2, 2, 1]), np.random.default_rng(0)
    x, start = draw(rng, waves.bounds[-1], FEATURES), draw(rng, 7, whole.state_size)
    assert same(thin.scan(x, start, waves), whole.scan(x, start, waves))


def test_fewer_rows_that_give_other_bits_are_not_taken_and_would_fail_the_self_test(monkeypatch):
    monkeypatch.setattr(stack, "THIN", (1,))  # BLAS multiplies one row by another function
    program = tiny_program(FEATURES, 2, units=64, layers=2)
    whole = NumpyStep(program, 2)
    assert slots_agree(whole)
    if parts(whole)[0]._thin:
        pytest.skip("one row and two give the same bits on this machine")
    monkeypatch.setattr(Stack, "_agrees", lambda stack, rows: True)
    assert not slots_agree(NumpyStep(program, 2))


@pytest.mark.parametrize("kind", CELLS)
def test_every_kind_of_stack_passes_the_self_test(kind):
    step = NumpyStep(stacked(kind, 3, units=16))
    assert slots_agree(step)
    check_scan(step)
