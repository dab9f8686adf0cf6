"""How far the model's inputs are from those it was trained on, column by column.

A frozen scale comes from training, so what the model sees should have mean 0 and standard deviation 1: the last
`WINDOW` inputs say whether it still has. Under a running scale that is always so, for the scale follows its instrument;
there the scale itself is compared with the one it started from, which is that of the training part: the median over
the instruments, or over `INSTRUMENTS_MAX` of them.

The loop only copies rows into a ring, and none where no scale is frozen; the rest is computed when somebody looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from daemon.core.features import FeatureTable
from daemon.core.instrument import Instrument
from daemon.core.spec import Column, ModelSpec
from daemon.core.step import F32

F64 = NDArray[np.float64]

#: Inputs looked back on, of all instruments together.
WINDOW = 4096
#: Below this many, they say nothing yet.
FEWEST = 256
#: Instruments whose running scales are looked at.
INSTRUMENTS_MAX = 300


class ColumnDrift(NamedTuple):
    """One input column against training."""

    column: int
    feature: str
    #: Mean now minus mean in training, in standard deviations of training.
    shift: float
    #: Standard deviation now over that of training.
    scale: float


class InputDrift:
    """Looks at the inputs of one model.

    Parameters
    ----------
    spec : the model
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._columns = spec.columns
        self._frozen = [index for index, column in enumerate(spec.columns) if column.scale == "frozen"]
        self._scale_at = FeatureTable(spec.columns, spec.volatility_prior, spec.missing).scale_at
        self._ring = np.zeros((WINDOW, len(self._frozen)), np.float32)
        self._seen = 0

    def observe(self, inputs: F32) -> None:
        """Take a batch's inputs, float32 of shape (rows, columns), in log order."""
        if not self._frozen or not len(inputs):
            return
        rows = inputs[-WINDOW:, self._frozen]
        self._ring[np.arange(self._seen, self._seen + len(rows)) % WINDOW] = rows
        self._seen += len(rows)

    def columns(self, instruments: Sequence[Instrument]) -> list[ColumnDrift]:
        """Return the drift of every column of which something is known.

        Parameters
        ----------
        instruments : those with state, or those of them that ticked last
        """
        return [*self._of_frozen(), *self._of_running(instruments)]

    def _of_frozen(self) -> list[ColumnDrift]:
        if self._seen < FEWEST:
            return []
        rows = self._ring[: self._seen].astype(np.float64)
        means, stds = rows.mean(axis=0).tolist(), rows.std(axis=0).tolist()
        return [
            ColumnDrift(index, self._columns[index].feature, mean, std)
            for index, mean, std in zip(self._frozen, means, stds, strict=True)
        ]

    def _of_running(self, instruments: Sequence[Instrument]) -> list[ColumnDrift]:
        if not instruments or len(self._frozen) == len(self._columns):
            return []
        stride = -(-len(instruments) // INSTRUMENTS_MAX)
        cells = np.array([instrument.cells for instrument in instruments[::stride]])
        return [
            ColumnDrift(index, column.feature, *_against_training(column, cells[:, at : at + 2]))
            for index, (column, at) in enumerate(zip(self._columns, self._scale_at, strict=True))
            if column.scale == "running"
        ]


def _against_training(column: Column, scales: F64) -> tuple[float, float]:
    """Return shift and scale of a column, the medians over instruments.

    Parameters
    ----------
    scales : running mean and variance, shape (instruments, 2)
    """
    shift = np.median((scales[:, 0] - column.mean) / column.std)
    return float(shift), float(np.median(np.sqrt(scales[:, 1])) / column.std)
