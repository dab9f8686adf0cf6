"""A Keras model as a list of layer calls, and how to run it: tick by tick, or a whole sequence at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's notices at start would bury our one line

import keras
import numpy as np

from daemon.core.step import F32
from daemon.errors import BundleError


@dataclass(frozen=True)
class LayerCall:
    """One layer at one place of the graph.

    Values are numbered as in `daemon.model.program`: 0 is the input, k + 1 the output of call k.
    """

    layer: Any
    inputs: tuple[int, ...]
    #: True where the layer sees (rows, time, width), false where it sees (rows, width).
    over_time: bool

    @property
    def name(self) -> str:
        return f"layer {self.layer.name} ({type(self.layer).__name__})"

    @property
    def cell(self) -> Any:
        """The cell of a recurrent layer, None for others."""
        return self.layer.cell if isinstance(self.layer, keras.layers.RNN) else None


@dataclass(frozen=True)
class Graph:
    """A model as layer calls; the last call's output is the model's."""

    model: Any
    n_features: int
    calls: tuple[LayerCall, ...]

    @property
    def state_widths(self) -> list[int]:
        """Widths of all state tensors, cell by cell."""
        return [width for call in self.calls if call.cell for width in keras.tree.flatten(call.cell.state_size)]


def run_tick(graph: Graph, x: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Advance every row by one tick.

    Parameters
    ----------
    x : tensor, shape (rows, n_features)
    states : tensors, shape (rows, width) for each of `Graph.state_widths`
    """
    values, remaining, after = [x], list(states), []
    for call in graph.calls:
        if call.cell is None:
            values.append(call_per_tick(call, [values[value] for value in call.inputs]))
            continue
        width = call.cell.state_size
        own = [remaining.pop(0) for _ in keras.tree.flatten(width)]
        packed = keras.tree.pack_sequence_as(width, own) if keras.tree.is_nested(width) else own
        y, next_state = call.cell(values[call.inputs[0]], packed, training=False)
        values.append(y)
        after += keras.tree.flatten(next_state)
    return values[-1], after


def run_sequence(graph: Graph, x: F32) -> F32:
    """Run one sequence from a reset through Keras' own layers, shape (ticks, n_features) to (ticks, n_outputs)."""
    values = [keras.ops.convert_to_tensor(x)]
    for call in graph.calls:
        inputs = [values[value] for value in call.inputs]
        if call.cell is None:
            values.append(call_per_tick(call, inputs))
        else:
            values.append(keras.layers.RNN(call.cell, return_sequences=True)(inputs[0][None], training=False)[0])
    return np.asarray(values[-1], np.float32)


def call_per_tick(call: LayerCall, inputs: Sequence[Any]) -> Any:
    """Call a layer without state on values of shape (rows, width), each row a tick of its own."""
    if call.over_time:
        inputs = [value[:, None] for value in inputs]
    y = call.layer(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
    if call.over_time:
        if y.shape[1] != 1:
            raise refusal(call.layer, "its weights differ from tick to tick")
        y = y[:, 0]
    return y


def refusal(layer: Any, reason: str) -> BundleError:
    """Return the error that a layer cannot stream."""
    return BundleError(f"layer {layer.name} ({type(layer).__name__}) cannot stream: {reason}")
