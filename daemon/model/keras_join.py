"""Models of several inputs or outputs, seen as models of one: columns side by side, in the model's own order.

The daemon gives one row of columns for a tick and takes one row of outputs. A model with inputs (batch, time, 3) and
(batch, time, 2) is put into another that takes (batch, time, 5) and cuts it; outputs are joined likewise. Nothing of
the model itself changes, and the model around it is a Keras model as any other: it is saved, asked and taken apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from daemon.errors import BundleError


@keras.saving.register_keras_serializable(package="tickcast")
class Columns(keras.layers.Layer):  # type: ignore[misc]
    """Columns `low` to `high` of its input, the upper end excluded."""

    def __init__(self, low: int, high: int, **options: Any) -> None:
        super().__init__(**options)
        self.low, self.high = int(low), int(high)

    def call(self, inputs: Any) -> Any:
        return inputs[..., self.low : self.high]

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.high - self.low)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = super().get_config() | {"low": self.low, "high": self.high}
        return config


def input_columns(model: Any) -> list[tuple[str, int]]:
    """Return names and numbers of columns of a model's inputs, in the order in which their columns stand.

    Raises
    ------
    BundleError : names the input whose number of columns is not fixed
    """
    for tensor in model.inputs:
        if len(tensor.shape) not in (2, 3) or tensor.shape[-1] is None:
            raise BundleError(
                f"model {model.name} takes inputs of shape {tuple(tensor.shape)}, expected (batch, time, features) "
                "with a fixed number of features"
            )
    return [(str(tensor.name), int(tensor.shape[-1])) for tensor in model.inputs]


def pack_inputs(model: Any, values: Sequence[Any]) -> Any:
    """Return values, in the order of `model.inputs`, in the form in which a Functional model is called."""
    return keras.tree.pack_sequence_as(model._inputs_struct, values)


def joined(model: Any) -> Any:
    """Return a model of one input and one output: the model itself if it is one, else a model around it.

    Raises
    ------
    BundleError : names inputs or outputs that do not lie over the same time
    """
    widths = [width for _, width in input_columns(model)]
    if len(model.inputs) == len(model.outputs) == 1:
        return model
    around = _shared_shape(model, "inputs", model.inputs)
    _shared_shape(model, "outputs", model.outputs)
    x = keras.Input(batch_shape=(*around, sum(widths)), name="columns")
    parts, low = [], 0
    for index, width in enumerate(widths):
        parts.append(Columns(low, low + width, name=f"columns_{index}")(x) if len(widths) > 1 else x)
        low += width
    answers = keras.tree.flatten(model(pack_inputs(model, parts)))
    y = keras.layers.Concatenate(name="outputs")(answers) if len(answers) > 1 else answers[0]
    return keras.Model(x, y, name=f"{model.name}_joined")


def _shared_shape(model: Any, what: str, tensors: Sequence[Any]) -> tuple[int | None, ...]:
    """Return the batch and time that all have, or refuse."""
    shared = tuple(tensors[0].shape)[:-1]
    for tensor in tensors:
        if tuple(tensor.shape)[:-1] != shared:
            layer = tensor._keras_history.operation
            raise BundleError(
                f"model {model.name} has {what} over different times: {layer.name} has shape {tuple(tensor.shape)}, "
                f"the first {tuple(tensors[0].shape)}; give all of them one batch size and one time dimension"
            )
    return shared
