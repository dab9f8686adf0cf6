"""Puts the rows of a batch into chains and waves while they are accepted, and plans their way through the step."""

from __future__ import annotations

import numpy as np

from daemon.core.instrument import Instrument
from daemon.core.step import Index, Waves


class Planner:
    """Collects rows in log order, then orders them by wave.

    A chain is the consecutive rows of one instrument between two resets; the k-th row of a chain goes into wave k.
    """

    def __init__(self, batch: int) -> None:
        self._batch = batch
        #: Per row: its wave, its chain, and the row before it in its chain (-1 for the first).
        self._wave: list[int] = []
        self.chain_of_row: list[int] = []
        self._previous: list[int] = []
        #: Per chain: the slot its start state comes from (-1 for the initial state), its length, its last row.
        self._start_slot: list[int] = []
        self._length: list[int] = []
        self._last_row: list[int] = []
        #: Slot -> the chain whose end it takes; a later chain of the same instrument replaces the earlier.
        self._owner: dict[int, int] = {}

    def add(self, instrument: Instrument, *, reset: bool) -> None:
        """Append the next row in log order, of this instrument."""
        row = len(self._wave)
        if reset or instrument.batch != self._batch:
            chain = len(self._length)
            instrument.batch, instrument.chain = self._batch, chain
            self._start_slot.append(-1 if reset else instrument.slot)
            self._length.append(0)
            self._last_row.append(row)
            self._owner[instrument.slot] = chain
            self._previous.append(-1)
        else:
            chain = instrument.chain
            self._previous.append(self._last_row[chain])
        self._wave.append(self._length[chain])
        self.chain_of_row.append(chain)
        self._length[chain] += 1
        self._last_row[chain] = row

    def plan(self) -> tuple[Index, Waves]:
        """Return the rows' order (row numbers, by wave) and the waves over that order."""
        wave = np.array(self._wave, np.intp)
        order = np.argsort(wave, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        chains = len(self._length)
        previous = np.array(self._previous, np.intp)
        source = np.where(previous < 0, np.array(self.chain_of_row, np.intp), chains + place[previous])
        bounds = np.concatenate([[0], np.cumsum(np.bincount(wave))])
        return order, Waves(tuple(bounds.tolist()), source[order], chains + place[np.array(self._last_row, np.intp)])

    @property
    def start_slots(self) -> Index:
        """Per chain, the slot its start state comes from; -1 for the initial state."""
        return np.array(self._start_slot, np.intp)

    def ends(self) -> tuple[Index, Index]:
        """Return slots and, for each, the chain whose final state it takes."""
        return np.array(list(self._owner), np.intp), np.array(list(self._owner.values()), np.intp)

    def is_last_chain(self, instrument: Instrument, chain: int) -> bool:
        """Say whether the instrument ends the batch in this chain."""
        return self._owner[instrument.slot] == chain
