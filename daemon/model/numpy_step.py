"""The step that runs a converted model on numpy alone.

Part by part instead of tick by tick: what carries no state runs for the whole batch at once, and recurrent layers on
one another run wave by wave, together (`daemon.model.stack`). Real feeds have few instruments that make most of the
ticks, so waves are thin, and what they cost is the number of calls.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32, Waves
from daemon.model.cells import alike, make_cell
from daemon.model.grid import one_wave
from daemon.model.maps import Map, make_map
from daemon.model.program import Node, Program
from daemon.model.stack import LAYERS_MAX, Stack

#: Slots of 4 and 8 rows agreed on every kernel of OpenBLAS tried, those of 16 not on Haswell and Zen. Waves of 500 rows
#: took as long on either with AVX-512, and a fifth less on 8 rows without. A wave of fewer rows takes fewer where that
#: gives the same bits (`daemon.model.stack`).
TILE_ROWS = 8


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
        self._parts = [(_make(part, tile_rows), part[0].inputs) for part in _stacked(program.nodes)]

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Advance each row by one tick; see `daemon.core.step.Step`."""
        y, after, _ = self.scan(x, state, one_wave(len(x)))
        return y, after

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        """Advance whole chains; see `daemon.core.step.Step`."""
        values, finite, columns = [x], np.ones(len(x), np.bool_), 0
        if not len(x):
            return np.empty((0, self.n_outputs), np.float32), start[:0], finite
        final = np.empty((len(waves.final), self.state_size), np.float32)
        # A model that overflows is an outcome, not a fault of ours: `finite` says so, row by row.
        with np.errstate(all="ignore"):
            for part, inputs in self._parts:
                if isinstance(part, Stack):
                    own = slice(columns, columns + part.state_size)
                    columns = own.stop
                    hidden, ends, sound = part.scan(values[inputs[0]], start[:, own], waves)
                    values += hidden
                    final[:, own] = ends
                    finite &= sound
                else:
                    values.append(part([values[value] for value in inputs]))
        return values[-1], final, finite & np.isfinite(values[-1]).all(axis=1)


def _make(part: Sequence[Node], tile_rows: int) -> Stack | Map:
    op = part[0].op
    if not op.state_widths:
        return make_map(op, tile_rows)
    return Stack(make_cell([node.op for node in part], tile_rows), len(op.state_widths), tile_rows)


def _stacked(nodes: Sequence[Node]) -> list[list[Node]]:
    """Put recurrent layers that stand on one another and can run together into one part, all else into its own."""
    parts: list[list[Node]] = []
    for value, node in enumerate(nodes):  # value is the number of the value that the node before gave
        below = parts[-1] if parts and node.inputs == (value,) and node.op.state_widths else []
        if below and len(below) < LAYERS_MAX and alike(below[-1].op, node.op):
            below.append(node)
        else:
            parts.append([node])
    return parts
