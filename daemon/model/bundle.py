"""The bundle: a folder with everything the daemon needs of a model, known by one id.

======================  ========================================================  =========
file                    holds                                                     in the id
======================  ========================================================  =========
``manifest.json``       `Manifest`                                                all but `trained_on`
``program.json``        operations and settings (architecture)                    yes
``weights.npz``         the program's arrays                                      yes
``golden.npz``          one input sequence and Keras' own outputs at each tick    no
``model.keras``         the Keras model it came from; optional for numpy          no
``id``                  the id; written last                                      -
======================  ========================================================  =========

Golden vectors and the Keras file need no place in the id: the self-test at start runs the one through the model, and
a TensorFlow step compares the other's weights with the program's. The id is the hash of values, not of zip bytes or
dates, so converting the same model twice gives the same id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from daemon.core.pipeline import PipelineOptions
from daemon.core.sessions import Rules
from daemon.core.spec import ModelSpec
from daemon.core.step import F32, Step
from daemon.errors import BundleError
from daemon.model import folder
from daemon.model.canary import canary_ticks
from daemon.model.manifest import FORMAT, Manifest
from daemon.model.numpy_step import TILE_ROWS, NumpyStep
from daemon.model.program import AnyProgram, KerasProgram, Program, parse_program
from daemon.model.rollout import RolloutStep
from daemon.model.window_step import WindowStep

Engine = Literal["auto", "numpy", "tensorflow"]

MANIFEST, PROGRAM, WEIGHTS, GOLDEN, KERAS, ID = (
    "manifest.json", "program.json", "weights.npz", "golden.npz", "model.keras", "id",
)  # fmt: skip
FILES = (MANIFEST, PROGRAM, WEIGHTS, GOLDEN, KERAS, ID)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model read from its folder, checked against its id."""

    path: Path
    #: 16 hexadecimal digits; the same for the same weights, architecture and manifest.
    id: str
    manifest: Manifest
    program: AnyProgram
    #: shapes (golden_steps, n_features) and (golden_steps, n_outputs): one sequence from a reset. In window mode the
    #: output of a tick is the answer to the window that it ends. Outputs are the model's own, before any roll-out.
    golden_inputs: F32
    golden_outputs: F32

    @property
    def spec(self) -> ModelSpec:
        return self.manifest.spec(self.id)

    @cached_property
    def canary_ticks(self) -> tuple[bytes, ...]:
        """JSON values of the canary's ticks, the same for the same columns."""
        return canary_ticks(self.manifest.columns)

    def predict(self, ticks: Any, *, rules: Rules | None = None, options: PipelineOptions | None = None) -> Any:
        """Forecast after every tick of a DataFrame or of an iterable of dicts, as the daemon would from a reset.

        See `daemon.model.predict.predict`; the step is proven by the self-test first, once.
        """
        from daemon.model.predict import predict

        return predict(self.spec, self._proven_step, ticks, rules=rules, options=options)

    @cached_property
    def _proven_step(self) -> Step:
        from daemon.model.selftest import self_test

        return self_test(self)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a bundle.

        Raises
        ------
        BundleError : one line that names what is missing or wrong, and the remedy
        """
        path = Path(path)
        _check_present(path)
        manifest = _parse_manifest(path, folder.read_json(path / MANIFEST))
        arrays = folder.read_arrays(path / WEIGHTS)
        description = folder.read_json(path / PROGRAM)
        try:
            program = parse_program(description, arrays)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise BundleError(f"{path / PROGRAM} and {WEIGHTS} do not fit together: {error}; {REMEDY}") from error
        identity = _identity(manifest, program)
        expected = folder.read_text(path / ID).strip()
        if identity != expected:
            raise BundleError(
                f"{path}: weights, architecture or manifest were changed after the bundle was written "
                f"(id {expected[:32]!r}, contents {identity!r}); {REMEDY}"
            )
        golden_inputs, golden_outputs = _golden(path, manifest)
        _check_fits(manifest, program, str(path))
        return cls(path, identity, manifest, program, golden_inputs, golden_outputs)

    def step(self, engine: Engine = "auto", tile_rows: int | None = None) -> Step:
        """Return a step that runs the bundle; `daemon.model.selftest.self_test` returns one that is proven, too.

        Its outputs are those of `spec`; see `model_step` for parameters and errors.
        """
        return rolled_out(self.model_step(engine, tile_rows), self.manifest)

    def model_step(self, engine: Engine = "auto", tile_rows: int | None = None) -> Step:
        """Return a step that answers as the Keras model does in the bundle's mode, before any roll-out.

        Parameters
        ----------
        engine : "auto" takes numpy wherever it can
        tile_rows : rows of the tile in which products run, or None for the engine's own choice

        Raises
        ------
        BundleError : if the engine cannot run this model
        """
        initial = initial_state(self.manifest)
        if isinstance(self.program, Program) and engine != "tensorflow":
            return in_mode(NumpyStep(self.program, tile_rows or TILE_ROWS, initial), self.manifest)
        if engine == "numpy":
            reason = self.program.reason if isinstance(self.program, KerasProgram) else ""
            raise BundleError(f'{self.path}: numpy cannot run {reason}; set [model] engine = "auto"')
        from daemon.model.tensorflow_step import load_step

        return in_mode(load_step(self.path / KERAS, self.program, tile_rows or TILE_ROWS, initial), self.manifest)


REMEDY = "write the bundle again with `tickcast convert` or `tickcast train`"


def initial_state(manifest: Manifest) -> F32 | None:
    """Return what a state of the model starts from, None for zeros."""
    return np.array(manifest.initial_state, np.float32) if manifest.initial_state else None


def in_mode(step: Step, manifest: Manifest) -> Step:
    """Return the step that runs a recurrent one in the manifest's mode."""
    return WindowStep(step, manifest.steps) if manifest.mode == "window" else step


def rolled_out(step: Step, manifest: Manifest) -> Step:
    """Return the step whose outputs are those that the manifest publishes."""
    if not manifest.future and not manifest.unpublished:
        return step
    return RolloutStep(step, manifest.columns, manifest.outputs, manifest.rollout, manifest.published)


def write_bundle(
    out: Path,
    manifest: Manifest,
    program: AnyProgram,
    golden_inputs: F32,
    golden_outputs: F32,
    *,
    keras_file: Path | None = None,
    replace: bool = False,
) -> Bundle:
    """Write a bundle and read it back; whole or not at all.

    Parameters
    ----------
    out : the folder to write; its parent must exist
    golden_inputs, golden_outputs : shapes (golden_steps, n_features) and (golden_steps, n_outputs)
    keras_file : the Keras model, to be copied into the bundle; required for a `KerasProgram`
    replace : take the place of a bundle that stands there

    Raises
    ------
    BundleError : if parts do not fit together, `out` exists, or the folder cannot be written
    """
    out = Path(out)
    _check_fits(manifest, program, "this model")
    _check_golden_shapes(manifest, golden_inputs, golden_outputs, "golden vectors")
    if isinstance(program, KerasProgram) and keras_file is None:
        raise BundleError("a model that TensorFlow runs needs its Keras file in the bundle")
    with folder.replacing(out, replace=replace) as draft:
        folder.write_json(draft / MANIFEST, manifest.model_dump(mode="json"))
        folder.write_json(draft / PROGRAM, program.describe())
        folder.write_arrays(draft / WEIGHTS, program.arrays())
        folder.write_arrays(draft / GOLDEN, {"inputs": golden_inputs, "outputs": golden_outputs})
        if keras_file is not None:
            folder.copy(keras_file, draft / KERAS)
        (draft / ID).write_text(_identity(manifest, program) + "\n", "ascii")
        # What cannot be read back never takes the place of anything.
        Bundle.load(draft)
    return Bundle.load(out)


def _identity(manifest: Manifest, program: AnyProgram) -> str:
    digest = hashlib.sha256(_canonical([manifest.identity(), program.describe()]))
    for name, array in sorted(program.arrays().items()):
        digest.update(_canonical([name, array.dtype.str, list(array.shape)]))
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _check_present(path: Path) -> None:
    if not path.is_dir():
        raise BundleError(f"no bundle folder at {path}; set [model] bundle, or make one with `tickcast train`")
    missing = [name for name in (MANIFEST, PROGRAM, WEIGHTS, GOLDEN, ID) if not (path / name).is_file()]
    if MANIFEST in missing and PROGRAM in missing:
        raise BundleError(f"{path} holds no bundle; set [model] bundle to one, or make one with `tickcast train`")
    if missing:
        raise BundleError(f"{path}: {', '.join(missing)} missing; {REMEDY}")
    # A volume of Kubernetes links its files too, but within the folder.
    strays = [name for name in FILES if not (path / name).resolve().is_relative_to(path.resolve())]
    if strays:
        raise BundleError(f"{path / strays[0]} leads out of the bundle's folder; put the file itself there")


def _parse_manifest(path: Path, content: Any) -> Manifest:
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise BundleError(f"{path} has format {version}, this version reads up to {FORMAT}; upgrade tickcast")
    if isinstance(version, int) and version < FORMAT:
        raise BundleError(f"{path} has format {version}, an older one than {FORMAT}, which is read; {REMEDY}")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{path / MANIFEST}: {where}: {first['msg']}; {REMEDY}") from error


def _check_fits(manifest: Manifest, program: AnyProgram, what: str) -> None:
    if len(manifest.columns) != program.n_features:
        raise BundleError(f"{what} reads {program.n_features} columns, the manifest names {len(manifest.columns)}")
    if len(manifest.outputs) != program.n_outputs:
        raise BundleError(f"{what} has {program.n_outputs} outputs, the manifest names {len(manifest.outputs)}")
    if isinstance(program, Program) and len(manifest.initial_state) not in (0, program.state_size):
        found = len(manifest.initial_state)
        raise BundleError(f"{what} has a state of {program.state_size} numbers, its initial_state has {found}")
    if not all(np.isfinite(array).all() for array in program.arrays().values()):
        raise BundleError(f"{what} has weights that are NaN or infinite; train it again")


def _golden(path: Path, manifest: Manifest) -> tuple[F32, F32]:
    arrays: Mapping[str, NDArray[Any]] = folder.read_arrays(path / GOLDEN)
    if arrays.keys() != {"inputs", "outputs"} or any(array.dtype != np.float32 for array in arrays.values()):
        raise BundleError(f"{path / GOLDEN} holds no golden vectors; {REMEDY}")
    _check_golden_shapes(manifest, arrays["inputs"], arrays["outputs"], str(path / GOLDEN))
    return arrays["inputs"], arrays["outputs"]


def _check_golden_shapes(manifest: Manifest, inputs: F32, outputs: F32, what: str) -> None:
    expected = ((manifest.golden_steps, len(manifest.columns)), (manifest.golden_steps, len(manifest.outputs)))
    if (inputs.shape, outputs.shape) != expected:
        raise BundleError(
            f"{what} have shapes {inputs.shape} and {outputs.shape}, expected {expected[0]} and {expected[1]}"
        )
