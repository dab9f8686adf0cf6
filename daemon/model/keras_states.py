"""The recurrent layers of a Keras model and their states, however deep they are nested.

Neither Sequential nor Functional has a reset of its own in Keras 3, and the layers' own `reset_state` fails on stacked
cells (`RNN([cell, cell])`), whose states are nested. States are no weights either: nothing saves or copies them.

This module imports `keras`; only conversion, training and the probe import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np


def recurrent_layers(model: Any) -> list[Any]:
    """Return every recurrent layer, those of nested models and wrappers too.

    Each stands there once, in the order in which the layers were added, so that two models of one structure give lists
    that correspond.
    """
    found = {id(layer): layer for layer in _walk(model, set()) if isinstance(layer, keras.layers.RNN)}
    return list(found.values())


def stateful_layers(model: Any) -> list[Any]:
    """Return the recurrent layers that keep their state from call to call."""
    return [layer for layer in recurrent_layers(model) if layer.stateful]


def state_variables(model: Any) -> list[Any]:
    """Return what the stateful layers keep: one variable of shape (batch, width) for each state of each cell."""
    return [state for layer in stateful_layers(model) for state in keras.tree.flatten(layer.states or [])]


def reset_states(model: Any) -> None:
    """Set every state that the model keeps to zero, which is what Keras' own reset of a layer does."""
    for state in state_variables(model):
        state.assign(keras.ops.zeros_like(state))


@contextmanager
def states_kept(model: Any) -> Iterator[None]:
    """Bring the states back that were there before."""
    variables = state_variables(model)
    kept = [np.array(state) for state in variables]
    try:
        yield
    finally:
        for state, value in zip(variables, kept, strict=True):
            state.assign(value)


def _walk(layer: Any, seen: set[int]) -> Iterator[Any]:
    # Keras has no public walk that enters wrappers: `layers` knows models alone.
    for inner in layer._layers:
        if id(inner) not in seen:
            seen.add(id(inner))
            yield inner
            yield from _walk(inner, seen)
