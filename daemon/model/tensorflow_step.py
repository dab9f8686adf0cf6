"""The step for layers that numpy lacks: Keras' own layers and cells with explicit states, in one `tf.function`.

Slower by a factor of about 100 than the numpy step for thin waves, and the daemon then needs TensorFlow; but whatever
Keras can run tick by tick runs. The function is traced once, for one tile; larger batches take several tiles.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from daemon.core.step import F32, Waves, scan_waves
from daemon.errors import BundleError
from daemon.model.grid import side_by_side
from daemon.model.keras_graph import Graph, run_tick
from daemon.model.keras_model import architecture, load_keras, take_apart
from daemon.model.numpy_step import TILE_ROWS
from daemon.model.program import AnyProgram, KerasProgram


class TensorflowStep:
    """A `daemon.core.step.Step` over a Keras model taken apart; see `NumpyStep` for the parameters.

    Raises BundleError where the initial state has another length than the model's state.
    """

    def __init__(self, graph: Graph, tile_rows: int = TILE_ROWS, initial_state: F32 | None = None) -> None:
        self.tile_rows = tile_rows
        self.n_features = graph.n_features
        self.n_outputs = int(graph.model.outputs[0].shape[-1])
        self.state_size = sum(graph.state_widths)
        self.initial_state = np.zeros(self.state_size, np.float32) if initial_state is None else initial_state
        if len(self.initial_state) != self.state_size:
            raise BundleError(
                f"the initial state has {len(self.initial_state)} numbers, the model's state {self.state_size}"
            )
        columns = side_by_side(graph.state_widths)

        def advance(x: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            y, after = run_tick(graph, x, [state[:, part] for part in columns])
            return y, tf.concat([state[:, :0], *after], axis=1)

        signature = [tf.TensorSpec((tile_rows, width), tf.float32) for width in (self.n_features, self.state_size)]
        self._advance = tf.function(advance, input_signature=signature, autograph=False)

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Advance each row by one tick; see `daemon.core.step.Step`."""
        rows = len(x)
        padded = -(-rows // self.tile_rows) * self.tile_rows
        features, before = (
            np.zeros((padded, self.n_features), np.float32),
            np.zeros((padded, self.state_size), np.float32),
        )
        features[:rows], before[:rows] = x, state
        y, after = np.empty((padded, self.n_outputs), np.float32), np.empty_like(before)
        for low in range(0, padded, self.tile_rows):
            tile = slice(low, low + self.tile_rows)
            y[tile], after[tile] = self._advance(tf.constant(features[tile]), tf.constant(before[tile]))
        return y[:rows], after[:rows]

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        """Advance whole chains; see `daemon.core.step.Step`."""
        return scan_waves(self, x, start, waves)


def load_step(
    keras_file: Path, program: AnyProgram, tile_rows: int, initial_state: F32 | None = None
) -> TensorflowStep:
    """Return the step of a bundle's Keras file.

    Raises
    ------
    BundleError : if the file is missing, no model, or not the model of the bundle's id
    """
    model = load_keras(keras_file)
    if isinstance(program, KerasProgram):
        weights = model.get_weights()
        same = len(weights) == len(program.weights) and all(map(np.array_equal, weights, program.weights))
        if not same or architecture(model) != program.architecture:
            raise BundleError(f"{keras_file} is not the model of the bundle's id; convert the model again")
    return TensorflowStep(take_apart(model), tile_rows, initial_state)
