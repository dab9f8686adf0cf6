"""Which Keras layers can stream: the rules, and the question to layers that no rule knows.

A layer can stream when its output at a tick needs nothing but its input at that tick and, for a recurrent layer, the
state its cell carries. What cannot is refused by name. Layers that Keras does not vouch for (custom ones) are asked:
do they answer a tick alone as they do inside a sequence?
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from daemon.errors import BundleError
from daemon.model.keras_graph import LayerCall, call_per_tick, refusal
from daemon.model.keras_refusals import reason_against


def check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise BundleError(f"{type(model).__name__} is no Keras model")
    if not (is_keras(type(model)) and isinstance(model, (keras.Sequential, keras.src.models.functional.Functional))):
        raise BundleError(f"model {model.name} ({type(model).__name__}) is subclassed code; rebuild it as Functional")
    if not model.built or not model.inputs:
        raise BundleError(f"model {model.name} has no input shape; build it with keras.Input and save it again")


def check_node(node: Any) -> None:
    operation = node.operation
    if not isinstance(operation, keras.Layer):
        raise BundleError(
            f"operation {operation.name} ({type(operation).__name__}) stands outside a layer; use a layer for it"
        )
    if len(node.output_tensors) != 1 and not isinstance(operation, keras.Model):
        raise refusal(operation, "it returns several values; drop return_state")
    arguments, options = node.arguments.args, node.arguments.kwargs
    first = keras.tree.flatten(arguments[:1])
    if len(first) != len(node.input_tensors):
        raise refusal(operation, "it takes tensors besides its input, such as an initial state or a mask")
    if options.get("training"):
        raise refusal(operation, "it is called in training mode, which draws random numbers")


def check_layer(layer: Any, over_time: bool) -> None:
    kind = type(layer)
    if isinstance(layer, keras.layers.RNN):
        _check_recurrent(layer, over_time)
    elif not is_keras(kind):
        if keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is not kind:
            raise refusal(layer, "it is custom code; register it with keras.saving.register_keras_serializable")
    elif (reason := reason_against(kind.__name__, over_time)) is not None:
        raise refusal(layer, reason)
    _check_axes(layer, over_time)
    if layer.compute_dtype not in ("float32", "float64"):
        raise refusal(layer, f"it computes in {layer.compute_dtype}; set its dtype policy to float32 and save again")


def _check_recurrent(layer: Any, over_time: bool) -> None:
    if not over_time:
        raise refusal(layer, "its input has no time dimension")
    if layer.go_backwards:
        raise refusal(layer, "go_backwards reads the sequence from its end")
    if layer.return_state:
        raise refusal(layer, "it returns its state; drop return_state")
    if getattr(layer, "time_major", False):
        raise refusal(layer, "time_major puts time before the batch")
    if not is_keras(type(layer)) or "Conv" in type(layer).__name__:
        raise refusal(layer, "only Keras' own RNN, LSTM, GRU and SimpleRNN carry a state we know")
    cells = getattr(layer.cell, "cells", [layer.cell])
    for cell in cells:
        kind = type(cell)
        if (
            not is_keras(kind)
            and keras.saving.get_registered_object(keras.saving.get_registered_name(kind)) is not kind
        ):
            raise refusal(layer, f"its cell {kind.__name__} is custom code that is not registered")


def _check_axes(layer: Any, over_time: bool) -> None:
    """Refuse layers that normalise or join along any axis but the last."""
    axis = getattr(layer, "axis", None)
    if axis is None or not is_keras(type(layer)):
        return
    rank = 3 if over_time else 2
    axes = {one % rank for one in keras.tree.flatten(axis)}
    if axes - {rank - 1}:
        raise refusal(layer, f"axis {axis} reaches beyond the features of one tick")


def ask_per_tick(call: LayerCall) -> None:
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
            [np.asarray(call_per_tick(call, [value[:, tick] for value in inputs])) for tick in range(x.shape[1])],
            axis=1,
        )
    except Exception as error:  # whatever custom code raises
        raise refusal(layer, f"it fails on a tick alone: {first_line(error)}") from error
    if whole.shape != alone.shape or not np.allclose(whole, alone, rtol=1e-5, atol=1e-5):
        raise refusal(layer, "it answers a tick alone otherwise than inside a sequence")


def is_keras(kind: type) -> bool:
    return kind.__module__.startswith("keras.src.")


def first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
