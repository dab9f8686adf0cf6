"""Keras models, read safely and taken apart: nested graphs become one list of layer calls that can stream.

This module, `keras_graph` and `keras_rules` import `keras`; only conversion and the TensorFlow step import them.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from daemon.errors import BundleError
from daemon.model import keras_legacy
from daemon.model.keras_graph import Graph, LayerCall, refusal
from daemon.model.keras_rules import ask_per_tick, check_layer, check_model, check_node, first_line, is_keras

#: Bound on a model file and on what unpacks from it: files are not trusted to be reasonable.
FILE_BYTES_MAX = 1024**3


def load_keras(file: Path) -> Any:
    """Load a `.keras` or `.h5` model without running code from it; `.h5` may come from Keras 2.

    Raises
    ------
    BundleError : if it is no model, too large, or holds code
    """
    if file.suffix not in (".keras", ".h5", ".hdf5"):
        raise BundleError(f"{file}: expected a .keras or .h5 model file")
    try:
        _check_size(file)
        return _load_keras_file(file) if file.suffix == ".keras" else _load_h5(file)
    # Keras raises whatever its readers raise: ValueError, TypeError, KeyError, OSError, BadZipFile ...
    except Exception as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"cannot load {file}: {first_line(error)}") from error


def take_apart(model: Any) -> Graph:
    """Flatten a Sequential or Functional model, nested ones included, into calls of layers that can stream.

    Raises
    ------
    BundleError : names the layer that cannot, and why
    """
    check_model(model)
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
        check_model(model)
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
                check_node(node)
                inputs = [values[id(tensor)] for tensor in node.input_tensors]
                values[id(node.output_tensors[0])] = self.layer(node.operation, inputs)
        return values[id(model.outputs[0])]

    def layer(self, layer: Any, inputs: list[_Value]) -> _Value:
        if isinstance(layer, keras.Model):
            return self.model(layer, inputs[0])
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
        return _Value(len(self.calls), over_time)

    def _time_distributed(self, wrapper: Any, inputs: list[_Value]) -> _Value:
        if isinstance(wrapper.layer, (keras.Model, keras.layers.RNN)):
            raise refusal(wrapper, "a model or recurrent layer inside it sees another time dimension")
        inner = self.layer(wrapper.layer, [_Value(value.number, over_time=False) for value in inputs])
        return _Value(inner.number, over_time=True)


def _load_keras_file(file: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in archive.namelist() else {}
    version = str(metadata.get("keras_version", "3"))
    if version.startswith(("1.", "2.")):
        raise BundleError(
            f"cannot load {file}: Keras {version} wrote it; save it as .h5 there, with model.save('model.h5')"
        )
    return keras.saving.load_model(file, compile=False, safe_mode=True)


def _load_h5(file: Path) -> Any:
    try:
        header = keras_legacy.read_header(file)
        if header.is_legacy:
            return keras_legacy.load_legacy(file, header.spec)
    except BundleError as error:
        raise BundleError(f"cannot load {file}: {error}") from error
    return keras.saving.load_model(file, compile=False, safe_mode=True)


def _check_size(file: Path) -> None:
    if not file.is_file():
        raise BundleError(f"no model file at {file}")
    size = file.stat().st_size
    if file.suffix == ".keras":
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
    if size > FILE_BYTES_MAX:
        raise BundleError(f"{file} holds more than {FILE_BYTES_MAX} bytes; no model of ticks is that large")
