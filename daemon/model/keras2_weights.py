"""The weights in an `.h5` file of Keras 2, each into its place, to the bit.

A weight finds its layer by name and its place by the order in which Keras 2 wrote: the layers of a nested model in
turn, trainable weights first. It goes only where its name and shape fit; every weight has a place, and every place gets
its weight.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np

from daemon.errors import BundleError
from daemon.model.keras2_graph import Part
from daemon.model.keras_description import SAVE_AGAIN
from daemon.model.keras_hdf5 import member, names_in


def fill(model: Part, group: h5py.Group) -> None:
    """Fill the layers of the outermost model with the arrays of the file.

    Raises
    ------
    BundleError : names the layer, and the weight, that do not fit
    """
    parts = model.parts or ()
    for part in parts:
        places = [place for kind in _weights(part) for place in kind]
        _fill(part.name, places, _arrays(group, part.name) if places or part.name in group else [])
    known = {part.name for part in parts}
    for name in [*names_in(group, "layer_names"), "top_level_model_weights"]:
        if name not in known and name in group and _arrays(group, name):
            raise BundleError(f"it has weights of {name}, and the model no such layer; {SAVE_AGAIN}")
    _finish(model)


def _weights(part: Part) -> tuple[list[Any], list[Any]]:
    """Return trainable and other weights in the order of Keras 2, which reads the layers of a model in turn."""
    if part.parts is None:
        return list(part.layer.trainable_weights), list(part.layer.non_trainable_weights)
    pairs = [_weights(child) for child in part.parts]
    trainable, other = ([weight for pair in pairs for weight in pair[side]] for side in (0, 1))
    return ([], trainable + other) if part.frozen else (trainable, other)


def _arrays(group: h5py.Group, layer: str) -> list[tuple[str, h5py.Dataset]]:
    stored = member(group, layer, h5py.Group)
    return [(name, member(stored, name, h5py.Dataset)) for name in names_in(stored, "weight_names")]


def _fill(layer: str, places: Sequence[Any], stored: Sequence[tuple[str, h5py.Dataset]]) -> None:
    if len(places) != len(stored):
        raise BundleError(f"layer {layer} has {len(places)} weights, the file {len(stored)}; {SAVE_AGAIN}")
    for variable, (name, array) in zip(places, stored, strict=True):
        # The last word, without the output's number and the number that early TensorFlow put behind a name.
        word = re.sub(r"(_\d+)?(:\d+)?$", "", name.rpartition("/")[2])
        if word.lower() != variable.name or tuple(array.shape) != tuple(variable.shape):
            raise BundleError(
                f"layer {layer}: weight {variable.name} of shape {tuple(variable.shape)} does not fit {name} of shape "
                f"{tuple(array.shape)} in the file; {SAVE_AGAIN}"
            )
        variable.assign(np.asarray(array))


def _finish(part: Part) -> None:
    """Let layers such as Normalization take over the weights they were given."""
    for child in part.parts or ():
        _finish(child)
    if part.parts is None and hasattr(part.layer, "finalize_state"):
        part.layer.finalize_state()
