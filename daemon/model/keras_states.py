"""The states that recurrent layers keep from call to call, and their reset.

In Keras 3 neither `Sequential` nor `Model` has a reset of its own: `model.reset_states()` of Keras 2 raises
AttributeError. Recurrent layers have one, which nobody calls on those inside nested models and wrappers, and which
fails on `RNN([cell, cell])`, whose states are nested ('ListWrapper' object has no attribute 'assign').
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np


def stateful_layers(model: Any) -> list[Any]:
    """Return the recurrent layers that keep their state, those of nested models and wrappers too; each once."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    found = {id(layer): layer for layer in layers if isinstance(layer, keras.layers.RNN) and layer.stateful}
    return list(found.values())


def state_variables(model: Any) -> list[Any]:
    """Return the variables that hold the states, layer by layer; none for layers not built yet."""
    states = [state for layer in stateful_layers(model) for state in keras.tree.flatten(layer.states)]
    return [state for state in states if state is not None]


def reset_states(model: Any) -> None:
    """Set every recurrent state to zero, as `model.reset_states()` did in Keras 2."""
    for state in state_variables(model):
        state.assign(np.zeros(tuple(state.shape), state.dtype))


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
