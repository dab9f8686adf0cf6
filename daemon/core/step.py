"""The contract of a recurrent step, and the order in which the ticks of a batch go through it.

A batch is cut into *chains*: the consecutive ticks of one instrument between two resets. The k-th tick of each chain
goes into *wave* k, so a wave holds each chain at most once and its rows can run as one batched step.

Invariants
----------
- Rows of a step depend on their own input and state only, to the bit: on no neighbour, no place, no number of rows.
  Implementations reach this with tiles of one fixed shape, and `daemon.model.selftest` measures it at start.
- A step never writes to its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Waves:
    """The order of a batch's rows: sorted by wave, the rows of wave w at ``bounds[w]:bounds[w + 1]``.

    Chains are numbered by length, the longest first, and stand in this order in every wave. So a wave is never wider
    than the one before it, and each of its rows goes on from the row at the same place there; in the first wave from
    the start state of that number.
    """

    #: Wave w is rows bounds[w] to bounds[w + 1]; bounds[-1] is the number of rows.
    bounds: tuple[int, ...]
    #: shape (ends,): the rows after which the state is to be returned, usually the last of each chain.
    final: Index

    def source(self, chains: int) -> Index:
        """Return for each row the number of the state that it starts from, and of the state after row r chains + r.

        The start states of the chains are numbers 0 to chains - 1.
        """
        bounds = np.array(self.bounds, np.intp)
        first = np.concatenate(([0], bounds[:-2] + chains))[: len(bounds) - 1]
        return np.arange(bounds[-1]) + np.repeat(first - bounds[:-1], np.diff(bounds))


class Step(Protocol):
    """A recurrent model with explicit state: ``step(x, state) -> (y, state')``.

    Promises: the invariants above; the same bits for the same input within one process and CPU type.
    Does *not* promise finite results: a model can overflow, and the caller looks.
    """

    #: Columns of the input, of the output, and floats of one row's whole recurrent state (h and c of every layer).
    n_features: int
    n_outputs: int
    state_size: int
    #: Rows of the fixed tile in which every matrix product runs.
    tile_rows: int
    #: shape (state_size,): the state of a chain that starts after a reset.
    initial_state: F32

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Advance each row by one tick.

        Parameters
        ----------
        x : float32 array, shape (rows, n_features); scaled, unitless
        state : float32 array, shape (rows, state_size)

        Returns
        -------
        y : float32 array, shape (rows, n_outputs); in the model's output units
        next_state : float32 array, shape (rows, state_size)
        """
        ...

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        """Advance whole chains: every wave in turn, each row from the state its chain has reached.

        Parameters
        ----------
        x : float32 array, shape (rows, n_features), rows in wave order
        start : float32 array, shape (chains, state_size)

        Returns
        -------
        y : float32 array, shape (rows, n_outputs), rows in wave order
        final : float32 array, shape (ends, state_size): the states after the rows that `waves.final` names
        finite : bool array, shape (rows,): false where a row's output or state holds a NaN or an infinity. Rows after
            the first false one of a chain say nothing.
        """
        ...


def scan_waves(step: Step, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
    """Do a `Step.scan` by calling `step.step` once per wave; the plain way, and the reference for faster ones."""
    chains, rows = len(start), len(x)
    states = np.empty((chains + rows, step.state_size), np.float32)
    states[:chains] = start
    y = np.empty((rows, step.n_outputs), np.float32)
    source = waves.source(chains)
    for low, high in zip(waves.bounds[:-1], waves.bounds[1:], strict=True):
        y[low:high], states[chains + low : chains + high] = step.step(x[low:high], states[source[low:high]])
    finite: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(states[chains:]), axis=1)
    finite &= np.logical_and.reduce(np.isfinite(y), axis=1)
    return y, states[chains + waves.final], finite
