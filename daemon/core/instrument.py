"""The state of one instrument apart from (h, c): what order, session rules and features keep between ticks."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

from schemas import ResetCause

if TYPE_CHECKING:
    from daemon.core.kept_scores import Scores

#: Event time before any tick: every tick is later.
NEVER = -(2**63)
FLOAT_BYTES = 8


#: What an instrument is made of.
FIELDS = (
    "ask",
    "ask_size",
    "bid",
    "bid_size",
    "last_offset",
    "last_ts",
    "name",
    "packed_cells",
    "packed_scores",
    "pending_reset",
    "price",
    "reset_offset",
    "scores",
    "seq",
    "session",
    "session_end",
    "session_since",
    "session_start",
    "slot",
    "spoken_session",
    "step",
    "untold_reset",
)


class Instrument:
    """State of one instrument in one partition; it changes only by accepted ticks.

    A reset touches `step`, `reset_offset`, whatever (h, c) stand in `slot` and the forecasts that wait for their truth;
    all else is kept across resets.
    """

    __slots__ = FIELDS

    def __init__(self, name: str, slot: int, cells: Sequence[float], cause: ResetCause | None) -> None:
        self.name = name
        #: Row of the state table that holds (h, c) between batches.
        self.slot = slot
        #: The `cells`, as a snapshot holds them: as objects they took more room than the recurrent state.
        self.packed_cells = b""
        self.cells = cells
        #: Largest event time accepted, ns.
        self.last_ts = NEVER
        self.seq: int | None = None
        #: Label of the session the instrument is in.
        self.session: str | None = None
        #: First and (excluded) last event time known to belong to the session, ns.
        self.session_start = NEVER
        self.session_end = NEVER
        #: Event time the session opened at, ns.
        self.session_since = NEVER
        #: The last `session` that a tick brought itself.
        self.spoken_session: str | None = None
        #: Latest quote; None before the first.
        self.bid: float | None = None
        self.ask: float | None = None
        self.bid_size: float | None = None
        self.ask_size: float | None = None
        #: Reference price after the last tick; None before the first.
        self.price: float | None = None
        #: Ticks since the reset, the next tick's number.
        self.step = 0
        #: Offset of the tick accepted last; it orders instruments by age.
        self.last_offset = -1
        #: Offset of the tick that started the state anew.
        self.reset_offset = -1
        #: Why the next tick starts from the initial state; None where it continues.
        self.pending_reset: ResetCause | None = cause
        #: Why the state started anew at a tick whose forecast was not published; the next forecast says it.
        self.untold_reset: ResetCause | None = None
        #: Forecasts that wait for their truth, and what came of earlier ones; None before the first tick has run.
        self.scores: Scores | None = None
        #: The same as a snapshot holds it, until the first tick after a restore; empty where there is none.
        self.packed_scores = b""

    @property
    def cells(self) -> Sequence[float]:
        """The floats of the features (running scales, last values), laid out by `FeatureTable`; a list of one's own."""
        return list(struct.unpack(f"<{len(self.packed_cells) // FLOAT_BYTES}d", self.packed_cells))

    @cells.setter
    def cells(self, cells: Sequence[float]) -> None:
        self.packed_cells = struct.pack(f"<{len(cells)}d", *cells)

    def resume(self, step: int, offset: int, *, broke: bool) -> None:
        """Take the numbering of a chain that broke: `step` ticks since the break, the last of them at `offset`.

        Where that last one broke the state (`broke`, step 0), the reset counts from it until the next tick is accepted.
        """
        self.step = step
        self.pending_reset = ResetCause.NON_FINITE if broke else None
        if step <= 1:
            self.reset_offset = offset
