"""The step that runs a converted model on numpy alone.

Layer by layer instead of tick by tick: what does not depend on the state (input projections, dense layers) runs for
the whole batch at once, and only the recurrent part goes wave by wave. Real feeds have few instruments that make most
of the ticks, so waves are thin and this is most of the speed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32, Waves
from daemon.model.cells import Cell, make_cell
from daemon.model.grid import Grid, lay_out, one_wave, side_by_side
from daemon.model.maps import make_map
from daemon.model.program import Program

#: Chosen for thin waves: on 2 x LSTM(64) one of up to 4 rows took 23 us, against 30 us on tiles of 8 rows, and most
#: waves of real feeds are that thin; waves of 500 rows took 2.1 us a row on either (AMD EPYC with AVX-512).
#: Slots of 4 and 8 rows agreed on every kernel of OpenBLAS tried, those of 16 not on Haswell and Zen.
TILE_ROWS = 4


class NumpyStep:
    """A `daemon.core.step.Step` over a `Program`.

    Not safe for several threads: buffers are reused from call to call. Results are never views of them.

    Parameters
    ----------
    tile_rows : rows of the tile in which products run
    initial_state : shape (state_size,), or None for zeros
    """

    def __init__(self, program: Program, tile_rows: int = TILE_ROWS, initial_state: F32 | None = None) -> None:
        self.tile_rows = tile_rows
        self.n_features = program.n_features
        self.n_outputs = program.n_outputs
        self.state_size = program.state_size
        self.initial_state = np.zeros(program.state_size, np.float32) if initial_state is None else initial_state
        self._layers = [
            ((make_cell if node.op.state_widths else make_map)(node.op, tile_rows), node.inputs)
            for node in program.nodes
        ]
        self._columns = side_by_side([width for node in program.nodes for width in node.op.state_widths])

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Advance each row by one tick; see `daemon.core.step.Step`."""
        y, after, _ = self.scan(x, state, one_wave(len(x)))
        return y, after

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        """Advance whole chains; see `daemon.core.step.Step`."""
        grid = lay_out(waves, len(start), self.tile_rows)
        features = np.zeros((grid.slots, self.n_features), np.float32)
        features[grid.place] = x
        final = np.empty((len(waves.final), self.state_size), np.float32)
        # A model that overflows is an outcome, not a fault of ours: `finite` says so, row by row.
        with np.errstate(all="ignore"):
            y, slot_finite = self._run(features, start, final, grid)
        return y[grid.place], final, slot_finite[grid.place]

    def _run(self, features: F32, start: F32, final: F32, grid: Grid) -> tuple[F32, NDArray[np.bool_]]:
        values = [features]
        finite = np.ones(grid.slots, bool)
        columns = iter(self._columns)
        for layer, inputs in self._layers:
            if isinstance(layer, Cell):
                own = [next(columns) for _ in layer.state_widths]
                states = layer.scan(values[inputs[0]], [start[:, part] for part in own], grid)
                for part, state in zip(own, states, strict=True):
                    final[:, part] = state[grid.final]
                    finite &= np.isfinite(state[grid.after]).all(axis=1)
                values.append(states[0][grid.after])
            else:
                values.append(layer([values[value] for value in inputs]))
        return values[-1], finite & np.isfinite(values[-1]).all(axis=1)
