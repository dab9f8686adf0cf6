"""The spread of each instrument's last forecasts: a model that forecasts a constant must not go unnoticed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daemon.core.step import F32

#: Forecasts looked back on.
WINDOW = 256
#: Below this many, a spread says nothing yet.
FEWEST = 32
#: Instruments that get a ring of their own: a MiB each for 256 of them with four horizons.
INSTRUMENTS_MAX = 1000
#: The name of all others together.
OTHER = "other"


class PredictionSpread:
    """Rings of the last outputs, one per instrument, at most `instruments_max` and one for all others.

    Parameters
    ----------
    outputs : columns of the model's output
    instruments_max : instruments that get a ring of their own, in order of appearance
    """

    def __init__(self, outputs: int, instruments_max: int = INSTRUMENTS_MAX) -> None:
        self._rings = np.zeros((instruments_max + 1, WINDOW, outputs), np.float32)
        self._seen = np.zeros(instruments_max + 1, np.int64)
        self._ring_of: dict[str, int] = {}
        self._instruments_max = instruments_max

    def observe(self, instruments: Sequence[str], outputs: F32) -> None:
        """Take a batch's outputs, float32 of shape (rows, outputs), in log order."""
        if not len(instruments):
            return
        rings = np.array([self._ring(name) for name in instruments], np.intp)
        order = np.argsort(rings, kind="stable")
        ring, first, count = np.unique(rings[order], return_index=True, return_counts=True)
        nth = np.arange(len(rings)) - np.repeat(first, count)
        place = (np.repeat(self._seen[ring], count) + nth) % WINDOW
        # Of more than a window's worth in one batch only the last count.
        fresh = nth >= np.repeat(count, count) - WINDOW
        self._rings[rings[order][fresh], place[fresh]] = outputs[order][fresh]
        self._seen[ring] += count

    def variances(self) -> dict[str, float]:
        """Return the variance of the last outputs of each instrument, averaged over the output columns.

        In the order of appearance, the others together last.
        """
        names = [*self._ring_of, OTHER]
        rings = [*range(len(names) - 1), self._instruments_max]
        held = np.minimum(self._seen[rings], WINDOW)
        judged = np.flatnonzero(held >= FEWEST)
        count = held[judged, None]
        filled = (np.arange(WINDOW) < count).astype(np.float64)
        outputs = self._rings[np.array(rings)[judged]]
        # Moved so that a ring's first output is 0: then a constant has a variance of exactly 0, whatever it is. (`var`
        # with a mask took three times as long.)
        moved = (outputs - outputs[:, :1]).astype(np.float64)
        mean = np.einsum("rnk,rn->rk", moved, filled) / count
        square = np.einsum("rnk,rnk,rn->rk", moved, moved, filled) / count
        variance = np.maximum(square - mean**2, 0.0).mean(axis=1)
        return dict(zip([names[index] for index in judged], variance.tolist(), strict=True))

    def _ring(self, name: str) -> int:
        ring = self._ring_of.get(name)
        if ring is None:
            if len(self._ring_of) >= self._instruments_max:
                return self._instruments_max
            ring = self._ring_of[name] = len(self._ring_of)
        return ring
