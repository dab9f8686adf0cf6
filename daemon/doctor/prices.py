"""Findings on the prices of each instrument: whether there is anything to forecast, and whether the moves are real.

Prices are the reference prices of the accepted ticks: the mid of the latest quote, or the trade where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from daemon.doctor.finding import Check, Measurement, Outcome, judge, register
from daemon.doctor.sheets import Sheets
from daemon.training.collect import Track

F64 = NDArray[np.float64]

FEW_TICKS = register(
    Check(
        code="few_ticks",
        of=("data", "bundle"),
        severity="warning",
        title="instruments with too few ticks to say anything",
        measures="ticks of an instrument",
        limit=100,
        problem_limit=2,
        beyond="below",
        form="count",
        remedy="give more ticks of it, or leave it out; a column that names each row's own id is no instrument",
    )
)
CONSTANT_PRICE = register(
    Check(
        code="constant_price",
        of=("data", "bundle"),
        severity="problem",
        title="the price never moves",
        measures="moves of an instrument's reference price within its sessions",
        limit=1,
        beyond="below",
        form="count",
        remedy="leave the instrument out, or look whether another column holds its price; a constant is right here",
    )
)
ZERO_MOVES = register(
    Check(
        code="zero_moves",
        of=("data",),
        severity="note",
        title="most ticks do not move the price",
        measures="share of an instrument's ticks that leave the reference price where it was",
        limit=0.5,
        remedy="'no change' is the median forecast here: judge means by R², and prefer horizons of many ticks",
    )
)
SPIKES = register(
    Check(
        code="price_spikes",
        of=("data",),
        severity="warning",
        title="prices jump and come back",
        measures="moves of more than 20 robust deviations and 0.1 % that are undone within 5 ticks",
        limit=0,
        problem_limit=100,
        form="count",
        remedy="look at these rows: bad prints teach a model to forecast their return; drop or mend them",
    )
)
JUMPS = register(
    Check(
        code="price_jumps",
        of=("data",),
        severity="warning",
        title="a price jumps from one tick to the next",
        measures="largest log return of one tick within a session",
        limit=0.2,
        problem_limit=2.0,
        form="number",
        remedy="look for a split, a roll to another contract, a moved decimal point, or two instruments under one name",
    )
)
BOUNCE = register(
    Check(
        code="bid_ask_bounce",
        of=("data",),
        severity="note",
        title="trades bounce between bid and ask",
        measures="autocorrelation of one-tick returns at lag 1, of instruments without quotes",
        limit=-0.2,
        beyond="below",
        form="number",
        remedy="send quotes too, so that the mid is forecast: skill on such trades is the bounce (Roll 1984)",
    )
)

#: Fewer ticks give no share of anything.
ROWS_MIN = 100
#: A spike: so many robust deviations of the moves that are not zero, at least so large, and back so soon.
SPIKE_DEVIATIONS = 20.0
SPIKE_MOVE = 1e-3
SPIKE_TICKS = 5
#: "Back" leaves at most this share of the jump.
SPIKE_LEFT = 0.1


def examine_prices(sheets: Sheets, tracks: Sequence[Track]) -> Iterator[Outcome]:
    """Judge the prices of every instrument."""
    yield few_ticks({name: len(sheet) for name, sheet in sheets.by_instrument.items()})
    long = [track for track in tracks if len(track.ts) >= ROWS_MIN]
    few = f"no instrument has {ROWS_MIN} accepted ticks"
    yield constant_prices(tracks)
    moves = {track.name: moves_of(track) for track in long}
    yield judge(ZERO_MOVES, [Measurement(float(np.mean(r == 0)), name) for name, r in moves.items()], otherwise=few)
    yield judge(SPIKES, [_spikes(track) for track in long], otherwise=few)
    yield judge(JUMPS, [_largest(track) for track in long], otherwise=few)
    traded = [track for track in long if not np.isfinite(sheets.by_instrument[track.name].bid).any()]
    found = [Measurement(_lag_one(moves[track.name]), track.name) for track in traded if moves[track.name].any()]
    yield judge(BOUNCE, found, otherwise="every instrument has quotes, or too few ticks")


def few_ticks(counts: dict[str, int]) -> Outcome:
    """Judge how many ticks each instrument has."""
    found = [Measurement(count, name) for name, count in counts.items()] or [Measurement(0, detail="no tick at all")]
    remedy = None
    if len(counts) > 1 and max(counts.values()) == 1:
        remedy = "every instrument has one tick: the column `instrument` must name what is priced, not the row"
    return judge(FEW_TICKS, found, remedy=remedy)


def constant_prices(tracks: Sequence[Track]) -> Outcome:
    """Judge whether prices move at all."""
    enough = [track for track in tracks if len(track.ts) >= ROWS_MIN]
    found = [
        Measurement(int(np.count_nonzero(moves_of(track))), track.name, detail=f"stays at {track.price[0]:.10g}")
        for track in enough
    ]
    return judge(CONSTANT_PRICE, found, otherwise=f"no instrument has {ROWS_MIN} accepted ticks")


def moves_of(track: Track) -> F64:
    """Return the one-tick log returns within sessions."""
    moves: F64 = np.diff(np.log(track.price))[~track.resets[1:]]
    return moves


def time_of(ts: int) -> str:
    """Return an event time for people."""
    return datetime.fromtimestamp(ts / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _within(track: Track) -> F64:
    """Return the log return to each tick, shape (ticks,); 0 at the first of a session."""
    moves = np.diff(np.log(track.price), prepend=np.log(track.price[0]))
    return np.where(track.resets, 0.0, moves)


def _spikes(track: Track) -> Measurement:
    log_price, moves = np.log(track.price), _within(track)
    moved = np.abs(moves[moves != 0])
    if not len(moved):
        return Measurement(0, track.name)
    limit = max(SPIKE_DEVIATIONS * 1.4826 * float(np.median(moved)), SPIKE_MOVE)
    session = np.cumsum(track.resets)
    spikes, until = [], -1
    for at in np.flatnonzero(np.abs(moves) > limit).tolist():
        after = slice(at + 1, at + 1 + SPIKE_TICKS)
        back = np.abs(log_price[after] - log_price[at - 1]) <= SPIKE_LEFT * abs(moves[at])
        back &= session[after] == session[at]
        if at > until and back.any():
            until = at + 1 + int(np.argmax(back))  # the way back is no spike of its own
            spikes.append(at)
    if not spikes:
        return Measurement(0, track.name)
    first = spikes[0]
    return Measurement(
        len(spikes), track.name, rows=f"from {time_of(int(track.ts[first]))}", detail=_step(track, first)
    )


def _largest(track: Track) -> Measurement:
    moves = np.abs(_within(track))
    at = int(np.argmax(moves))
    return Measurement(float(moves[at]), track.name, rows=time_of(int(track.ts[at])), detail=_step(track, at))


def _step(track: Track, at: int) -> str:
    return f"{track.price[max(at - 1, 0)]:.8g} to {track.price[at]:.8g}"


def _lag_one(moves: F64) -> float:
    centred = moves - moves.mean()
    return float(np.dot(centred[1:], centred[:-1]) / max(np.dot(centred, centred), 1e-300))
