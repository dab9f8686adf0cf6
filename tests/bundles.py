"""Small bundles for tests, written without TensorFlow.

The golden outputs come from a plain float64 loop below, not from the step they judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daemon.core.spec import Column, Output
from daemon.model.bundle import Bundle, write_bundle
from daemon.model.manifest import Manifest
from daemon.model.ops import Dense, Lstm
from daemon.model.program import Node, Program

COLUMNS = (Column("return", "running", std=1e-4), Column("spread", "running", std=1e-4), Column("imbalance", std=0.5))
OUTPUTS = (
    Output(1, volatile=True, residual_variance=0.9, residual_quantiles=((0.05, -1.5), (0.5, 0.0), (0.95, 1.5))),
    Output(10, volatile=True, residual_variance=9.0, residual_quantiles=((0.05, -5.0), (0.5, 0.0), (0.95, 5.0))),
)


def tiny_program(n_features: int, n_outputs: int, *, units: int = 8, layers: int = 1, seed: int = 0) -> Program:
    """Return stacked LSTMs with a dense head, weights drawn from a seed."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[-2] if len(shape) > 1 else 4)).astype(np.float32)

    nodes, width = [], n_features
    for layer in range(layers):
        lstm = Lstm(draw(4, width, units), draw(4, units, units), draw(4, units))
        nodes.append(Node(lstm, (layer,)))
        width = units
    nodes.append(Node(Dense(draw(units, n_outputs), draw(n_outputs)), (layers,)))
    return Program(n_features, tuple(nodes))


def tiny_bundle(
    tmp_path: Path,
    *,
    units: int = 8,
    layers: int = 1,
    columns: Sequence[Column] = COLUMNS,
    outputs: Sequence[Output] = OUTPUTS,
    seed: int = 0,
    name: str = "bundle",
    **manifest: Any,
) -> Bundle:
    """Write a valid bundle of stacked LSTMs to ``tmp_path / name``; `manifest` adds to its manifest."""
    program = tiny_program(len(columns), len(outputs), units=units, layers=layers, seed=seed)
    given = {"columns": tuple(columns), "outputs": tuple(outputs), "golden_steps": 64, "validation_variance": 0.1}
    made = Manifest(**given | manifest)
    inputs = np.random.default_rng(seed + 1).standard_normal((64, len(columns))).astype(np.float32)
    if made.mode == "carried":
        golden = reference_outputs(program, inputs)
    else:
        windows = [inputs[max(0, end - made.steps) : end] for end in range(1, 65)]
        golden = np.array([reference_outputs(program, window)[-1] for window in windows])
    return write_bundle(tmp_path / name, made, program, inputs, golden)


def reference_outputs(program: Program, inputs: np.ndarray) -> np.ndarray:
    """Run stacked LSTMs and a dense head tick by tick in float64."""
    values = inputs.astype(np.float64)
    for node in program.nodes:
        op = node.op
        values = _lstm(op, values) if isinstance(op, Lstm) else values @ op.kernel.astype(float) + op.bias
    return values.astype(np.float32)


def _lstm(op: Lstm, xs: np.ndarray) -> np.ndarray:
    units = op.bias.shape[-1]
    h, c, outputs = np.zeros(units), np.zeros(units), []
    for x in xs:
        z = np.einsum("f,gfu->gu", x, op.kernel.astype(float)) + np.einsum("f,gfu->gu", h, op.recurrent.astype(float))
        i, f, o = 1 / (1 + np.exp(-(z + op.bias)[:3]))
        c = f * c + i * np.tanh((z + op.bias)[3])
        h = o * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)
