"""The stateless model: the same layers and weights, `stateful=False`, any number of rows, checked against the original.

This answers "how do I predict one step with batch 1 after training with batch N". A model trained with `stateful=True`
has its batch size welded into its graph; neither `predict(x[:1])` nor `layer.stateful = False` gets it out. What does
is another model of the same description without the two words, and the weights copied into it.

The weights are copied by structure: both models are walked side by side, nested ones, wrappers and cells included. By
the index of `model.layers`, as often advised, layers are skipped: a Functional model of Keras 3 counts its inputs among
its layers, a Sequential does not, and what stands in a nested model is one entry.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from daemon.core.step import F32
from daemon.errors import BundleError
from daemon.model.keras_description import check
from daemon.model.keras_join import pack_inputs
from daemon.model.keras_model import load_keras
from daemon.model.keras_rules import check_model, first_line
from daemon.model.keras_states import reset_states, states_kept
from daemon.model.selftest import TOLERANCE

#: Windows compared, and ticks of each where the model leaves their number open.
WINDOWS, OPEN_STEPS = 100, 10
SEED = 20_260_104

_SHAPES = ("batch_shape", "batch_input_shape")


def write_stateless(model: Any, out: Path, *, replace: bool = False) -> float:
    """Write the stateless form of a Keras model as a `.keras` file.

    Parameters
    ----------
    model : a `keras.Model`, Sequential or Functional, or the path of a `.keras` or `.h5` file; it is not changed
    out : the file; its time dimension is free where the layers allow that, its batch size always
    replace : take the place of a file that stands there

    Returns
    -------
    float : largest |a - b| / max(1, |b|) over 100 windows, a the written file's answer, asked with batch 1, b the
        original's after a reset

    Raises
    ------
    BundleError : if a weight has no counterpart, named with its layer, or the answers differ by more than 1e-5; nothing
        is written then
    """
    if out.suffix != ".keras":
        raise BundleError(f"{out}: the stateless model is written as .keras; give it that ending")
    if out.exists() and not replace:
        raise BundleError(f"{out} exists; give another name")
    original = load_keras(Path(model)) if isinstance(model, (str, Path)) else model
    fresh = stateless(original)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
            written = Path(scratch) / out.name
            fresh.save(written)
            difference = _difference(load_keras(written), original)
            if not difference <= TOLERANCE:
                raise BundleError(
                    f"model {original.name}: the stateless model differs by {difference:.2e} from the original reset "
                    "before each window; please report it"
                )
            written.replace(out)
    except OSError as error:
        raise BundleError(f"cannot write {out}: {error.strerror or first_line(error)}") from error
    return difference


def stateless(model: Any) -> Any:
    """Return the stateless form of a model, in memory and not compared.

    Raises
    ------
    BundleError : names the layer that cannot be built again, or the weight without counterpart
    """
    check_model(model)
    described = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    check(described)
    try:
        fresh = _built(_rewritten(described, _free_time))
    except Exception:  # whatever layers raise that need to know the time
        try:
            fresh = _built(_rewritten(described, _welded_time))
        except Exception as error:
            raise BundleError(f"model {model.name} cannot be built again: {first_line(error)}") from error
    copy_weights(model, fresh)
    return fresh


def _built(described: Any) -> Any:
    return keras.saving.deserialize_keras_object(described, safe_mode=True)


def copy_weights(source: Any, target: Any) -> None:
    """Copy all weights between two models of one structure.

    Raises
    ------
    BundleError : names layer and weight where the structures differ; `target` is then partly filled
    """
    given = {id(weight): weight.path for weight in source.weights}
    wanted = {id(weight): weight.path for weight in target.weights}
    for path, ours, theirs in _pairs(source, target, source.name):
        a, b = _own(ours), _own(theirs)
        for index in range(max(len(a), len(b))):
            found, place = (weights[index] if index < len(weights) else None for weights in (a, b))
            if found is None or place is None or (found.name, found.shape) != (place.name, place.shape):
                raise BundleError(f"layer {path}: weight {_said(found)} of one is {_said(place)} in the other model")
            place.assign(found)
            given.pop(id(found), None)
            wanted.pop(id(place), None)
    for left, which in ((given, "the original"), (wanted, "the stateless model")):
        if left:
            raise BundleError(f"weight {next(iter(left.values()))} of {which} has no counterpart in the other model")


def _pairs(ours: Any, theirs: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Walk both models side by side, outer layers before those inside them."""
    if type(ours) is not type(theirs):
        raise BundleError(f"layer {path} is a {type(ours).__name__}, in the other model a {type(theirs).__name__}")
    yield path, ours, theirs
    inside, beside = _inside(ours), _inside(theirs)
    if len(inside) != len(beside):
        raise BundleError(
            f"layer {path} holds {', '.join(layer.name for layer in inside) or 'none'}, in the other model "
            f"{', '.join(layer.name for layer in beside) or 'none'}"
        )
    # Names tell layers of one shape apart, whatever order a graph was built in; cells and the like may have others.
    named = {layer.name: layer for layer in beside}
    if named.keys() == {layer.name for layer in inside}:
        beside = [named[layer.name] for layer in inside]
    for a, b in zip(inside, beside, strict=True):
        yield from _pairs(a, b, f"{path}/{a.name}")


def _inside(layer: Any) -> list[Any]:
    """Return the layers right inside a model, wrapper or recurrent layer; inputs have no weights and do not count."""
    found = layer._flatten_layers(include_self=False, recursive=False)
    return [inner for inner in found if not isinstance(inner, keras.layers.InputLayer)]


def _own(layer: Any) -> list[Any]:
    """Return the weights of a layer that are no weights of a layer inside it."""
    inner = {id(weight) for child in _inside(layer) for weight in child.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def _said(weight: Any) -> str:
    return "none" if weight is None else f"{weight.name} of shape {tuple(weight.shape)}"


# --- the description --------------------------------------------------------------------------------------------------

#: `build_config` holds the shapes that layers were built on, batch and all; without it the first call builds them.
_LEFT_OUT = ("build_config", "compile_config")
_Change = Callable[[list[Any]], list[Any]]


def _free_time(shape: list[Any]) -> list[Any]:
    return [None, None, *shape[2:]] if len(shape) > 2 else [None, *shape[1:]]


def _welded_time(shape: list[Any]) -> list[Any]:
    return [None, *shape[1:]]


def _rewritten(value: Any, free: _Change) -> Any:
    """Return a description without states, with batch (and time) free, to be built on its inputs anew."""
    if isinstance(value, list):
        return [_rewritten(item, free) for item in value]
    if not isinstance(value, dict):
        return value
    fresh = {key: _rewritten(item, free) for key, item in value.items() if key not in _LEFT_OUT}
    for key in _SHAPES:
        if isinstance(fresh.get(key), list):
            fresh[key] = free(fresh[key])
    if "stateful" in fresh:
        fresh["stateful"] = False
    return fresh


# --- the proof --------------------------------------------------------------------------------------------------------


def _difference(fresh: Any, original: Any) -> float:
    """Ask the fresh model with batch 1, the original with the batch welded into it, reset before each."""
    rows = original.inputs[0].shape[0] or 1
    windows = -(-WINDOWS // rows) * rows
    rng = np.random.default_rng(SEED)
    inputs = [_draw(rng, windows, tensor) for tensor in original.inputs]
    answers = [_ask(fresh, [x[row : row + 1] for x in inputs]) for row in range(WINDOWS)]
    expected = []
    with states_kept(original):
        for low in range(0, windows, rows):
            reset_states(original)
            expected.append(_ask(original, [x[low : low + rows] for x in inputs]))
    a, b = np.concatenate(answers), np.concatenate(expected)[:WINDOWS]
    return float(np.max(np.abs(a - b) / np.maximum(1, np.abs(b))))


def _draw(rng: np.random.Generator, rows: int, tensor: Any) -> F32:
    shape = [size or OPEN_STEPS for size in tensor.shape[1:]]
    return rng.standard_normal((rows, *shape), dtype=np.float32)


def _ask(model: Any, inputs: list[F32]) -> F32:
    """Return all outputs of each row as one line, shape (rows, values).

    By the compiled function: called plainly, an LSTM of 10 ticks takes 30 ms for a row, and there are 100.
    """
    packed = inputs[0] if isinstance(model, keras.Sequential) else pack_inputs(model, inputs)
    answers = keras.tree.flatten(model.predict_on_batch(packed))
    return np.concatenate([np.asarray(y, np.float32).reshape(len(inputs[0]), -1) for y in answers], axis=1)
