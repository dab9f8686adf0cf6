"""The numpy step: one function of row and state, however waves are cut, whatever else it computed before."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.step import Waves, scan_waves
from daemon.model.activations import ACTIVATIONS
from daemon.model.numpy_step import NumpyStep
from daemon.model.ops import Activation, Add, Concatenate, Dense, Gru, LayerNorm, Lstm, Multiply, Rescale, SimpleRnn
from daemon.model.program import Node, Program
from tests.bundles import reference_outputs, tiny_program

FEATURES = 3


def draw(rng, *shape):
    return (rng.standard_normal(shape) * 0.4).astype(np.float32)


def cell(kind, rng, width, units):
    if kind == "lstm":
        return Lstm(draw(rng, 4, width, units), draw(rng, 4, units, units), draw(rng, 4, units))
    if kind == "lstm of relu":
        return dataclasses.replace(cell("lstm", rng, width, units), activation="relu")
    if kind == "simple":
        return SimpleRnn(draw(rng, 1, width, units), draw(rng, 1, units, units), draw(rng, 1, units))
    weights = draw(rng, 3, width, units), draw(rng, 3, units, units), draw(rng, 3, units), draw(rng, 3, units)
    return Gru(*weights, reset_after=kind == "gru")


CELLS = ("lstm", "lstm of relu", "gru", "gru reset first", "simple")


def every_operation(seed=0, kinds=CELLS[:2], units=5):
    """Return a program in which every kind of operation reads a recurrent value, and branches join again."""
    rng = np.random.default_rng(seed)
    nodes = [Node(Rescale(draw(rng, FEATURES), draw(rng, FEATURES), draw(rng, FEATURES)), (0,))]
    width = FEATURES
    for kind in kinds:
        nodes.append(Node(cell(kind, rng, width, units), (len(nodes),)))
        width = units
    last = len(nodes)
    nodes += [
        Node(LayerNorm(draw(rng, units), draw(rng, units)), (last,)),
        Node(Activation("softmax"), (last,)),
        Node(Add(), (last + 1, last + 2)),
        Node(Multiply(), (last, last + 2)),
        Node(Concatenate(), (last + 3, last + 4, 0)),
        Node(Dense(draw(rng, 2 * units + FEATURES, 2), draw(rng, 2), "softplus"), (last + 5,)),
    ]
    return Program(FEATURES, tuple(nodes))


def in_waves(lengths):
    """Return the waves of chains of these lengths, the longest first."""
    assert lengths == sorted(lengths, reverse=True)
    bounds, last = [0], [0] * len(lengths)
    while any(length > len(bounds) - 1 for length in lengths):
        alive = [chain for chain, length in enumerate(lengths) if length > len(bounds) - 1]
        for chain in alive:
            last[chain] = bounds[-1] + chain
        bounds.append(bounds[-1] + len(alive))
    return Waves(tuple(bounds), np.array(last, np.intp))


def same(a, b):
    return all(
        x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


@given(
    kinds=st.lists(st.sampled_from(CELLS), min_size=1, max_size=3),
    tile_rows=st.sampled_from((1, 2, 4, 8)),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=20).map(lambda each: sorted(each, reverse=True)),
    seed=st.integers(0, 2**16),
)
def test_scan_gives_the_bits_of_one_step_per_wave(kinds, tile_rows, lengths, seed):
    step = NumpyStep(every_operation(seed, kinds), tile_rows)
    waves = in_waves(lengths)
    rng = np.random.default_rng(seed)
    x, start = draw(rng, sum(lengths), FEATURES), draw(rng, len(lengths), step.state_size)
    assert same(step.scan(x, start, waves), scan_waves(step, x, start, waves))


@given(
    kinds=st.lists(st.sampled_from(CELLS), min_size=1, max_size=2), rows=st.integers(1, 40), seed=st.integers(0, 2**16)
)
def test_a_row_gets_the_same_bits_alone_and_in_company(kinds, rows, seed):
    step = NumpyStep(every_operation(seed, kinds))
    rng = np.random.default_rng(seed)
    x, state = draw(rng, rows, FEATURES), draw(rng, rows, step.state_size)
    together = step.step(x, state)
    alone = [step.step(x[row : row + 1], state[row : row + 1]) for row in range(rows)]
    assert same(together, [np.concatenate(part) for part in zip(*alone, strict=True)])


def test_stacked_lstm_agrees_with_a_float64_loop():
    program = tiny_program(FEATURES, 2, units=16, layers=2)
    step, state = NumpyStep(program), np.zeros((1, 64), np.float32)
    inputs = np.random.default_rng(1).standard_normal((300, FEATURES)).astype(np.float32)
    outputs = []
    for row in inputs:
        y, state = step.step(row[np.newaxis], state)
        outputs.append(y[0])
    np.testing.assert_allclose(outputs, reference_outputs(program, inputs), rtol=0, atol=1e-6)


def test_arguments_are_not_written_and_results_stay_when_the_step_goes_on():
    step = NumpyStep(every_operation())
    rng = np.random.default_rng(0)
    x, state = draw(rng, 9, FEATURES), draw(rng, 9, step.state_size)
    x.flags.writeable = state.flags.writeable = False
    first = step.step(x, state)
    kept = [part.copy() for part in first]
    step.step(x[::-1], state[::-1] * 2)
    assert same(first, kept)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_told_and_harms_no_neighbour(poison):
    step = NumpyStep(every_operation(), tile_rows=4)
    rng = np.random.default_rng(0)
    x, start = draw(rng, 12, FEATURES), draw(rng, 6, step.state_size)
    waves = in_waves([2] * 6)
    clean, clean_final, finite = step.scan(x, start, waves)
    assert finite.all()
    x[1, 0] = poison
    y, final, finite = step.scan(x, start, waves)
    assert not finite[1]
    others = np.arange(12) % 6 != 1
    assert finite[others].all()
    assert same((y[others], final[others[:6]]), (clean[others], clean_final[others[:6]]))


def test_a_state_that_is_not_finite_behind_finite_outputs_is_told():
    program = tiny_program(FEATURES, 2, units=4)
    step = NumpyStep(program)
    state = np.zeros((1, 8), np.float32)
    state[0, 4:] = np.inf  # the cell is infinite, its tanh is 1
    _, _, finite = step.scan(np.zeros((1, FEATURES), np.float32), state, in_waves([1]))
    assert not finite[0]


def test_huge_inputs_raise_no_warning(recwarn):
    step = NumpyStep(every_operation())
    step.step(np.full((3, FEATURES), 3e38, np.float32), np.full((3, step.state_size), 3e38, np.float32))
    assert not recwarn.list


def test_no_rows_give_no_rows():
    step = NumpyStep(every_operation())
    y, after = step.step(np.zeros((0, FEATURES), np.float32), np.zeros((0, step.state_size), np.float32))
    assert y.shape == (0, 2)
    assert after.shape == (0, step.state_size)


def test_a_model_without_recurrent_layers_runs():
    rng = np.random.default_rng(0)
    step = NumpyStep(Program(FEATURES, (Node(Dense(draw(rng, FEATURES, 2), draw(rng, 2)), (0,)),)))
    y, after = step.step(np.ones((5, FEATURES), np.float32), np.zeros((5, 0), np.float32))
    assert y.shape == (5, 2)
    assert after.shape == (5, 0)


EXACT = {
    "linear": lambda x: x,
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hard_sigmoid_keras2": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "exponential": np.exp,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "softmax": lambda x: (
        np.exp(x - x.max(-1, keepdims=True)) / np.exp(x - x.max(-1, keepdims=True)).sum(-1, keepdims=True)
    ),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_agrees_with_its_definition(name):
    x = np.linspace(-30, 30, 601).astype(np.float32).reshape(-1, 1).repeat(3, axis=1) * np.float32([1, 0.5, 0])
    y = x.copy()
    ACTIVATIONS[name](y)
    np.testing.assert_allclose(y, EXACT[name](x.astype(np.float64)), rtol=2e-6, atol=1e-6)
