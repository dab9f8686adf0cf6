"""Where a partition goes on: from its checkpoint, its committed offset and what is retained. Pure; no client, no clock.

    marker M   committed C      then
    --------   -------------    --------------------------------------------------------------------------------------
    none       none             a new partition: from its first tick
    none       C                states are lost: cold at C
    M          none             the group's offsets are lost: go on at M; forecasts since then may repeat
    M          C < M            the group was set back: cold at C
    M          M <= C           take the snapshots, replay M to C silently, go on at C
    M'         C                of another revision: replay to C from where the oldest state began, without snapshots

Beyond the log's end: the topic was created anew, stop. No longer retained: as `on_lost_ticks` says. What does not go on
exactly from the stored checkpoint owes a new one, which is committed before the first tick is answered.

A group that is to begin at the end of the topic has its offsets set there before it begins: by itself a partition
without an offset can as well be one that was added later, and of that no tick may be missed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from daemon.core.marker import Marker
from daemon.errors import TopicError
from schemas import ResetCause


@dataclass(frozen=True, slots=True)
class Terms:
    """What stays the same for all partitions of a process."""

    group_id: str
    topic_id: str
    revision: str
    on_lost_ticks: Literal["stop", "reset"] = "stop"
    warmup_replay_ticks_max: int = 100_000


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one partition."""

    partition: int
    #: Retained ticks: the first offset, and the end.
    first: int
    end: int
    committed: int | None
    marker: Marker | None
    #: The offset at which the oldest state among the snapshots began; None where there is none.
    oldest_reset: int | None = None
    #: True where the state topic holds records, and no marker among them: we never leave it so.
    unmarked: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How a partition comes to work: replay `replay_from` to `start` silently, answer from `start` on."""

    start: int
    replay_from: int
    #: The marker in force from here on.
    marker: Marker
    #: Take the snapshots.
    keep: bool
    #: A checkpoint has to be committed before the first tick is answered.
    owed: bool
    #: What to tell the operator.
    line: str
    level: int = logging.INFO


def decide(found: Found, terms: Terms) -> Plan:
    """Return how the partition goes on.

    Raises
    ------
    TopicError : it cannot, and only somebody who changes a topic, an offset or a setting can help
    """
    marker, committed = found.marker, found.committed
    where = f"partition {found.partition}"
    if marker is not None:
        _check_ours(where, marker, terms)
    if found.unmarked:
        raise TopicError(
            f"{where}: [topics] state names a topic that holds records of somebody else, which we would delete; "
            "name an empty one, `tickcast topics create` makes it"
        )
    stored = None if marker is None else marker.next_offset
    for name, offset in (("committed offset", committed), ("checkpoint", stored)):
        if offset is not None and offset > found.end:
            raise TopicError(
                f"{where}: the {name} at {offset} is beyond the end {found.end} of the topic, so it was created anew; "
                "give kafka.group_id and [topics] state new names"
            )
    if committed is None and marker is None:
        return _fresh(found.first, terms, ResetCause.FIRST, "is new")
    if marker is None:
        assert committed is not None
        if committed < found.first:
            return _lost_ticks(found, terms, committed)
        return _fresh(committed, terms, ResetCause.COLD, "starts cold: there is no checkpoint", logging.WARNING)
    if committed is None:
        line = f"has a checkpoint at {marker.next_offset} but no committed offset: forecasts since then may repeat"
        return _go_on(found, terms, marker, marker.next_offset, line, logging.WARNING)
    if committed < min(marker.next_offset, found.first):
        return _lost_ticks(found, terms, committed)
    if committed < marker.next_offset:
        line = f"starts cold: the group was set back from {marker.next_offset} to {committed}"
        return _fresh(committed, terms, ResetCause.COLD, line, logging.WARNING)
    return _go_on(found, terms, marker, committed, "goes on", logging.INFO)


def _check_ours(where: str, marker: Marker, terms: Terms) -> None:
    if marker.group_id != terms.group_id:
        raise TopicError(
            f"{where}: the state topic belongs to group {marker.group_id!r}, we are {terms.group_id!r}; "
            "set [topics] state to a topic of our own"
        )
    if marker.topic_id != terms.topic_id:
        raise TopicError(
            f"{where}: the ticks topic was created anew since the last checkpoint; "
            "give kafka.group_id and [topics] state new names"
        )


def _go_on(found: Found, terms: Terms, marker: Marker, start: int, line: str, level: int) -> Plan:
    if start < found.first:
        return _lost_ticks(found, terms, start)
    if marker.revision != terms.revision:
        return _warm_up(found, terms, marker, start)
    if marker.next_offset < found.first:
        lost = f"ticks {marker.next_offset} to {found.first - 1}, needed to rebuild states, are no longer retained"
        return _lost(found, terms, start, lost)
    return Plan(start, marker.next_offset, marker, keep=True, owed=False, line=line, level=level)


def _warm_up(found: Found, terms: Terms, marker: Marker, start: int) -> Plan:
    oldest = start if found.oldest_reset is None else found.oldest_reset
    replay_from = min(max(oldest, start - terms.warmup_replay_ticks_max, found.first), start)
    line = f"moves from revision {marker.revision} to {terms.revision}, replays {start - replay_from} ticks to warm up"
    return _fresh(start, terms, ResetCause.REVISION, line, logging.WARNING, replay_from)


def _lost_ticks(found: Found, terms: Terms, start: int) -> Plan:
    return _lost(found, terms, found.first, f"ticks {start} to {found.first - 1} are no longer retained")


def _lost(found: Found, terms: Terms, start: int, lost: str) -> Plan:
    if terms.on_lost_ticks == "stop":
        raise TopicError(
            f'partition {found.partition}: {lost}; set pipeline.on_lost_ticks = "reset" to go on without them'
        )
    return _fresh(start, terms, ResetCause.COLD, f"starts cold: {lost}", logging.ERROR)


def _fresh(
    start: int,
    terms: Terms,
    origin: ResetCause,
    line: str,
    level: int = logging.INFO,
    replay_from: int | None = None,
) -> Plan:
    """Begin without snapshots, and write so down before the first answer."""
    begin = start if replay_from is None else replay_from
    marker = Marker(terms.group_id, terms.topic_id, terms.revision, start, begin, start, origin)
    return Plan(start, begin, marker, keep=False, owed=True, line=line, level=level)
