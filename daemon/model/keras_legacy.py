"""Model files of Keras 2: an `.h5` file, read by our own rules into a model of Keras 3.

The file holds the model's description as JSON (`model_config`) and its weights as arrays, layer by layer. Keras 3
stumbles over words of that JSON it has forgotten, and it pairs weights with layers by their order in the graph. So the
description, a copy in memory, is put into words of Keras 3, the model is built from it layer by layer, and each weight
finds its place by the name of its layer and the order of the description, which is the order in which Keras 2 wrote.

- The file is only read, and nothing in it is run: classes are layers of Keras or registered by the caller, functions
  come by name, and modules named in the file are ignored. A Lambda ends the reading before anything is built.
- A weight goes only where its name and shape fit, every weight has a place, and every place gets its weight.
- Memory is bounded: by the file's size, the description's length, and the size of each layer before it is built.
- What only training reads (initializers, regularizers, constraints, the optimizer) is left out.
- The numbers are those of Keras 2, also where a name changed its meaning: see `hard_sigmoid`.

Refusals are one line and do not name the file; `daemon.model.keras_model.load_keras` puts its name before them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from daemon.errors import BundleError
from daemon.model.keras_rules import first_line, is_keras

#: Bound on the description: Keras writes 1 to 2 kB for a layer, so this is a thousand layers and more.
CONFIG_BYTES_MAX = 4 * 1024**2
#: Bound on the weights, of one layer before it is built and of all layers: no model of ticks is that large.
WEIGHTS_BYTES_MAX = 1024**3
#: Bound on batch, window and number of features welded into a model.
_SHAPE_MAX = 1_000_000

_MODELS = ("Sequential", "Functional", "Model")
#: Words of Keras 2 that Keras 3 does not know. `implementation` and `unroll` choose among ways to the same numbers.
_FORGOTTEN = (
    "batch_input_shape", "input_shape", "input_dim", "input_length", "time_major", "implementation", "unroll", "ragged",
    "fused", "renorm", "virtual_batch_size", "experimental_autocast", "autocast",
)  # fmt: skip
_CODE = {
    "Lambda": "is a Lambda: it runs code from the file",
    "__lambda__": "holds a lambda: it runs code from the file",
    **dict.fromkeys(("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"), "is an operation outside a layer"),
}
_TRAINING = ("_initializer", "_regularizer", "_constraint")
#: Words that set the size of a layer's weights.
_SIZES = ("units", "filters", "output_dim", "key_dim", "value_dim", "num_heads")

Spec = dict[str, Any]


def hard_sigmoid(x: Any) -> Any:
    """Compute max(0, min(1, 0.2 x + 0.5)), the hard sigmoid of Keras 2.

    Notes
    -----
    Keras 3 gives the name to relu6(x + 3) / 6, up to 0.08 away: with it, an LSTM of early Keras 2, whose gates have
    this activation by default, would load and forecast other numbers. It is registered with Keras, so that bundles
    can keep it.
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


keras.saving.register_keras_serializable(package="tickcast", name="keras2_hard_sigmoid")(hard_sigmoid)


@dataclass(frozen=True)
class Header:
    """What an `.h5` file says about its model."""

    keras_version: str
    #: The description as in the file; nobody changes it.
    spec: Spec

    @property
    def is_legacy(self) -> bool:
        return int(self.keras_version.partition(".")[0]) < 3


def read_header(file: Path) -> Header:
    """Read version and description of the model in an `.h5` file, and look for code in it.

    Raises
    ------
    BundleError : if it is no complete HDF5 file, holds weights only, a description too large, or a Lambda
    """
    with _open(file) as archive:
        spec = _description(archive)
        version = _text(archive.attrs.get("keras_version", "2"))
    if not re.match(r"\d+(\.|$)", version):
        raise BundleError(f"keras_version is {version[:40]!r}, no version; {_SAVE_AGAIN}")
    _refuse_code(spec, "the model")
    return Header(version, spec)


def load_legacy(file: Path, spec: Spec) -> Any:
    """Build the model that `spec` describes in words of Keras 2, with the weights in `file`.

    Raises
    ------
    BundleError : names the layer that Keras 3 cannot have, or whose weights do not fit
    """
    with _open(file) as archive:
        if "model_weights" not in archive:
            raise BundleError(f"it has no model_weights; {_SAVE_AGAIN}")
        group = _hard(archive, "model_weights", h5py.Group)
        builder = _Builder()
        model = builder.model(spec, None)
        builder.load(group, model)
    return model


# ---- the file

_SAVE_AGAIN = "save the whole model again with model.save('model.h5')"


def _open(file: Path) -> h5py.File:
    if not h5py.is_hdf5(file):
        raise BundleError(f"it is no HDF5 file, damaged or of another format; {_SAVE_AGAIN}")
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise BundleError(f"the HDF5 file is cut short or damaged ({first_line(error)}); copy it again") from error


def _description(archive: h5py.File) -> Spec:
    if "model_config" not in archive.attrs:
        raise BundleError(f"no model_config in it: it holds weights without a model; {_SAVE_AGAIN}")
    text = _text(archive.attrs["model_config"])
    if len(text) > CONFIG_BYTES_MAX:
        raise BundleError(f"model_config is larger than {CONFIG_BYTES_MAX} bytes; no model of ticks has so many layers")
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"model_config is damaged ({first_line(error)}); {_SAVE_AGAIN}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("config"), (dict, list)):
        raise BundleError(f"model_config describes no model; {_SAVE_AGAIN}")
    return spec


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _hard(group: h5py.Group, path: str, kind: type) -> Any:
    """Follow a path inside the file; links may lead to any file of this machine, and Keras writes none."""
    for part in path.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise BundleError(f"it has no {path}, or only a link; {_SAVE_AGAIN}")
        group = group[part]
    if not isinstance(group, kind):
        raise BundleError(f"{path} in it is of another kind; {_SAVE_AGAIN}")
    return group


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Read a list of names; Keras cuts one that is too long for HDF5 into numbered pieces."""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    pieces = itertools.takewhile(group.attrs.__contains__, (f"{attribute}{piece}" for piece in itertools.count()))
    return [_text(name) for piece in pieces for name in group.attrs[piece]]


# ---- the description, from words of Keras 2 into words of Keras 3


def _label(spec: Spec) -> str:
    config = spec.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return f"layer {str(name or spec.get('name') or '?')[:80]} ({str(spec.get('class_name'))[:80]})"


def _refuse_code(value: Any, label: str) -> None:
    """Refuse code wherever it hides in a description: Lambda layers, and lambdas given as activation or argument."""
    if isinstance(value, list):
        for item in value:
            _refuse_code(item, label)
    elif isinstance(value, dict):
        if "class_name" in value and isinstance(value.get("config"), dict):
            label = _label(value) if "name" in value["config"] else label
        if (what := _CODE.get(str(value.get("class_name")))) is not None:
            raise BundleError(f"{label} {what}; put a layer of Keras, or a registered one, in its place")
        for item in value.values():
            _refuse_code(item, label)


def _children(spec: Spec) -> list[Spec]:
    """Return the layers of a model; before Keras 2.2.3 the config of a Sequential was the list itself."""
    config = spec["config"]
    layers = config if isinstance(config, list) else config.get("layers")
    if not isinstance(layers, list) or not all(
        isinstance(layer, dict) and isinstance(layer.get("config"), (dict, list)) for layer in layers
    ):
        raise BundleError(f"{_label(spec)} in model_config has no list of layers; {_SAVE_AGAIN}")
    return list(layers)


def _name(spec: Spec) -> str:
    config = spec["config"]
    name = spec.get("name") or (config.get("name") if isinstance(config, dict) else None)
    if not isinstance(name, str):
        raise BundleError(f"{_label(spec)} in model_config has no name; {_SAVE_AGAIN}")
    return name


def _welded_shape(spec: Spec) -> tuple[int | None, ...] | None:
    """Return the input shape, batch included, that a layer or the first layer of a Sequential declares."""
    config = spec["config"]
    if spec.get("class_name") == "Sequential":
        layers = _children(spec)
        found = _welded_shape(layers[0]) if layers else None
        return found or (_shape(config.get("build_input_shape"), spec) if isinstance(config, dict) else None)
    return _shape(config.get("batch_input_shape", config.get("batch_shape")), spec)


def _shape(value: Any, spec: Spec) -> tuple[int | None, ...] | None:
    if isinstance(value, dict):  # a TensorShape or tuple, as some versions wrote it
        value = value.get("items")
    if value is None:
        return None
    whole = isinstance(value, list) and all(size is None or type(size) is int for size in value)
    if not whole or any(size is not None and not 0 < size <= _SHAPE_MAX for size in value):
        raise BundleError(f"{_label(spec)} has input shape {str(value)[:80]}; sizes from 1 to {_SHAPE_MAX} are allowed")
    return tuple(value)


def _is_layer(kind: str) -> bool:
    """Tell whether Keras has a layer of this name that neither runs foreign programs nor reads files."""
    found = getattr(keras.layers, kind, None)
    if not isinstance(found, type) or not issubclass(found, keras.Layer):
        return False
    module = found.__module__
    return module.startswith("keras.src.layers.") and (kind == "Normalization" or ".preprocessing" not in module)


def _translated(spec: Spec) -> Spec:
    """Return the description of one layer in words of Keras 3."""
    kind, config = spec.get("class_name"), spec["config"]
    if not isinstance(kind, str) or not isinstance(config, dict):
        raise BundleError(f"{_label(spec)} is no description of a layer; {_SAVE_AGAIN}")
    if kind in _MODELS:
        raise BundleError(f"model {_name(spec)} stands inside another layer; put it into the model itself")
    if config.get("time_major"):
        raise BundleError(
            f"{_label(spec)} has time_major=true, which Keras 3 gave up; build it again with time_major=False and "
            "inputs of (batch, time, features), set the same weights, and save"
        )
    if config.get("ragged") or config.get("sparse"):
        raise BundleError(f"{_label(spec)} takes ragged or sparse values; ticks are dense")
    registered = spec.get("registered_name") or kind
    ours = _is_layer(kind) and ">" not in registered
    values = {key: _value(key, value, spec) for key, value in config.items() if key not in _FORGOTTEN}
    if ours:
        values = {key: value for key, value in values.items() if not key.endswith(_TRAINING)}
        if kind in ("GRU", "GRUCell"):
            values.setdefault("reset_after", False)  # the only kind there was before Keras 2.1.3
        if kind == "LeakyReLU" and "alpha" in values:
            values["negative_slope"] = values.pop("alpha")
        return {"module": "keras.layers", "class_name": kind, "config": values, "registered_name": None}
    if keras.saving.get_registered_object(registered) is None:
        raise BundleError(
            f"{_label(spec)} is no layer of Keras 3; if it is your own, import its code first, registered with "
            f"keras.saving.register_keras_serializable as {str(registered)[:80]!r}"
        )
    name = registered.rpartition(">")[2]
    return {"module": None, "class_name": name, "config": values, "registered_name": registered}


def _value(key: str, value: Any, owner: Spec) -> Any:
    """Return one value of a layer's config in words of Keras 3."""
    if key.endswith(_TRAINING) and _is_layer(owner["class_name"]):
        return None  # left out by the caller: weights come from the file
    if key == "dtype":
        return _dtype(value)
    if key.endswith("activation"):
        return _activation(value, owner)
    if key == "axis" and isinstance(value, list) and len(value) == 1:
        return value[0]  # Keras 2 made lists of them; BatchNormalization of Keras 3 wants the number
    if isinstance(value, list):
        return [_value("", item, owner) for item in value]
    if not isinstance(value, dict):
        return value
    if "class_name" not in value:
        return {name: _value(name, item, owner) for name, item in value.items()}
    if value["class_name"] == "__tuple__":
        return [_value("", item, owner) for item in value.get("items", [])]
    if not isinstance(value.get("config"), dict):
        raise BundleError(f"{_label(owner)} has a {key} that is no description; {_SAVE_AGAIN}")
    return _training_object(value) or _translated(value)


def _training_object(spec: Spec) -> Spec | None:
    """Return an initializer, regularizer or constraint of Keras, which layers of one's own may keep."""
    for home in ("initializers", "regularizers", "constraints"):
        found = getattr(getattr(keras, home), str(spec["class_name"]), None)
        if isinstance(found, type) and is_keras(found):
            return {
                "module": f"keras.{home}",
                "registered_name": None,
                **{k: spec[k] for k in ("class_name", "config")},
            }
    return None


def _dtype(value: Any) -> Any:
    """Return a precision by its name; some versions wrote it as a policy object."""
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        return value["config"].get("name", "float32")
    return value


def _activation(value: Any, owner: Spec) -> Any:
    if isinstance(value, dict) and value.get("class_name") == "function":
        value = value.get("config")
    if isinstance(value, dict) and "class_name" in value:
        return _translated(value)  # a layer as activation
    if value is None or value == "linear":
        return "linear"
    if not isinstance(value, str):
        raise BundleError(f"{_label(owner)} has code as activation; use an activation of Keras, or a registered one")
    if value == "hard_sigmoid":
        value = keras.saving.get_registered_name(hard_sigmoid)
    if keras.saving.get_registered_object(value) is not None:
        return {"module": "builtins", "class_name": "function", "config": value, "registered_name": value}
    try:
        keras.activations.get(value)
    except ValueError as error:
        raise BundleError(
            f"{_label(owner)} has activation {value[:80]!r}, none of Keras 3; if it is your own, import its code "
            "first, registered with keras.saving.register_keras_serializable"
        ) from error
    return value


# ---- the model, layer by layer


@dataclass(frozen=True)
class _Part:
    """A model with its layers in the order of the description, the order in which Keras 2 wrote their weights."""

    layers: tuple[tuple[str, Any], ...]
    frozen: bool


class _Builder:
    """Builds models from the inside out and remembers the order of their layers."""

    def __init__(self) -> None:
        #: By id of a model; the outermost model, which holds all others, outlives it.
        self._parts: dict[int, _Part] = {}

    def model(self, spec: Spec, shape: tuple[int | None, ...] | None) -> Any:
        """Build a model; `shape` is that of its input, where the model does not say."""
        kind = spec.get("class_name")
        if kind not in _MODELS:
            raise BundleError(f"{_label(spec)} is subclassed code; rebuild it as Sequential or Functional")
        model, layers = self._sequential(spec, shape) if kind == "Sequential" else self._functional(spec)
        config = spec["config"]
        frozen = isinstance(config, dict) and config.get("trainable") is False
        self._parts[id(model)] = _Part(tuple(layers.items()), frozen)
        return model

    def _sequential(self, spec: Spec, shape: tuple[int | None, ...] | None) -> tuple[Any, dict[str, Any]]:
        shape = _welded_shape(spec) or shape
        if shape is None:
            raise BundleError(f"{_label(spec)} has no input shape; call it once on data, then save it again")
        children, config = _children(spec), spec["config"]
        value = keras.Input(batch_shape=shape)
        if children[:1] and children[0].get("class_name") == "InputLayer":
            value = keras.Input(**_input_arguments(children.pop(0), shape))
        model = keras.Sequential([value], name=config.get("name") if isinstance(config, dict) else None)
        layers: dict[str, Any] = {}
        for child in children:
            layers[_name(child)] = layer = self._layer(child, [value])
            _explained(model.add, child, layer)
            _check_total(model)
            value = model.outputs[0]
        return model, layers

    def _functional(self, spec: Spec) -> tuple[Any, dict[str, Any]]:
        graph = _Calls(spec)
        layers: dict[str, Any] = {}
        waiting = [(child, graph.nodes(child)) for child in _children(spec)]
        while waiting:
            before = sum(len(nodes) for _, nodes in waiting) + len(waiting)
            for child, nodes in waiting:
                name = _name(child)
                if child.get("class_name") == "InputLayer":
                    graph.outputs[name] = [keras.Input(**_input_arguments(child, None))]
                    nodes.clear()
                while nodes and (inputs := graph.inputs(nodes[0])) is not None:
                    if name not in layers:
                        layers[name] = self._layer(child, inputs)
                    graph.call(child, layers[name], nodes.pop(0), inputs)
            waiting = [(child, nodes) for child, nodes in waiting if nodes]
            if sum(len(nodes) for _, nodes in waiting) + len(waiting) == before:
                raise BundleError(f"{_label(waiting[0][0])} has inputs that no layer gives; {_SAVE_AGAIN}")
        config = spec["config"]
        ends = [graph.values(config.get(key)) for key in ("input_layers", "output_layers")]
        inputs, outputs = (end[0] if len(end) == 1 else end for end in ends)
        model = keras.Model(inputs, outputs, name=config.get("name"))
        _check_total(model)
        # A layer whose output leads nowhere is no part of the model; Keras 2 does not write such.
        return model, {_name(child): layers[_name(child)] for child in _children(spec) if _name(child) in layers}

    def _layer(self, spec: Spec, inputs: list[Any]) -> Any:
        if spec.get("class_name") in _MODELS:
            return self.model(spec, tuple(inputs[0].shape))
        translated = _translated(spec)
        _check_room(spec, sum(value.shape[-1] or 0 for value in inputs))
        return _explained(keras.saving.deserialize_keras_object, spec, translated)

    # ---- weights

    def load(self, group: h5py.Group, model: Any) -> None:
        """Fill the layers of the outermost model with the arrays of the file, each with its own."""
        part = self._parts[id(model)]
        for name, layer in part.layers:
            places = [variable for kind in self._weights(layer) for variable in kind]
            stored = _arrays(group, name) if places or name in group else []
            _fill(name, places, stored)
        known = {name for name, _ in part.layers}
        for name in [*_names(group, "layer_names"), "top_level_model_weights"]:
            if name not in known and name in group and _arrays(group, name):
                raise BundleError(f"it has weights of {name}, and the model no such layer; {_SAVE_AGAIN}")
        self._finish(model)

    def _weights(self, layer: Any) -> tuple[list[Any], list[Any]]:
        """Return trainable and other weights in the order of Keras 2, which reads the layers of a model in turn."""
        part = self._parts.get(id(layer))
        if part is None:
            return list(layer.trainable_weights), list(layer.non_trainable_weights)
        pairs = [self._weights(child) for _, child in part.layers]
        trainable, other = ([weight for pair in pairs for weight in pair[side]] for side in (0, 1))
        return ([], trainable + other) if part.frozen else (trainable, other)

    def _finish(self, layer: Any) -> None:
        """Let layers such as Normalization take over the weights they were given."""
        part = self._parts.get(id(layer))
        for _, child in part.layers if part else ():
            self._finish(child)
        if part is None and hasattr(layer, "finalize_state"):
            layer.finalize_state()


class _Calls:
    """The calls of a Functional model: which values go into which layer, and what came out so far.

    Keras 2 writes a value as layer, number of its call, number of its output. Models count their calls from 1 where
    they were made with an input, from 0 where not; so calls are counted from the first that anybody refers to.
    """

    def __init__(self, spec: Spec) -> None:
        #: Values by layer, in the order of its calls.
        self.outputs: dict[str, list[Any]] = {}
        self._first: dict[str, int] = {}
        references = [item for child in _children(spec) for node in self.nodes(child) for item in node]
        references += [
            *_references(spec["config"].get("input_layers")),
            *_references(spec["config"].get("output_layers")),
        ]
        for name, call, *_ in references:
            self._first[name] = min(call, self._first.get(name, call))

    def nodes(self, child: Spec) -> list[list[list[Any]]]:
        """Return the calls of a layer, each a list of the values it takes."""
        nodes = child.get("inbound_nodes") or []
        if not isinstance(nodes, list):
            raise BundleError(f"{_label(child)} has inbound_nodes that are no list; {_SAVE_AGAIN}")
        return [list(_references(node)) for node in nodes]

    def inputs(self, node: list[list[Any]]) -> list[Any] | None:
        """Return the values a call takes, or None where one is not there yet."""
        values = [self._value(*reference[:3]) for reference in node]
        return None if any(value is None for value in values) else values

    def values(self, references: Any) -> list[Any]:
        values = self.inputs(list(_references(references)))
        if not values:
            raise BundleError(f"model_config names inputs or outputs that no layer gives; {_SAVE_AGAIN}")
        return values

    def call(self, child: Spec, layer: Any, node: list[list[Any]], inputs: list[Any]) -> None:
        options = {key: value for reference in node for key, value in _options(reference, child)}
        value = _explained(layer, child, inputs if len(inputs) > 1 else inputs[0], **options)
        self.outputs.setdefault(_name(child), []).append(keras.tree.flatten(value))

    def _value(self, name: str, call: int, output: int) -> Any:
        calls = self.outputs.get(name, [])
        number = call - self._first[name]
        if number >= len(calls):
            return None
        given = keras.tree.flatten(calls[number])
        if not 0 <= output < len(given):
            raise BundleError(f"model_config asks for output {output} of layer {name}; {_SAVE_AGAIN}")
        return given[output]


def _references(value: Any) -> Iterator[list[Any]]:
    """Yield the values named in lists of whatever depth: [layer, call, output], or with options as fourth."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        raise BundleError(f"model_config has calls in a form that Keras 2 does not write; {_SAVE_AGAIN}")
    if len(value) in (3, 4) and isinstance(value[0], str):
        if not all(type(number) is int and number >= 0 for number in value[1:3]):
            raise BundleError(f"model_config has calls in a form that Keras 2 does not write; {_SAVE_AGAIN}")
        yield value
        return
    for item in value:
        yield from _references(item)


def _options(reference: list[Any], child: Spec) -> Iterator[tuple[str, Any]]:
    for key, value in (reference[3] if len(reference) == 4 and isinstance(reference[3], dict) else {}).items():
        if key != "training" and value is not None:
            raise BundleError(
                f"{_label(child)} is called with {key[:40]}, which cannot stream; call it on its input alone"
            )
        if value is not None:
            yield key, bool(value)


def _input_arguments(spec: Spec, shape: tuple[int | None, ...] | None) -> dict[str, Any]:
    shape = _welded_shape(spec) or shape
    if shape is None:
        raise BundleError(f"{_label(spec)} has no input shape; {_SAVE_AGAIN}")
    config = _translated(spec)["config"]
    return {"batch_shape": shape, "dtype": config.get("dtype"), "name": config.get("name")}


def _explained(function: Any, spec: Spec, *arguments: Any, **options: Any) -> Any:
    """Call into Keras, and name the layer if Keras raises, whatever its layers raise."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        raise BundleError(f"{_label(spec)}: {first_line(error)}") from error


# ---- sizes and weights


def _check_room(spec: Spec, width: int) -> None:
    """Refuse a layer whose weights alone would fill the memory, before Keras makes them."""
    sizes = list(_sizes(spec["config"]))
    if any(type(size) is not int or size < 1 for size in sizes):
        raise BundleError(f"{_label(spec)} has a size that is no whole number above zero; {_SAVE_AGAIN}")
    largest = max(sizes, default=0)
    # An LSTM has the most: four gates, each of a kernel for its input and one for its state, in four bytes a weight.
    if sum(sizes) * 16 * (width + largest) > WEIGHTS_BYTES_MAX:
        raise BundleError(
            f"{_label(spec)} claims {largest} units over {width} columns; no model of ticks is that large"
        )


def _sizes(value: Any) -> Iterator[Any]:
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if key in _SIZES and item is not None:
            yield item
        elif isinstance(item, (dict, list)):
            yield from _sizes(item)


def _check_total(model: Any) -> None:
    if 4 * model.count_params() > WEIGHTS_BYTES_MAX:
        raise BundleError(f"model {model.name} has more than {WEIGHTS_BYTES_MAX} bytes of weights")


def _arrays(group: h5py.Group, layer: str) -> list[tuple[str, h5py.Dataset]]:
    stored = _hard(group, layer, h5py.Group)
    return [(name, _hard(stored, name, h5py.Dataset)) for name in _names(stored, "weight_names")]


def _fill(layer: str, places: list[Any], stored: list[tuple[str, h5py.Dataset]]) -> None:
    if len(places) != len(stored):
        raise BundleError(f"layer {layer} has {len(places)} weights, the file {len(stored)}; {_SAVE_AGAIN}")
    for variable, (name, array) in zip(places, stored, strict=True):
        # The last word, without the output's number and the number that early TensorFlow put behind a name.
        word = re.sub(r"(_\d+)?(:\d+)?$", "", name.rpartition("/")[2])
        if word.lower() != variable.name or tuple(array.shape) != tuple(variable.shape):
            raise BundleError(
                f"layer {layer}: weight {variable.name} of shape {tuple(variable.shape)} does not fit {name} of shape "
                f"{tuple(array.shape)} in the file; {_SAVE_AGAIN}"
            )
        if array.external or array.is_virtual or array.dtype.kind not in "fiu":
            raise BundleError(f"layer {layer}: weight {name} is no plain array of numbers in this file; {_SAVE_AGAIN}")
        variable.assign(np.asarray(array))
