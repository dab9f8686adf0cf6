"""The state table: (h, c) of every instrument between batches, one row each; and who lives in which partition."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter

import numpy as np

from daemon.core.instrument import Instrument
from daemon.core.step import F32, Index
from schemas import ResetCause

FIRST_CAPACITY = 64
#: Rows that a table grows by at most: 16 MiB of 2 x LSTM(64), 10 ms. The memory of large arrays grows in place; to
#: double a table of 500,000 rows by copying stopped the loop for 3 s and took twice the room.
GROWTH_ROWS_MAX = 16_384


class StateTable:
    """Rows of recurrent state, float32, shape (capacity, state_size); grows by doubling, then by `GROWTH_ROWS_MAX`.

    A slot has one owner at a time. `release` makes it free for the next `take`; callers release only between batches,
    because ticks of a batch may still need the row of an instrument that the batch evicted.
    """

    def __init__(self, initial_state: F32) -> None:
        self._initial = initial_state
        self._rows = np.zeros((FIRST_CAPACITY, len(initial_state)), np.float32)
        self._free = list(range(FIRST_CAPACITY - 1, -1, -1))

    def take(self) -> int:
        """Return a free slot, holding the initial state."""
        if not self._free:
            self._grow()
        slot = self._free.pop()
        self._rows[slot] = self._initial
        return slot

    def take_all(self, states: Sequence[F32]) -> list[int]:
        """Return a free slot for each of the states, holding it."""
        while len(self._free) < len(states):
            self._grow()
        slots = [self._free.pop() for _ in states]
        if states:
            self._rows[slots] = states
        return slots

    def release(self, slots: Iterable[int]) -> None:
        """Give slots back."""
        self._free.extend(slots)

    def gather(self, slots: Index) -> F32:
        """Return a copy of the rows, shape (len(slots), state_size); slot -1 stands for the initial state."""
        rows = self._rows[slots]
        rows[slots < 0] = self._initial
        return rows

    def scatter(self, slots: Index, states: F32) -> None:
        """Write rows; no slot may stand twice, and slot -1 stands for none."""
        taken = slots >= 0
        if not taken.all():
            slots, states = slots[taken], states[taken]
        self._rows[slots] = states

    def _grow(self) -> None:
        capacity, width = self._rows.shape
        grown = capacity + min(capacity, GROWTH_ROWS_MAX)
        self._rows.resize((grown, width), refcheck=False)  # nobody else holds the rows: `gather` gives copies
        self._free = [*range(grown - 1, capacity - 1, -1), *self._free]

    @property
    def initial(self) -> F32:
        """The state of an instrument that begins, float32 of shape (state_size,)."""
        return self._initial

    @property
    def used_count(self) -> int:
        """Slots with an owner."""
        return len(self._rows) - len(self._free)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(self._rows.itemsize * self._rows.shape[1])


class Partition:
    """The instruments of one partition, least recently accepted first, and what of them is not in the state topic yet.

    Parameters
    ----------
    instruments_max : bound on their number; the tick that needs room evicts the first
    origin : why the states of this partition began, which is what an instrument without one is told
    saved_to : ticks from this offset on are in no snapshot
    """

    def __init__(self, instruments_max: int, origin: ResetCause, saved_to: int = 0) -> None:
        self._instruments: dict[str, Instrument] = {}
        self._instruments_max = instruments_max
        self._saved_to = saved_to
        #: Keys of the state topic that hold something else than what is here, for other reasons than such ticks.
        self._stale: dict[bytes, None] = {}
        self.origin = origin

    def get(self, name: str) -> Instrument | None:
        """Return an instrument, or None where nothing of it is kept."""
        return self._instruments.get(name)

    def newest(self, most: int) -> list[Instrument]:
        """Return the instruments, the most recently accepted first, at most so many; in one step of the interpreter."""
        return list(islice(reversed(self._instruments.values()), most))

    def touch(self, instrument: Instrument) -> Instrument | None:
        """Note that the instrument's tick was accepted; return the instrument evicted to make room, if any."""
        known = self._instruments.pop(instrument.name, None)
        self._instruments[instrument.name] = instrument
        if known is None and len(self._instruments) > self._instruments_max:
            evicted = self._instruments.pop(next(iter(self._instruments)))
            self._stale[evicted.name.encode()] = None
            return evicted
        return None

    def put_back(self, instruments: Iterable[Instrument]) -> None:
        """Take instruments from snapshots, in any order; `sort` puts all of them in theirs."""
        self._instruments.update((instrument.name, instrument) for instrument in instruments)

    def sort(self) -> None:
        """Order the instruments by their last accepted tick."""
        in_order = sorted(self._instruments.values(), key=attrgetter("last_offset"))
        self._instruments = {instrument.name: instrument for instrument in in_order}

    def mark_stale(self, keys: Iterable[bytes]) -> None:
        """Note keys of the state topic that hold something else than what is here."""
        self._stale.update(dict.fromkeys(keys))

    def unsaved(self) -> tuple[list[Instrument], list[bytes]]:
        """Return the instruments to write to the state topic, and the keys to delete from it."""
        touched: dict[str, Instrument] = {}
        for instrument in reversed(self._instruments.values()):
            if instrument.last_offset < self._saved_to:
                break
            touched[instrument.name] = instrument
        gone: list[bytes] = []
        for key in self._stale:
            live = self._instruments.get(key.decode(errors="surrogateescape"))
            if live is None:
                gone.append(key)
            else:
                touched[live.name] = live
        return list(touched.values()), gone

    def saved(self, next_offset: int) -> None:
        """Note that a checkpoint at `next_offset` was committed."""
        self._saved_to = next_offset
        self._stale.clear()

    def __iter__(self) -> Iterator[Instrument]:
        return iter(self._instruments.values())

    def __len__(self) -> int:
        return len(self._instruments)
