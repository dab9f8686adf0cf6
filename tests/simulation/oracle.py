"""What must stand in the topics in the end: the outcomes and the states of one run that nothing disturbed.

It knows nothing of the service, of recovery or of transactions: a fresh pipeline goes over the whole log of ticks. Only
where a partition moved to another revision is taken from the markers, for that is free; what it must hold from there on
is not: states that were warmed up by all ticks that the old ones stood on.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.core.marker import Marker
from daemon.core.pipeline import Batch, Pipeline
from daemon.core.records import InputRecord, Message, Record
from daemon.core.snapshot import decode, encode
from schemas import HEADER_PREFIX, ResetCause
from tests.simulation.market import PARTITIONS, pipeline
from tests.simulation.world import World

#: Beyond all offsets.
FOREVER = 2**62


class Disturbed(AssertionError):
    """What the processes left behind is not what an undisturbed run leaves."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Of one partition: forecasts and scores as they stand in the log, dead letters by the offset of their ticks."""

    forecasts: list[tuple[bytes | None, bytes | None]]
    scores: list[tuple[bytes | None, bytes | None]]
    dead_letters: list[tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]]


@dataclass(slots=True)
class Era:
    """A span of a partition's log that one revision answered."""

    #: The first marker, which says where the states began.
    first: Marker
    #: Where the newest checkpoint stood when the next era began.
    saved: int
    #: Where the next era began to answer.
    end: int = FOREVER


def prove(seed: int) -> World:
    """Let everything of a seed happen, and compare.

    Raises
    ------
    AssertionError : names the seed
    """
    world = World(seed)
    try:
        world.run()
        check(world)
    except Exception as error:
        kind = type(error) if isinstance(error, AssertionError) else AssertionError
        raise kind(f"seed {seed}: {error!r}; alone: pytest tests/simulation --seed {seed}") from error
    return world


def check(world: World) -> None:
    """Compare what the processes left behind with an undisturbed run.

    Raises
    ------
    Disturbed : they differ
    """
    for partition in range(PARTITIONS):
        where = f"partition {partition}"
        ticks = world.market.answerable[partition]
        found = _found(world, partition)
        answered = sorted([*_offsets(found), *(letter[0] for letter in found.dead_letters)])
        _demand(answered == [tick.offset for tick in ticks], f"{where}: not each tick has one outcome")
        batches, end = _undisturbed(world, partition)
        _demand(found == _expected(batches), f"{where}: other outcomes")
        marker, states = _stored(world, partition)
        _demand(states == _states(end, partition, marker.revision), f"{where}: other states in the end")
        _demand(
            world.pin is None or marker.revision == world.pin.bundle, f"{where}: not of the pinned bundle in the end"
        )


def _demand(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Disturbed(otherwise)


def _eras(world: World, partition: int) -> list[Era]:
    eras: list[Era] = []
    for marker in world.log.checkpoints(partition):
        if not eras or replace(marker, next_offset=eras[-1].first.next_offset) != eras[-1].first:
            if eras:
                eras[-1].end = marker.live_from
            eras.append(Era(marker, marker.next_offset))
        eras[-1].saved = marker.next_offset
    first = eras[0].first
    _demand((first.replay_start, first.live_from, first.origin) == (0, 0, ResetCause.FIRST), "not from the beginning")
    for before, after in pairwise(era.first for era in eras):
        _demand(after.origin is ResetCause.REVISION and after.revision != before.revision, "states were lost")
    return eras


def _undisturbed(world: World, partition: int) -> tuple[list[Batch], Pipeline]:
    """Return what should have been said, and the states at the end."""
    ticks, batches = world.market.answerable[partition], []
    needed = 0
    for era in _eras(world, partition):
        first = era.first
        _demand(first.replay_start <= max(needed, world.trimmed[partition]), "warmed up by less than there was")
        made = pipeline(first.revision, world.settings.instruments_max)
        made.assign(partition, first.origin)
        made.replay(_between(ticks, first.replay_start, first.live_from))
        if first.origin is ResetCause.REVISION:
            made.warmed_up(partition, first.origin)
        batches.append(made.advance(_between(ticks, first.live_from, era.saved)))
        needed = _oldest_reset(made, partition, era.saved)
        batches.append(made.advance(_between(ticks, era.saved, era.end)))
    return batches, made


def _oldest_reset(made: Pipeline, partition: int, saved: int) -> int:
    """Return where the oldest state began: what was there and then, another revision has to see too."""
    messages = made.checkpoint(partition, "", saved)
    resets = [decode("", m.value).instrument.reset_offset for m in messages if m.value is not None]
    return min([saved, *(offset for offset in resets if offset >= 0)])


def _between(ticks: list[InputRecord], start: int, end: int) -> list[Record]:
    return [tick for tick in ticks if start <= tick.offset < end]


def _expected(batches: list[Batch]) -> Outcomes:
    forecasts = [message for batch in batches for message in batch.forecasts]
    letters = [_letter(message) for batch in batches for message in batch.dead_letters]
    scores = [message for batch in batches for message in batch.scores]
    return Outcomes(_pairs(forecasts), _pairs(scores), sorted(letters, key=lambda each: each[0]))


def _pairs(messages: Sequence[Message | InputRecord]) -> list[tuple[bytes | None, bytes | None]]:
    return [(message.key, message.value) for message in messages]


def _found(world: World, partition: int) -> Outcomes:
    forecasts = [record for record in world.log.read("forecasts") if record.partition == partition]
    letters = [_letter(record) for record in world.log.read("dead_letters") if record.partition == partition]
    scores = [record for record in world.log.read("scores") if record.partition == partition]
    return Outcomes(_pairs(forecasts), _pairs(scores), sorted(letters, key=lambda each: each[0]))


def _letter(
    message: Message | InputRecord,
) -> tuple[int, bytes | None, bytes | None, tuple[tuple[str, bytes], ...]]:
    headers = tuple(message.headers)
    return int(dict(headers)[HEADER_PREFIX + "offset"]), message.key, message.value, headers


def _offsets(found: Outcomes) -> list[int]:
    return [int(json.loads(value or b"")["id"].rpartition("-")[2]) for _, value in found.forecasts]


def _stored(world: World, partition: int) -> tuple[Marker, dict[bytes, bytes]]:
    """Return the newest marker, and the newest snapshot of every key without the offset it was written at."""
    newest: dict[bytes, bytes | None] = defaultdict()
    for record in world.log.read("state"):
        if record.partition == partition:
            newest[record.key or b""] = record.value
    newest.pop(pins.KEY, None)
    marker = markers.decode(newest.pop(markers.KEY) or b"")
    return marker, {key: _timeless(key, value) for key, value in newest.items() if value is not None}


def _states(end: Pipeline, partition: int, revision: str) -> dict[bytes, bytes]:
    """Return the snapshots of all that a pipeline holds."""
    messages = end.checkpoint(partition, revision, 0)
    return {m.key: _timeless(m.key, m.value) for m in messages if m.key is not None and m.value is not None}


def _timeless(key: bytes, value: bytes) -> bytes:
    snapshot = decode(key.decode(), value)
    return encode(snapshot.revision, 0, snapshot.instrument, snapshot.state.tobytes())
