"""Conversion: a Keras model into a bundle, judged on Keras' own outputs before anything is written."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.core.step import F32
from daemon.errors import BundleError
from daemon.model import keras_ops
from daemon.model.bundle import Bundle, write_bundle
from daemon.model.manifest import Manifest
from daemon.model.numpy_step import NumpyStep
from daemon.model.ops import Rescale
from daemon.model.program import AnyProgram, KerasProgram, Node, Program
from daemon.model.selftest import TOLERANCE, golden_difference

if TYPE_CHECKING:
    from daemon.model.keras_graph import Graph

#: Seed of the golden inputs: the same model gives the same bundle.
SEED = 20_260_102


def convert(model: Any, manifest: Manifest, out: Path, *, replace: bool = False) -> Bundle:
    """Write a Keras model as a bundle.

    Parameters
    ----------
    model : a `keras.Model`, or the path of a `.keras` or `.h5` file; it is not changed
    manifest : what its columns and outputs mean; `golden_steps` is the length of the golden sequence
    out : folder of the bundle
    replace : take the place of a bundle that stands there

    Raises
    ------
    BundleError : names the layer that cannot stream and why, or what does not fit; nothing is written
    """
    # Keras and TensorFlow take seconds to import; serving never gets here.
    try:
        from daemon.model import keras_graph, keras_model
    except ImportError as error:
        raise BundleError(
            "conversion needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`"
        ) from error

    loaded = keras_model.load_keras(Path(model)) if isinstance(model, (str, Path)) else model
    graph = keras_model.take_apart(loaded)
    program = translate(graph)
    inputs = _golden_inputs(program, manifest.golden_steps)
    golden = keras_graph.run_sequence(graph, inputs)
    _check_streams(graph, inputs, golden)
    if isinstance(program, KerasProgram):
        from daemon.model.tensorflow_step import TensorflowStep

        difference = golden_difference(TensorflowStep(graph), inputs, golden)
    else:
        difference = golden_difference(NumpyStep(program), inputs, golden)
    if not difference <= TOLERANCE:
        raise BundleError(
            f"model {loaded.name}: the converted step differs from Keras by {difference:.2e}; please report it"
        )
    with tempfile.TemporaryDirectory() as scratch:
        keras_file = Path(scratch) / "model.keras"
        graph.model.save(keras_file)
        return write_bundle(out, manifest, program, inputs, golden, keras_file=keras_file, replace=replace)


def translate(graph: Graph) -> AnyProgram:
    """Return the numpy program of a model, or the reason why it has to stay with Keras."""
    nodes: list[Node] = []
    widths, numbers = [graph.n_features], [0]
    for call in graph.calls:
        inputs = tuple(numbers[value] for value in call.inputs)
        if keras_ops.is_passing(call.layer):
            numbers.append(inputs[0])
            continue
        if call.cell is not None:
            operations = [keras_ops.cell_op(cell) for cell in keras_ops.cells_of(call.cell)]
        else:
            operations = [keras_ops.layer_op(call.layer, widths[inputs[0]])]
        for op in operations:
            if op is None:
                return _keep_keras(graph, call.name)
            nodes.append(Node(op, inputs))
            widths.append(op.width([widths[value] for value in inputs]))
            inputs = (len(nodes),)
        numbers.append(len(nodes))
    return Program(graph.n_features, tuple(nodes))


def _keep_keras(graph: Graph, reason: str) -> KerasProgram:
    from daemon.model.keras_model import architecture

    model = graph.model
    sizes = (graph.n_features, int(model.outputs[0].shape[-1]))
    return KerasProgram(*sizes, architecture(model), tuple(model.get_weights()), reason)


def _golden_inputs(program: AnyProgram, steps: int) -> F32:
    """Draw inputs in the range the model expects: standard normal, or that of its own Normalization."""
    x = np.random.default_rng(SEED).standard_normal((steps, program.n_features)).astype(np.float32)
    if isinstance(program, Program):
        for node in program.nodes:
            if isinstance(node.op, Rescale) and node.inputs == (0,):
                return x / node.op.factor + node.op.offset
    return x


def _check_streams(graph: Graph, inputs: F32, golden: F32) -> None:
    """Hold the taken-apart model against the model itself, called as its user calls it."""
    from daemon.model.keras_graph import run_model

    answers, ticks = run_model(graph, inputs)
    difference = float(np.max(np.abs(answers - golden[ticks]) / np.maximum(1, np.abs(answers))))
    if not difference <= TOLERANCE:
        raise BundleError(
            f"model {graph.model.name} cannot stream: carried from tick to tick it differs by {difference:.2e} from "
            "its own answer to the sequence"
        )
