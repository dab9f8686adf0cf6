"""A model of Keras 3 built from a description by Keras 2, layer by layer, remembering the order of the description.

Keras 3 would build a Functional model in an order of its own; Keras 2 wrote the weights in that of the description.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import keras

from daemon.errors import BundleError
from daemon.model.keras2_words import translated
from daemon.model.keras_description import (
    MODELS,
    SAVE_AGAIN,
    Shape,
    Spec,
    check_total,
    children,
    label,
    layer_name,
    shape,
)
from daemon.model.keras_rules import first_line


@dataclass(frozen=True)
class Part:
    """A layer, or a model with its parts in the order of the description."""

    name: str
    layer: Any
    #: None for a layer.
    parts: tuple[Part, ...] | None = None
    frozen: bool = False


def build(spec: Spec, given: Shape | None = None) -> Part:
    """Build a model; `given` is the shape of its input where the model does not say.

    Raises
    ------
    BundleError : names the layer that Keras 3 cannot have
    """
    kind, config = spec.get("class_name"), spec["config"]
    if kind not in MODELS:
        raise BundleError(f"{label(spec)} is subclassed code; rebuild it as Sequential or Functional")
    model, parts = _sequential(spec, given) if kind == "Sequential" else _functional(spec)
    check_total(model)
    frozen = isinstance(config, dict) and config.get("trainable") is False
    return Part(str(spec.get("name") or model.name), model, tuple(parts.values()), frozen)


def _sequential(spec: Spec, given: Shape | None) -> tuple[Any, dict[str, Part]]:
    first = _welded_shape(spec) or given
    if first is None:
        raise BundleError(f"{label(spec)} has no input shape; call it once on data, then save it again")
    layers, config = children(spec), spec["config"]
    value = keras.Input(batch_shape=first)
    if layers[:1] and layers[0].get("class_name") == "InputLayer":
        value = _input(layers.pop(0), first)
    model = keras.Sequential([value], name=config.get("name") if isinstance(config, dict) else None)
    parts: dict[str, Part] = {}
    for child in layers:
        part = parts[layer_name(child)] = _part(child, [value])
        _explained(model.add, child, part.layer)
        value = model.outputs[0]
    return model, parts


def _functional(spec: Spec) -> tuple[Any, dict[str, Part]]:
    """Call each layer as soon as its inputs are there; the description may name a layer before its inputs."""
    layers, config = children(spec), spec["config"]
    graph = _Calls(spec)
    parts: dict[str, Part] = {}
    waiting = [(child, _nodes(child)) for child in layers]
    while waiting:
        called = False
        for child, nodes in waiting:
            name = layer_name(child)
            if child.get("class_name") == "InputLayer":
                graph.outputs[name], called = [[_input(child, None)]], True
                nodes.clear()
            while nodes and (inputs := graph.inputs(nodes[0])) is not None:
                part = parts[name] = parts.get(name) or _part(child, inputs)
                graph.call(child, part.layer, nodes.pop(0), inputs)
                called = True
        waiting = [(child, nodes) for child, nodes in waiting if nodes]
        if waiting and not called:
            raise BundleError(f"{label(waiting[0][0])} has inputs that no layer gives; {SAVE_AGAIN}")
    ends = [graph.values(config.get(key)) for key in ("input_layers", "output_layers")]
    inputs, outputs = (end[0] if len(end) == 1 else end for end in ends)
    model = keras.Model(inputs, outputs, name=config.get("name"))
    # A layer whose output leads nowhere is no part of the model; Keras 2 does not write such.
    return model, {name: parts[name] for name in map(layer_name, layers) if name in parts}


def _part(spec: Spec, inputs: list[Any]) -> Part:
    if spec.get("class_name") in MODELS:
        return build(spec, tuple(inputs[0].shape))
    layer = _explained(keras.saving.deserialize_keras_object, spec, translated(spec))
    return Part(layer_name(spec), layer)


def _input(spec: Spec, given: Shape | None) -> Any:
    found = _welded_shape(spec) or given
    if found is None:
        raise BundleError(f"{label(spec)} has no input shape; {SAVE_AGAIN}")
    config = translated(spec)["config"]
    return keras.Input(batch_shape=found, dtype=config.get("dtype"), name=config.get("name"))


def _welded_shape(spec: Spec) -> Shape | None:
    """Return the input shape, batch included, that a layer or the first layer of a Sequential declares."""
    config = spec["config"]
    if spec.get("class_name") == "Sequential":
        layers = children(spec)
        found = _welded_shape(layers[0]) if layers else None
        return found or (shape(config.get("build_input_shape"), spec) if isinstance(config, dict) else None)
    return shape(config.get("batch_input_shape", config.get("batch_shape")), spec)


@dataclass
class _Calls:
    """The calls of a Functional model: which values go into which layer, and what came out so far.

    Keras 2 writes a value as layer, number of its call, number of its output. Models count their calls from 1 where
    they were made with an input, from 0 where not; so calls are counted from the first that anybody refers to.
    """

    spec: Spec
    #: Values by layer, in the order of its calls; each call gives a list.
    outputs: dict[str, list[list[Any]]] = field(default_factory=dict)
    _first: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ends = [self.spec["config"].get(key) for key in ("input_layers", "output_layers")]
        for name, call, *_ in _references([*(_nodes(child) for child in children(self.spec)), *ends]):
            self._first[name] = min(call, self._first.get(name, call))

    def inputs(self, node: list[list[Any]]) -> list[Any] | None:
        """Return the values a call takes, or None where one is not there yet."""
        values = [self._value(*reference[:3]) for reference in node]
        return None if any(value is None for value in values) else values

    def values(self, references: Any) -> list[Any]:
        values = self.inputs(list(_references(references)))
        if not values:
            raise BundleError(f"model_config names inputs or outputs that no layer gives; {SAVE_AGAIN}")
        return values

    def call(self, child: Spec, layer: Any, node: list[list[Any]], inputs: list[Any]) -> None:
        options = {key: value for reference in node for key, value in _options(reference, child)}
        value = _explained(layer, child, inputs if len(inputs) > 1 else inputs[0], **options)
        self.outputs.setdefault(layer_name(child), []).append(keras.tree.flatten(value))

    def _value(self, name: str, call: int, output: int) -> Any:
        calls = self.outputs.get(name, [])
        number = call - self._first[name]
        if number >= len(calls):
            return None
        if output >= len(calls[number]):
            raise BundleError(f"model_config asks for output {output} of layer {name}; {SAVE_AGAIN}")
        return calls[number][output]


def _nodes(child: Spec) -> list[list[list[Any]]]:
    """Return the calls of a layer, each a list of the values it takes."""
    nodes = child.get("inbound_nodes") or []
    if not isinstance(nodes, list):
        raise BundleError(f"{label(child)} has inbound_nodes that are no list; {SAVE_AGAIN}")
    return [list(_references(node)) for node in nodes]


def _references(value: Any) -> Iterator[list[Any]]:
    """Yield the values named in lists of whatever depth: [layer, call, output], or with options as fourth."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        raise BundleError(f"model_config has calls in a form that Keras 2 does not write; {SAVE_AGAIN}")
    if len(value) in (3, 4) and isinstance(value[0], str):
        if not all(type(number) is int and number >= 0 for number in value[1:3]):
            raise BundleError(f"model_config has calls in a form that Keras 2 does not write; {SAVE_AGAIN}")
        yield value
        return
    for item in value:
        yield from _references(item)


def _options(reference: list[Any], child: Spec) -> Iterator[tuple[str, Any]]:
    for key, value in (reference[3] if len(reference) == 4 and isinstance(reference[3], dict) else {}).items():
        if key != "training" and value is not None:
            raise BundleError(
                f"{label(child)} is called with {key[:40]}, which cannot stream; call it on its input alone"
            )
        if value is not None:
            yield key, bool(value)


def _explained(function: Any, spec: Spec, *arguments: Any, **options: Any) -> Any:
    """Call into Keras, and name the layer if Keras raises, whatever its layers raise."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        raise BundleError(f"{label(spec)}: {first_line(error)}") from error
