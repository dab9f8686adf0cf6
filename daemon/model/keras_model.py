"""Keras models, read safely and taken apart: nested graphs become one list of layer calls that can stream.

This module and the other `keras_*` import `keras`; only conversion and the TensorFlow step import them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras

from daemon.errors import BundleError
from daemon.model.keras2_graph import build
from daemon.model.keras2_weights import fill
from daemon.model.keras_description import Spec, check_total
from daemon.model.keras_files import read_header
from daemon.model.keras_graph import Graph, LayerCall, refusal
from daemon.model.keras_hdf5 import member, opened
from daemon.model.keras_join import joined
from daemon.model.keras_rules import ask_per_tick, check_layer, check_model, check_node, first_line, is_keras


def load_keras(file: Path) -> Any:
    """Load a `.keras` or `.h5` model without running code from it; `.h5` may come from Keras 2.

    Raises
    ------
    BundleError : if it is no model, too large, or holds code
    """
    if not file.exists():
        raise BundleError(f"no model file at {file}")
    try:
        header = read_header(file)
        if header.is_legacy:
            return _load_keras2(file, header.spec)
        model = keras.saving.load_model(file, compile=False, safe_mode=True)
        check_total(model)
        return model
    # Keras and h5py raise whatever they like: ValueError, TypeError, KeyError, OSError, RecursionError ...
    except Exception as error:
        raise BundleError(f"cannot load {file}: {first_line(error)}") from error


def _load_keras2(file: Path, spec: Spec) -> Any:
    model = build(spec)
    with opened(file) as archive:
        fill(model, member(archive, "model_weights", h5py.Group))
    return model.layer


def take_apart(model: Any) -> Graph:
    """Flatten a Sequential or Functional model, nested ones included, into calls of layers that can stream.

    Several inputs become the columns of one, several outputs likewise: `Graph.model` is then a model around the given.

    Raises
    ------
    BundleError : names the layer that cannot, and why
    """
    check_model(model)
    model = joined(model)
    shape = model.inputs[0].shape
    walk = _Walk()
    walk.model(model, [_Value(0, len(shape) == 3)])
    if not walk.calls:
        raise BundleError(f"model {model.name} has no layers")
    return Graph(model, int(shape[-1]), tuple(walk.calls))


def architecture(model: Any) -> dict[str, Any]:
    """Return Keras' own description of a model, JSON-ready, without what only training needs."""
    description: dict[str, Any] = json.loads(model.to_json())
    description.pop("compile_config", None)
    return description


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

    def model(self, model: Any, inputs: Sequence[_Value]) -> list[_Value]:
        check_model(model)
        if isinstance(model, keras.Sequential):
            for layer in model.layers:
                inputs = self.layer(layer, inputs)
            return list(inputs)
        return self._functional(model, inputs)

    def _functional(self, model: Any, inputs: Sequence[_Value]) -> list[_Value]:
        values = {id(tensor): value for tensor, value in zip(model.inputs, inputs, strict=True)}
        for depth in sorted(model._nodes_by_depth, reverse=True):
            for node in model._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                check_node(node)
                outputs = self.layer(node.operation, [values[id(tensor)] for tensor in node.input_tensors])
                values |= {id(tensor): value for tensor, value in zip(node.output_tensors, outputs, strict=True)}
        return [values[id(tensor)] for tensor in model.outputs]

    def layer(self, layer: Any, inputs: Sequence[_Value]) -> list[_Value]:
        if isinstance(layer, keras.Model):
            return self.model(layer, inputs)
        if isinstance(layer, keras.layers.TimeDistributed):
            return self._time_distributed(layer, inputs)
        over_time = inputs[0].over_time
        check_layer(layer, over_time)
        if any(value.over_time != over_time for value in inputs):
            raise refusal(layer, "it joins values with and without a time dimension")
        call = LayerCall(layer, tuple(value.number for value in inputs), over_time)
        if call.cell is not None:
            if id(layer) in self._recurrent:
                raise refusal(layer, "it stands at two places, and each would need a state of its own")
            self._recurrent.add(id(layer))
            over_time = layer.return_sequences
        elif not is_keras(type(layer)):
            ask_per_tick(call)
        self.calls.append(call)
        return [_Value(len(self.calls), over_time)]

    def _time_distributed(self, wrapper: Any, inputs: Sequence[_Value]) -> list[_Value]:
        if isinstance(wrapper.layer, (keras.Model, keras.layers.RNN)):
            raise refusal(wrapper, "a model or recurrent layer inside it sees another time dimension")
        inner = self.layer(wrapper.layer, [_Value(value.number, over_time=False) for value in inputs])
        return [_Value(value.number, over_time=True) for value in inner]
