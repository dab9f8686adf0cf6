"""What a model file says of its model: JSON from a stranger, bounded and searched for code before anything is built.

The same checks hold for all files, `.keras` and `.h5`, of Keras 2 and 3. Nothing in a description is run: classes are
layers of Keras or registered by the caller, functions come by name, and a Lambda ends the reading.

Refusals are one line and do not name the file; `daemon.model.keras_model.load_keras` puts its name before them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import keras

from daemon.errors import BundleError
from daemon.model.keras_rules import first_line

#: Bound on a description: Keras writes 1 to 2 kB for a layer.
CONFIG_BYTES_MAX = 1024**2
#: Most layers, nested ones and wrapped ones counted: no model of ticks has so many.
LAYERS_MAX = 256
#: Deepest nesting of the JSON; a model inside a model takes about six.
DEPTH_MAX = 64
#: Bound on the weights of one layer, before it is built, and of all layers: no model of ticks is that large.
WEIGHTS_BYTES_MAX = 1024**3
#: Bound on batch, window and number of features welded into a model.
SHAPE_MAX = 16_384

SAVE_AGAIN = "save the whole model again with model.save"
MODELS = ("Sequential", "Functional", "Model")
_CODE = {
    "Lambda": "is a Lambda: it runs code from the file",
    "__lambda__": "holds a lambda: it runs code from the file",
    **dict.fromkeys(("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"), "is an operation outside a layer"),
    **dict.fromkeys(("TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper"), "runs a foreign program"),
}
#: Modules whose classes go by their names; all others need to be registered.
_KERAS = re.compile(r"(keras|builtins)(\.|$)")
#: Words that set the size of a layer's weights.
_SIZES = (
    "units", "filters", "kernel_size", "depth_multiplier", "input_dim", "output_dim", "output_shape", "key_dim",
    "value_dim", "num_heads",
)  # fmt: skip
#: Ends of the words that only training reads.
TRAINING = ("_initializer", "_regularizer", "_constraint")
#: Layers that can make columns of times.
_FOLDING = ("Flatten", "Permute", "Reshape")
_SHAPES = ("batch_input_shape", "batch_shape", "build_input_shape")

Spec = dict[str, Any]
Shape = tuple[int | None, ...]


def parse(text: str | bytes, *, legacy: bool) -> Spec:
    """Return the description in a file, checked.

    Raises
    ------
    BundleError : if it is none, too large or too deep, claims absurd sizes, or names code; names the layer
    """
    if len(text) > CONFIG_BYTES_MAX:
        raise BundleError(f"its model_config is larger than {CONFIG_BYTES_MAX} bytes; no model of ticks is that large")
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"its model_config is damaged ({first_line(error)}); {SAVE_AGAIN}") from error
    if not isinstance(spec, dict) or not isinstance(spec.get("config"), (dict, list)):
        raise BundleError(f"its model_config describes no model; {SAVE_AGAIN}")
    check(spec, legacy=legacy)
    return spec


def check(spec: Spec, *, legacy: bool = False) -> None:
    """Refuse what must not be built: code, unregistered classes, absurd sizes, too many or too deep layers.

    Of a `legacy` description, by Keras 2, what only training reads is never built: its classes need not be known.
    """
    layers = list(_objects(spec, "the model", 0, TRAINING if legacy else ()))
    if len(layers) > LAYERS_MAX:
        raise BundleError(f"the model has more than {LAYERS_MAX} layers; no model of ticks has so many")
    shapes = [found for _, layer in layers for key in _SHAPES if (found := shape(layer["config"].get(key), layer))]
    _check_memory([(name, layer, _sizes(layer, name)) for name, layer in layers], shapes)


def _check_memory(layers: list[tuple[str, Spec, list[int]]], shapes: list[Shape]) -> None:
    """Refuse a layer whose weights alone would fill the memory."""
    # No value is wider than all inputs and all layers side by side, and all their times where time is folded in.
    columns = sum(math.prod(sizes) for _, _, sizes in layers if sizes) + sum(found[-1] or 0 for found in shapes)
    if any(layer["class_name"] in _FOLDING for _, layer, _ in layers):
        columns *= max((size or 1 for found in shapes for size in found[1:-1]), default=1)
    batch = max((found[0] or 0 for found in shapes), default=0)
    for name, layer, sizes in layers:
        # An LSTM has the most: four gates of four bytes a weight, for input and state; and states for the batch.
        bytes_each = 4 if layer["class_name"] == "Embedding" else 16 * (columns + batch)
        if sizes and math.prod(sizes) * bytes_each > WEIGHTS_BYTES_MAX:
            raise BundleError(f"{name} claims more than {WEIGHTS_BYTES_MAX} bytes of weights; no model of ticks does")


def check_total(model: Any) -> None:
    """Refuse a model, or one half built, that takes too much memory."""
    if 4 * model.count_params() > WEIGHTS_BYTES_MAX:
        raise BundleError(f"model {model.name} has more than {WEIGHTS_BYTES_MAX} bytes of weights")


def label(spec: Spec) -> str:
    """Return how errors name a layer, e.g. "layer lstm_1 (LSTM)"."""
    config = spec.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return f"layer {str(name or spec.get('name') or '?')[:80]} ({str(spec.get('class_name'))[:80]})"


def layer_name(spec: Spec) -> str:
    config = spec["config"]
    name = spec.get("name") or (config.get("name") if isinstance(config, dict) else None)
    if not isinstance(name, str):
        raise BundleError(f"{label(spec)} in model_config has no name; {SAVE_AGAIN}")
    return name


def children(spec: Spec) -> list[Spec]:
    """Return the layers of a model; before Keras 2.2.3 the config of a Sequential was the list itself."""
    config = spec["config"]
    layers = config if isinstance(config, list) else config.get("layers")
    if not isinstance(layers, list) or not all(
        isinstance(layer, dict) and isinstance(layer.get("config"), (dict, list)) for layer in layers
    ):
        raise BundleError(f"{label(spec)} in model_config has no list of layers; {SAVE_AGAIN}")
    return list(layers)


def shape(value: Any, owner: Spec) -> Shape | None:
    """Return a shape, batch included, as a tuple; None where there is none."""
    if isinstance(value, dict):  # a TensorShape or tuple, as some versions wrote it
        value = value.get("items")
    if value is None:
        return None
    whole = isinstance(value, list) and all(size is None or type(size) is int for size in value)
    if not whole or any(size is not None and not 0 < size <= SHAPE_MAX for size in value):
        raise BundleError(f"{label(owner)} has input shape {str(value)[:80]}; sizes from 1 to {SHAPE_MAX} are allowed")
    return tuple(value)


def is_layer(kind: str) -> bool:
    """Tell whether Keras has a layer of this name that neither runs foreign programs nor reads files."""
    found = getattr(keras.layers, kind, None)
    if not isinstance(found, type) or not issubclass(found, keras.Layer):
        return False
    module = found.__module__
    return module.startswith("keras.src.layers.") and (
        kind in ("Normalization", "Rescaling") or ".preprocessing" not in module
    )


def check_registered(spec: Spec, registered: Any) -> None:
    """Refuse a class that is not registered with Keras by this name."""
    if not isinstance(registered, str) or keras.saving.get_registered_object(registered) is None:
        raise BundleError(
            f"{label(spec)} is no layer of Keras 3; if it is your own, import its code first, registered with "
            f"keras.saving.register_keras_serializable as {str(registered)[:80]!r}"
        )


def _objects(
    value: Any, owner: str, depth: int, unbuilt: tuple[str, ...], built: bool = True
) -> Iterator[tuple[str, Spec]]:
    """Yield layers and models with their labels, and refuse code wherever it hides.

    Code comes as a Lambda layer, or as a lambda given for an activation or argument.
    """
    if depth > DEPTH_MAX:
        raise BundleError(f"{owner} is nested deeper than {DEPTH_MAX} levels; no model of ticks is")
    if isinstance(value, list):
        for item in value:
            yield from _objects(item, owner, depth + 1, unbuilt, built)
    elif isinstance(value, dict):
        if "class_name" in value and isinstance(value.get("config"), dict) and "name" in value["config"]:
            owner = label(value)
            if not owner.endswith("Policy)"):  # a precision by its name
                yield owner, value
        kind, vouched = str(value.get("class_name")), _KERAS.match(str(value.get("module") or "keras"))
        if built and vouched and hasattr(keras.layers, kind) and kind not in _CODE and not is_layer(kind):
            raise BundleError(f"{owner} prepares data of other kinds ({kind}); put such steps before the ticks")
        if (what := _CODE.get(kind)) is not None:
            raise BundleError(f"{owner} {what}; put a layer of Keras, or a registered one, in its place")
        if built and "class_name" in value and not vouched:
            check_registered(value if isinstance(value.get("config"), dict) else {}, value.get("registered_name"))
        for key, item in value.items():
            yield from _objects(item, owner, depth + 1, unbuilt, built and not key.endswith(unbuilt))


def _sizes(layer: Spec, name: str) -> list[int]:
    """Return the sizes whose product, times the width of the input, bounds the number of the layer's weights."""
    given = keras.tree.flatten([layer["config"].get(key) for key in _SIZES])
    sizes = [size for size in given if size is not None]
    if any(type(size) is not int or size < 1 for size in sizes):
        raise BundleError(f"{name} has a size that is no whole number above zero; {SAVE_AGAIN}")
    return sizes
