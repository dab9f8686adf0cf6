"""Findings on time: pauses that should end a session, and sessions too short for the horizons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from daemon.doctor.finding import Check, Measurement, Outcome, judge, register, shown
from daemon.doctor.prices import time_of
from daemon.training.collect import Track

SESSION_GAP = register(
    Check(
        code="session_gap",
        of=("data",),
        severity="warning",
        title="pauses stand out that end no session",
        measures="pauses at least 20 times as long as the other waits, within a session under the rules given",
        limit=0,
        form="count",
        remedy="set a session rule, so that the state starts anew after them",
    )
)
SHORT_SESSIONS = register(
    Check(
        code="horizon_beyond_session",
        of=("data", "bundle"),
        severity="warning",
        title="sessions are too short for a horizon",
        measures="share of ticks whose session still has a tick at the horizon, of those whose file has one",
        limit=0.8,
        problem_limit=0.2,
        beyond="below",
        remedy="take shorter horizons, or a session rule with a longer gap_seconds",
    )
)

#: A pause stands out where the next shorter wait is so many times shorter, and it lasts at least so long.
APART = 20.0
PAUSE_SECONDS_MIN = 60.0
#: Waits above the cut are rare, otherwise the ticks just come in bursts.
PAUSE_SHARE_MAX = 0.02
ROWS_MIN = 100


def examine_pauses(tracks: Sequence[Track], horizons: Sequence[int]) -> Iterator[Outcome]:
    """Judge waits and sessions."""
    long = [track for track in tracks if len(track.ts) >= ROWS_MIN]
    few = f"no instrument has {ROWS_MIN} accepted ticks"
    found, seconds = [], []
    for track in long:
        measured, gap = _uncut_pauses(track)
        found.append(measured)
        if gap is not None and measured.value:
            seconds.append(gap)
    command = None
    if seconds:
        command = f'[[session]] match = "*", rule = "gap", gap_seconds = {min(seconds):g}'
    yield judge(SESSION_GAP, found, command=command, otherwise=few)
    yield short_sessions(tracks, horizons)


def short_sessions(tracks: Sequence[Track], horizons: Sequence[int]) -> Outcome:
    """Judge whether sessions are long enough for the horizons."""
    long = [track for track in tracks if len(track.ts) >= ROWS_MIN]
    found = [_reached(track, horizon) for track in long for horizon in horizons]
    return judge(SHORT_SESSIONS, found, otherwise=f"no instrument has {ROWS_MIN} accepted ticks")


def cut_between(waits: NDArray[np.float64]) -> float | None:
    """Return the gap in seconds that tells pauses from ordinary waits; None where nothing stands apart.

    Parameters
    ----------
    waits : seconds between ticks
    """
    ordered = np.sort(waits)
    first = max(int(len(ordered) * (1 - PAUSE_SHARE_MAX)), 1)
    above, below = ordered[first:], ordered[first - 1 : -1]
    ratios = np.where(above >= PAUSE_SECONDS_MIN, above / np.maximum(below, 1e-3), 0.0)
    if not len(ratios) or ratios.max() < APART:
        return None
    at = int(np.argmax(ratios))
    return _round_gap(float(np.sqrt(np.maximum(below[at], 1e-3) * above[at])))


def _uncut_pauses(track: Track) -> tuple[Measurement, float | None]:
    waits = np.diff(track.ts) * 1e-9
    gap = cut_between(waits)
    if gap is None:
        return Measurement(0, track.name), None
    uncut = np.flatnonzero((waits > gap) & ~track.resets[1:])
    if not len(uncut):
        return Measurement(0, track.name), gap
    longest, ordinary = float(waits[uncut].max()), float(waits[waits <= gap].max())
    detail = f"up to {shown(longest, 'seconds')}, other waits up to {shown(ordinary, 'seconds')}"
    return Measurement(len(uncut), track.name, rows=f"from {time_of(int(track.ts[uncut[0]]))}", detail=detail), gap


def _reached(track: Track, horizon: int) -> Measurement:
    session = np.cumsum(track.resets)
    count, sessions = len(session), int(session[-1])
    share = float(np.mean(session[horizon:] == session[:-horizon])) if horizon < count else 0.0
    detail = f"horizon {horizon} ticks, {sessions} session{'s' if sessions > 1 else ''} of {count / sessions:.0f} ticks"
    return Measurement(share, track.name, detail=detail)


def _round_gap(seconds: float) -> float:
    """Round to two digits."""
    digits = 10 ** (np.floor(np.log10(seconds)) - 1)
    return float(np.round(seconds / digits) * digits)
