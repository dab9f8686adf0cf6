"""Conversion: a Keras model into a bundle, proven against Keras itself before anything is written."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.core.spec import ModelSpec
from daemon.core.step import F32, Step
from daemon.errors import BundleError
from daemon.model import keras_ops
from daemon.model.bundle import Bundle, in_mode, initial_state, rolled_out, write_bundle
from daemon.model.facts import Decision, Facts, Mode, decide_mode, explain, facts_of
from daemon.model.keras_quiet import import_keras
from daemon.model.manifest import Manifest
from daemon.model.numpy_step import NumpyStep
from daemon.model.ops import Rescale
from daemon.model.program import AnyProgram, KerasProgram, Node, Program
from daemon.model.selftest import TOLERANCE, golden_difference
from daemon.model.spec_file import Spec, read_spec
from daemon.model.spec_manifest import manifest_of

if TYPE_CHECKING:
    from daemon.model.keras_graph import Graph
    from daemon.model.proof import Proof

#: Seed of the golden inputs: the same model gives the same bundle.
SEED = 20_260_102

AnySpec = Manifest | Spec | Mapping[str, Any] | Path | str


@dataclass(frozen=True)
class Conversion:
    """A model converted and proven; `write` makes a bundle of it."""

    graph: Graph
    facts: Facts
    decision: Decision
    manifest: Manifest
    program: AnyProgram
    golden_inputs: F32
    golden_outputs: F32
    proof: Proof

    @property
    def sentence(self) -> str:
        """Say in one sentence which mode was chosen and why."""
        return explain(self.decision, self.facts, self.manifest.steps)

    @property
    def engine(self) -> str:
        """Say what runs the model."""
        if isinstance(self.program, Program):
            return "runs on numpy"
        return f"runs on TensorFlow, about 100 times slower than numpy, because of {self.program.reason}"

    def ways(self, steps: int) -> dict[Mode, tuple[ModelSpec, Step]]:
        """Return the model in both modes, with windows of so many ticks."""
        initial = initial_state(self.manifest)
        found: dict[Mode, tuple[ModelSpec, Step]] = {}
        for mode, length in (("window", steps), ("carried", 1)):
            manifest = Manifest.model_validate(
                self.manifest.model_dump() | {"mode": mode, "steps": length, "validation_variance": None}
            )
            step = rolled_out(_step(self.graph, self.program, manifest, initial), manifest)
            found[manifest.mode] = manifest.spec("compared"), step
        return found

    def write(self, out: Path, *, replace: bool = False) -> Bundle:
        """Write the bundle, whole or not at all.

        Raises
        ------
        BundleError : if `out` exists, or the folder cannot be written
        """
        with tempfile.TemporaryDirectory() as scratch:
            keras_file = Path(scratch) / "model.keras"
            self.graph.model.save(keras_file)
            golden = self.golden_inputs, self.golden_outputs
            return write_bundle(out, self.manifest, self.program, *golden, keras_file=keras_file, replace=replace)


def convert(model: Any, spec: AnySpec, out: Path | str, *, mode: Mode | None = None, replace: bool = False) -> Bundle:
    """Write a Keras model as a bundle.

    Parameters
    ----------
    model : a `keras.Model`, or the path of a `.keras` or `.h5` file; it is not changed
    spec : what its columns and outputs mean: the path of a spec file, the same as a dict or `Spec`, or a `Manifest`
    out : folder of the bundle
    mode : "carried" or "window", in place of what the spec says or the model's shape means
    replace : take the place of a bundle that stands there

    Raises
    ------
    SettingsError : the spec does not fit the model; the message names the key, column or count
    BundleError : names the layer that cannot stream and why, or what does not fit

    Nothing is written unless the converted step gives the model's own answers, see `daemon.model.proof`.
    """
    return prepare(model, spec, mode=mode).write(Path(out), replace=replace)


def prepare(model: Any, spec: AnySpec, *, mode: Mode | None = None) -> Conversion:
    """Convert and prove a model without writing anything; see `convert`."""
    graph, program, facts = look_at(model)
    if isinstance(spec, Manifest):
        manifest, decision = spec, Decision(spec.mode, "as its manifest says")
    else:
        read = read_spec(spec)
        decision = decide_mode(facts, mode or read.mode, read.steps)
        where = str(spec) if isinstance(spec, (str, Path)) else "the spec"
        manifest = manifest_of(read, facts, decision.mode, where)
    _check_counts(manifest, facts)
    from daemon.model.proof import keeps_all_states, prove

    initial = initial_state(manifest)
    inputs = _draw_inputs(program, manifest.golden_steps, SEED)
    golden = _golden_outputs(graph, inputs, manifest)
    difference = golden_difference(_step(graph, program, manifest, initial), inputs, golden)
    if not difference <= TOLERANCE:
        raise BundleError(
            f"model {facts.name}: the converted step differs from Keras by {difference:.2e}; please report it"
        )
    start = initial if keeps_all_states(facts) else None
    step = _step(graph, program, manifest, start)
    proof = prove(graph, facts, step, lambda rows: _draw_inputs(program, rows, SEED + 1), start)
    return Conversion(graph, facts, decision, manifest, program, inputs, golden, proof)


def look_at(model: Any) -> tuple[Graph, AnyProgram, Facts]:
    """Load a model and take it apart.

    Raises
    ------
    BundleError : it is no model that can stream, or TensorFlow is missing
    """
    # Keras and TensorFlow take seconds to import; serving never gets here.
    try:
        import_keras()
        from daemon.model import keras_model
    except ImportError as error:
        raise BundleError(
            "conversion needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`"
        ) from error

    loaded = keras_model.load_keras(Path(model)) if isinstance(model, (str, Path)) else model
    graph = keras_model.take_apart(loaded)
    program = translate(graph)
    return graph, program, facts_of(loaded, graph, program.n_outputs)


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


def _check_counts(manifest: Manifest, facts: Facts) -> None:
    for what, found, named in (
        ("reads {} columns", facts.n_features, len(manifest.columns)),
        ("has {} outputs", facts.n_outputs, len(manifest.outputs)),
    ):
        if found != named:
            raise BundleError(f"this model {what.format(found)}, the manifest names {named}")


def _step(graph: Graph, program: AnyProgram, manifest: Manifest, initial: F32 | None) -> Step:
    """Return the converted model in the manifest's mode."""
    if isinstance(program, Program):
        return in_mode(NumpyStep(program, initial_state=initial), manifest)
    from daemon.model.tensorflow_step import TensorflowStep

    return in_mode(TensorflowStep(graph, initial_state=initial), manifest)


def _golden_outputs(graph: Graph, inputs: F32, manifest: Manifest) -> F32:
    """Return Keras' own answers at each tick of one sequence from a reset."""
    from daemon.model.keras_graph import run_sequence

    if manifest.mode == "window":
        return _golden_windows(graph, inputs, manifest)
    if not manifest.initial_state:
        return run_sequence(graph, inputs)
    return np.concatenate(_run_ticks(graph, inputs[np.newaxis], manifest))


def _golden_windows(graph: Graph, inputs: F32, manifest: Manifest) -> F32:
    """Answer the window that each tick ends; the first ones are as short as they are."""
    steps = manifest.steps
    windows = np.lib.stride_tricks.sliding_window_view(inputs, steps, axis=0).swapaxes(1, 2)
    answers = _run_ticks(graph, np.ascontiguousarray(windows), manifest)
    return np.concatenate([answers[0, :-1], answers[:, -1]])


def _run_ticks(graph: Graph, sequences: F32, manifest: Manifest) -> F32:
    """Run sequences side by side through Keras' own cells, shape (sequences, ticks, features) to (..., outputs)."""
    from daemon.model.keras_graph import run_tick

    widths = graph.state_widths
    initial = initial_state(manifest)
    start = np.zeros(sum(widths), np.float32) if initial is None else initial
    parts = np.split(start, np.cumsum(widths)[:-1]) if widths else []
    states: list[Any] = [np.tile(part, (len(sequences), 1)) for part in parts]
    found = []
    for tick in range(sequences.shape[1]):
        y, states = run_tick(graph, sequences[:, tick], states)
        found.append(np.asarray(y, np.float32))
    return np.stack(found, axis=1)


def _draw_inputs(program: AnyProgram, rows: int, seed: int) -> F32:
    """Draw inputs in the range the model expects: standard normal, or that of its own Normalization."""
    x = np.random.default_rng(seed).standard_normal((rows, program.n_features)).astype(np.float32)
    if isinstance(program, Program):
        for node in program.nodes:
            if isinstance(node.op, Rescale) and node.inputs == (0,):
                return x / node.op.factor + node.op.offset
    return x
