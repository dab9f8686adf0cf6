"""The description of a layer, from words of Keras 2 into words of Keras 3.

Keras 3 has forgotten words that Keras 2 wrote, such as `time_major` and `batch_input_shape`, and gave some a new
meaning. A copy in memory is rewritten, layer by layer; the file stays as it is.

- Modules named in the file are ignored: layers and functions of Keras come by their names, others must be registered.
- What only training reads (initializers, regularizers, constraints) is left out: the weights come from the file.
- The numbers are those of Keras 2, also where a name changed its meaning: see `hard_sigmoid_keras2`.
"""

from __future__ import annotations

from typing import Any

import keras

from daemon.errors import BundleError
from daemon.model.keras_description import (
    MODELS,
    SAVE_AGAIN,
    TRAINING,
    Spec,
    check_registered,
    is_layer,
    label,
    layer_name,
)
from daemon.model.keras_rules import is_keras

#: Words that Keras 3 does not know. `implementation` and `unroll` choose among ways to the same numbers.
_FORGOTTEN = (
    "batch_input_shape", "input_shape", "input_dim", "input_length", "time_major", "implementation", "unroll", "ragged",
    "fused", "renorm", "virtual_batch_size", "experimental_autocast", "autocast",
)  # fmt: skip


def hard_sigmoid_keras2(x: Any) -> Any:
    """Compute max(0, min(1, 0.2 x + 0.5)), the hard sigmoid of Keras 2.

    Notes
    -----
    Keras 3 gives the name to relu6(x + 3) / 6, up to 0.08 away: with it, an LSTM of early Keras 2, whose gates have
    this activation by default, would load and forecast other numbers.
    """
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


# Registered, so that bundles can keep it.
keras.saving.register_keras_serializable(package="tickcast")(hard_sigmoid_keras2)


def translated(spec: Spec) -> Spec:
    """Return the description of one layer in words of Keras 3.

    Raises
    ------
    BundleError : names the layer that Keras 3 cannot have
    """
    _check_layer(spec)
    kind, config = str(spec["class_name"]), spec["config"]
    registered = str(spec.get("registered_name") or kind)
    kept = ("input_dim",) if kind == "Embedding" else ()
    values = {key: _value(key, value, spec) for key, value in config.items() if key in kept or key not in _FORGOTTEN}
    if is_layer(kind) and ">" not in registered:
        values = {key: value for key, value in values.items() if not key.endswith(TRAINING)}
        if kind in ("GRU", "GRUCell"):
            values.setdefault("reset_after", False)  # the only kind there was before Keras 2.1.3
        if kind == "LeakyReLU" and "alpha" in values:
            values["negative_slope"] = values.pop("alpha")
        return {"module": "keras.layers", "class_name": kind, "config": values, "registered_name": None}
    check_registered(spec, registered)
    name = registered.rpartition(">")[2]
    return {"module": None, "class_name": name, "config": values, "registered_name": registered}


def _check_layer(spec: Spec) -> None:
    kind, config = spec.get("class_name"), spec["config"]
    if not isinstance(kind, str) or not isinstance(config, dict):
        raise BundleError(f"{label(spec)} is no description of a layer; {SAVE_AGAIN}")
    if kind in MODELS:
        raise BundleError(f"model {layer_name(spec)} stands inside another layer; put it into the model itself")
    if config.get("time_major"):
        raise BundleError(
            f"{label(spec)} has time_major=true, which Keras 3 gave up; build it again with time_major=False and "
            "inputs of (batch, time, features), set the same weights, and save"
        )
    if config.get("ragged") or config.get("sparse"):
        raise BundleError(f"{label(spec)} takes ragged or sparse values; ticks are dense")


def _value(key: str, value: Any, owner: Spec) -> Any:
    """Return one value of a layer's config in words of Keras 3."""
    if key.endswith(TRAINING) and is_layer(owner["class_name"]):
        return None  # left out by the caller
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
        raise BundleError(f"{label(owner)} has a {key} that is no description; {SAVE_AGAIN}")
    return _training_object(value) or translated(value)


def _training_object(spec: Spec) -> Spec | None:
    """Return an initializer, regularizer or constraint of Keras, which layers of one's own may keep."""
    name = str(spec["class_name"])
    for home in ("initializers", "regularizers", "constraints"):
        found = getattr(getattr(keras, home), name, None)
        if isinstance(found, type) and is_keras(found):
            return {
                "module": f"keras.{home}", "class_name": name, "config": spec["config"], "registered_name": None,
            }  # fmt: skip
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
        return translated(value)  # a layer as activation
    if value is None or value == "linear":
        return "linear"
    if not isinstance(value, str):
        raise BundleError(f"{label(owner)} has code as activation; use an activation of Keras, or a registered one")
    if value == "hard_sigmoid":
        value = keras.saving.get_registered_name(hard_sigmoid_keras2)
    if keras.saving.get_registered_object(value) is not None:
        return {"module": "builtins", "class_name": "function", "config": value, "registered_name": value}
    try:
        keras.activations.get(value)
    except ValueError as error:
        raise BundleError(
            f"{label(owner)} has activation {value[:80]!r}, none of Keras 3; if it is your own, import its code "
            "first, registered with keras.saving.register_keras_serializable"
        ) from error
    return value
