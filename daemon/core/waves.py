"""Puts the rows of a batch into chains and waves, and plans their way through the step.

A chain is the consecutive rows of one instrument between two resets; the k-th row of a chain goes into wave k. Chains
are numbered by length, the longest first, as `Waves` wants them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import Index, Waves

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the rows of a batch go, and where the states come from and stay."""

    #: shape (rows,): row numbers in the order of the waves.
    order: Index
    waves: Waves
    #: shape (rows,): the chain of each row, in log order.
    chain: Index
    #: shape (chains,): the slot a chain's start state comes from; -1 for the initial state.
    start_slots: Index
    #: shape (chains,): the slot a chain's last state goes to; -1 where a later chain of the instrument takes it.
    end_slots: Index


def plan(slots: Index, resets: Bools) -> Plan:
    """Plan the rows of a batch.

    Parameters
    ----------
    slots : shape (rows,), in log order, at least one row; the slot of each row's instrument, no two have the same
    resets : shape (rows,): whether the instrument starts anew at this row
    """
    rows = len(slots)
    # By instrument, in log order within each: a chain is then one run of rows.
    by_slot = np.argsort(slots, kind="stable")
    slot, begins = slots[by_slot], resets[by_slot]
    reset = begins.copy()
    other = slot[1:] != slot[:-1]
    begins[0] = True
    begins[1:] |= other
    first = np.flatnonzero(begins)
    length = np.diff(first, append=rows)
    longest = np.argsort(-length, kind="stable")
    number = np.empty_like(longest)
    number[longest] = np.arange(len(longest))

    run = np.cumsum(begins) - 1
    wave, chain = np.arange(rows) - first[run], number[run]
    bounds = np.concatenate(([0], np.cumsum(np.bincount(wave))))
    order, chain_of_row = np.empty_like(by_slot), np.empty_like(by_slot)
    order[bounds[wave] + chain] = by_slot
    chain_of_row[by_slot] = chain

    first, last = first[longest], (first + length)[longest] - 1
    final = bounds[wave[last]] + np.arange(len(first))
    return Plan(
        order,
        Waves(tuple(bounds.tolist()), final),
        chain_of_row,
        np.where(reset[first], -1, slot[first]),
        np.where(np.append(other, True)[last], slot[last], -1),
    )
