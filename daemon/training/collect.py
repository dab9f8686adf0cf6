"""Ticks into the columns of each instrument, through the daemon's own decoder, order, session rules and features."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from daemon.core.features import FeatureTable
from daemon.core.instrument import Instrument
from daemon.core.intake import Intake, OrderLimits, Row
from daemon.core.sessions import Rules
from daemon.core.spec import Column
from daemon.errors import SettingsError, TickFileError
from schemas import Rejected, ResetCause, TickDecoder

F64 = NDArray[np.float64]

#: As the daemon's defaults, except that a file has no record timestamps for ticks to be ahead of.
LIMITS = OrderLimits(future_skew_ns=2**62, max_lateness_ns=0, seq_restart_ns=300 * 10**9)
#: Ticks between two calls of the listener.
LISTEN_TICKS = 5000


@dataclass(frozen=True)
class Track:
    """The accepted ticks of one instrument, in order; all arrays have one row per tick."""

    name: str
    ts: NDArray[np.int64]
    price: F64
    #: True where the recurrent state starts anew.
    resets: NDArray[np.bool_]
    #: Log return of the reference price since the tick before; 0 where a session opens.
    returns: F64
    #: shape (ticks, columns), not scaled yet.
    features: F64

    def sessions(self, end: int) -> list[tuple[int, int]]:
        """Return the first row of each session and the row after its last, up to the row `end`."""
        starts = np.flatnonzero(self.resets[:end]).tolist()
        return list(zip(starts, [*starts[1:], end], strict=True))


@dataclass(frozen=True)
class Collected:
    """All instruments of the ticks given, by name in sorted order, and why the others were refused."""

    tracks: tuple[Track, ...]
    refused: Counter[str]
    #: Event times of all ticks read, sorted; a refused one has that of the tick before it. Parts are cut by them, so
    #: that what becomes of later ticks moves no cut.
    times: NDArray[np.int64]

    @property
    def tick_count(self) -> int:
        """Ticks accepted."""
        return sum(len(track.ts) for track in self.tracks)


class _Columns:
    """Growing columns of one instrument."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.ts = array("q")
        self.price = array("d")
        self.resets = array("b")
        self.features = array("d")

    def add(self, row: Row) -> None:
        self.ts.append(row.ts)
        self.price.append(row.price)
        self.resets.append(row.reset is not None)
        self.features.extend(row.features)

    def track(self) -> Track:
        rows = np.array(self.features, np.float64).reshape(len(self.ts), -1)
        return Track(
            self.instrument.name,
            np.array(self.ts, np.int64),
            np.array(self.price, np.float64),
            np.array(self.resets, np.bool_),
            rows[:, -1].copy(),
            rows[:, :-1].copy(),
        )


def collect(
    ticks: Iterable[Mapping[str, Any] | bytes],
    columns: Sequence[str],
    rules: Rules,
    listen: Callable[[int], None] = lambda count: None,
) -> Collected:
    """Run ticks through the daemon's intake.

    Parameters
    ----------
    ticks : dicts with the keys of `Tick`, or messages as on the topic; in order of time for each instrument
    columns : features by name
    rules : the session rules
    listen : called with the number of ticks read, now and then

    Raises
    ------
    SettingsError : a feature is unknown
    TickFileError : most of the ticks were refused
    """
    try:
        # Scales are left for later, when the training part is known. The last column is for the volatility.
        table = FeatureTable([Column(name) for name in (*columns, "return")], volatility_prior=1e-4)
    except ValueError as error:
        raise SettingsError(str(error)) from error
    intake, decoder = Intake(table, rules, LIMITS), TickDecoder()
    found: dict[str, _Columns] = {}
    refused: Counter[str] = Counter()
    details: dict[str, str] = {}
    times, latest = array("q"), 0
    for offset, raw in enumerate(ticks):
        if offset % LISTEN_TICKS == 0:
            listen(offset)
        try:
            tick = decoder.decode(raw if isinstance(raw, bytes) else orjson.dumps(raw))
            latest = tick.ts
            held = found.get(tick.instrument)
            if held is None:
                held = _Columns(Instrument(tick.instrument, -1, list(table.start), ResetCause.FIRST))
            held.add(intake.accept(tick, held.instrument, offset=offset, timestamp=-1))
            found[tick.instrument] = held
        except Rejected as rejected:
            refused[rejected.reason.value] += 1
            details.setdefault(rejected.reason.value, rejected.detail)
        times.append(latest)
    collected = Collected(
        tuple(found[name].track() for name in sorted(found)), refused, np.sort(np.array(times, np.int64))
    )
    if refused.total() > collected.tick_count:
        reason, count = refused.most_common(1)[0]
        raise TickFileError(
            f"{refused.total()} of {refused.total() + collected.tick_count} ticks were refused, "
            f"{count} as {reason}: {details[reason]}"
        )
    return collected
