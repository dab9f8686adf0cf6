"""Keras models, read safely and taken apart: nested graphs become one list of layer calls that can stream.

A layer can stream when its output at a tick needs nothing but its input at that tick and, for a recurrent layer, the
state its cell carries. What cannot is refused by name. Layers that Keras does not vouch for (custom ones) are asked:
do they answer a tick alone as they do inside a sequence?

The one module that imports `keras`; it is imported by conversion and by the TensorFlow step only.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # its start-up notices would bury our one line

import keras
import numpy as np

from daemon.core.step import F32, Index
from daemon.errors import BundleError

#: Bound on a model file and on what unpacks from it: files are not trusted to be reasonable.
FILE_BYTES_MAX = 1024**3

#: Why a layer cannot stream, by class name of Keras' own layers.
_TIME = "it mixes ticks across time"
_ATTENTION = "it attends over time, and a tick alone has no other times to look at"
_CONVOLUTION = "it convolves over time, and a tick alone has no window"
REFUSED: dict[str, str] = {
    "Bidirectional": "it reads the sequence backwards too, from a future that has not happened",
    "Lambda": "it runs code from the file",
    "Masking": "it skips ticks by their values; leave such ticks out of the topic",
    "Embedding": "it takes category numbers, and features are real numbers",
    **dict.fromkeys(("Attention", "AdditiveAttention", "MultiHeadAttention", "GroupQueryAttention"), _ATTENTION),
    **dict.fromkeys(("RepeatVector", "Reshape", "Permute", "Cropping1D", "ZeroPadding1D", "UpSampling1D"), _TIME),
}
_REFUSED_PATTERNS = ((re.compile(r"Conv"), _CONVOLUTION), (re.compile(r"Pooling"), "it pools over time"))


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


def load_keras(file: Path) -> Any:
    """Load a `.keras` or `.h5` model without running code from it.

    Raises
    ------
    BundleError : if it is no model, too large, or holds code
    """
    if file.suffix not in (".keras", ".h5", ".hdf5"):
        raise BundleError(f"{file}: expected a .keras or .h5 model file")
    try:
        _check_size(file)
        return keras.saving.load_model(file, compile=False)
    # Keras raises whatever its readers raise: ValueError, TypeError, KeyError, OSError, BadZipFile ...
    except Exception as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"cannot load {file}: {_first_line(error)}") from error


def take_apart(model: Any) -> Graph:
    """Flatten a Sequential or Functional model, nested ones included, into calls of layers that can stream.

    Raises
    ------
    BundleError : names the layer that cannot, and why
    """
    _check_model(model)
    shape = model.inputs[0].shape
    if len(shape) not in (2, 3) or shape[-1] is None:
        raise BundleError(
            f"model {model.name} takes inputs of shape {tuple(shape)}, expected (batch, time, features) with a fixed "
            "number of features"
        )
    walk = _Walk()
    walk.model(model, _Value(0, len(shape) == 3))
    if not walk.calls:
        raise BundleError(f"model {model.name} has no layers")
    return Graph(model, int(shape[-1]), tuple(walk.calls))


def architecture(model: Any) -> dict[str, Any]:
    """Return Keras' own description of a model, JSON-ready, without what only training needs."""
    description: dict[str, Any] = json.loads(model.to_json())
    description.pop("compile_config", None)
    return description


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
            values.append(_call_per_tick(call, [values[value] for value in call.inputs]))
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
            values.append(_call_per_tick(call, inputs))
        else:
            values.append(keras.layers.RNN(call.cell, return_sequences=True)(inputs[0][None], training=False)[0])
    return np.asarray(values[-1], np.float32)


def run_model(graph: Graph, x: F32) -> tuple[F32, Index]:
    """Ask the model itself, as it is, for its answer to the beginning of a sequence from a reset.

    Returns
    -------
    y : float32 array, shape (answers, n_outputs)
    ticks : which ticks of `x` they answer: all that fit the model's time dimension, or only their last
    """
    shape = graph.model.inputs[0].shape
    if len(shape) == 2:
        return np.asarray(graph.model(x, training=False), np.float32), np.arange(len(x))
    steps = min(shape[1] or 32, len(x))
    batch = np.repeat(x[np.newaxis, :steps], shape[0] or 1, axis=0)
    variables = [
        variable
        for call in graph.calls
        if call.cell and call.layer.stateful
        for variable in keras.tree.flatten(call.layer.states)
    ]
    kept = [np.asarray(variable) for variable in variables]
    for variable in variables:
        variable.assign(np.zeros(variable.shape, np.float32))
    try:
        y = np.asarray(graph.model(batch, training=False), np.float32)[0]
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
    return (y, np.arange(steps)) if y.ndim == 2 else (y[np.newaxis], np.array([steps - 1]))


def refusal(layer: Any, reason: str) -> BundleError:
    """Return the error that a layer cannot stream."""
    return BundleError(f"layer {layer.name} ({type(layer).__name__}) cannot stream: {reason}")


@dataclass(frozen=True)
class _Value:
    """The number of a value, and whether it has a time dimension in the Keras model."""

    number: int
    over_time: bool


class _Walk:
    """Collects layer calls in the order in which their inputs become known."""

    def __init__(self) -> None:
        self.calls: list[LayerCall] = []
        self._recurrent: set[int] = set()

    def model(self, model: Any, value: _Value) -> _Value:
        _check_model(model)
        if isinstance(model, keras.Sequential):
            for layer in model.layers:
                value = self.layer(layer, [value])
            return value
        return self._functional(model, value)

    def _functional(self, model: Any, value: _Value) -> _Value:
        values = {id(model.inputs[0]): value}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                _check_node(node)
                inputs = [values[id(tensor)] for tensor in node.input_tensors]
                values[id(node.output_tensors[0])] = self.layer(node.operation, inputs)
        return values[id(model.outputs[0])]

    def layer(self, layer: Any, inputs: list[_Value]) -> _Value:
        if isinstance(layer, keras.Model):
            return self.model(layer, inputs[0])
        if isinstance(layer, keras.layers.TimeDistributed):
            return self._time_distributed(layer, inputs)
        over_time = inputs[0].over_time
        _check_layer(layer, over_time)
        if any(value.over_time != over_time for value in inputs):
            raise refusal(layer, "it joins values with and without a time dimension")
        call = LayerCall(layer, tuple(value.number for value in inputs), over_time)
        if call.cell is not None:
            if id(layer) in self._recurrent:
                raise refusal(layer, "it stands at two places, and each would need a state of its own")
            self._recurrent.add(id(layer))
            over_time = layer.return_sequences
        elif not _is_keras(type(layer)):
            _ask_per_tick(call)
        self.calls.append(call)
        return _Value(len(self.calls), over_time)

    def _time_distributed(self, wrapper: Any, inputs: list[_Value]) -> _Value:
        if isinstance(wrapper.layer, (keras.Model, keras.layers.RNN)):
            raise refusal(wrapper, "a model or recurrent layer inside it sees another time dimension")
        inner = self.layer(wrapper.layer, [_Value(value.number, over_time=False) for value in inputs])
        return _Value(inner.number, over_time=True)


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise BundleError(f"{type(model).__name__} is no Keras model")
    if not (_is_keras(type(model)) and isinstance(model, (keras.Sequential, keras.src.models.functional.Functional))):
        raise BundleError(f"model {model.name} ({type(model).__name__}) is subclassed code; rebuild it as Functional")
    if not model.built or not model.inputs:
        raise BundleError(f"model {model.name} has no input shape; build it with keras.Input and save it again")
    for what, tensors in (("inputs", model.inputs), ("outputs", model.outputs)):
        if len(tensors) != 1:
            raise BundleError(f"model {model.name} has {len(tensors)} {what}; one is supported, concatenate them")


def _check_node(node: Any) -> None:
    operation = node.operation
    if not isinstance(operation, keras.Layer):
        raise BundleError(
            f"operation {operation.name} ({type(operation).__name__}) stands outside a layer; use a layer for it"
        )
    if len(node.output_tensors) != 1:
        raise refusal(operation, "it returns several values; drop return_state")
    arguments, options = node.arguments.args, node.arguments.kwargs
    first = keras.tree.flatten(arguments[:1])
    if len(first) != len(node.input_tensors):
        raise refusal(operation, "it takes tensors besides its input, such as an initial state or a mask")
    if options.get("training"):
        raise refusal(operation, "it is called in training mode, which draws random numbers")


def _check_layer(layer: Any, over_time: bool) -> None:
    kind = type(layer)
    if isinstance(layer, keras.layers.RNN):
        _check_recurrent(layer, over_time)
    elif not _is_keras(kind):
        if keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is not kind:
            raise refusal(layer, "it is custom code; register it with keras.saving.register_keras_serializable")
    elif kind.__name__ in REFUSED:
        raise refusal(layer, REFUSED[kind.__name__])
    elif kind.__name__ == "Flatten" and over_time:
        raise refusal(layer, _TIME)
    else:
        for pattern, reason in _REFUSED_PATTERNS:
            if pattern.search(kind.__name__):
                raise refusal(layer, reason)
    _check_axes(layer, over_time)


def _check_recurrent(layer: Any, over_time: bool) -> None:
    if not over_time:
        raise refusal(layer, "its input has no time dimension")
    if layer.go_backwards:
        raise refusal(layer, "go_backwards reads the sequence from its end")
    if layer.return_state:
        raise refusal(layer, "it returns its state; drop return_state")
    if getattr(layer, "time_major", False):
        raise refusal(layer, "time_major puts time before the batch")
    if not _is_keras(type(layer)) or "Conv" in type(layer).__name__:
        raise refusal(layer, "only Keras' own RNN, LSTM, GRU and SimpleRNN carry a state we know")
    cells = getattr(layer.cell, "cells", [layer.cell])
    for cell in cells:
        kind = type(cell)
        if (
            not _is_keras(kind)
            and keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is not kind
        ):
            raise refusal(layer, f"its cell {kind.__name__} is custom code that is not registered")


def _check_axes(layer: Any, over_time: bool) -> None:
    """Refuse layers that normalise or join along any axis but the last."""
    axis = getattr(layer, "axis", None)
    if axis is None or not _is_keras(type(layer)):
        return
    rank = 3 if over_time else 2
    axes = {one % rank for one in keras.tree.flatten(axis)}
    if axes - {rank - 1}:
        raise refusal(layer, f"axis {axis} reaches beyond the features of one tick")


def _ask_per_tick(call: LayerCall) -> None:
    """Refuse a custom layer that does not answer a tick alone as it does inside a sequence, or not twice the same."""
    layer = call.layer
    if not call.over_time:
        return
    try:
        shape = layer.input.shape if len(call.inputs) == 1 else layer.input[0].shape
        x = np.random.default_rng(0).standard_normal((2, shape[1] or 6, shape[-1])).astype(np.float32)
        inputs = [x] * len(call.inputs)
        whole = np.asarray(layer(inputs if len(inputs) > 1 else x, training=False))
        alone = np.stack(
            [np.asarray(_call_per_tick(call, [value[:, tick] for value in inputs])) for tick in range(x.shape[1])],
            axis=1,
        )
    except Exception as error:  # whatever custom code raises
        raise refusal(layer, f"it fails on a tick alone: {_first_line(error)}") from error
    if whole.shape != alone.shape or not np.allclose(whole, alone, rtol=1e-5, atol=1e-5):
        raise refusal(layer, "it answers a tick alone otherwise than inside a sequence")


def _call_per_tick(call: LayerCall, inputs: Sequence[Any]) -> Any:
    """Call a layer without state on values of shape (rows, width), each row a tick of its own."""
    if call.over_time:
        inputs = [value[:, None] for value in inputs]
    y = call.layer(list(inputs) if len(inputs) > 1 else inputs[0], training=False)
    if call.over_time:
        if y.shape[1] != 1:
            raise refusal(call.layer, "its weights differ from tick to tick")
        y = y[:, 0]
    return y


def _is_keras(kind: type) -> bool:
    return kind.__module__.startswith("keras.src.")


def _check_size(file: Path) -> None:
    if not file.is_file():
        raise BundleError(f"no model file at {file}")
    size = file.stat().st_size
    if file.suffix == ".keras":
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
    if size > FILE_BYTES_MAX:
        raise BundleError(f"{file} holds more than {FILE_BYTES_MAX} bytes; no model of ticks is that large")


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
