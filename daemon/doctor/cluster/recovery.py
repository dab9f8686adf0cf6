"""Findings on what a restart would meet: checkpoints, committed offsets, what is retained, and the bundle to run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from daemon.core import pin as pins
from daemon.core.marker import Marker, MarkerError
from daemon.doctor.cluster.commands import Commands
from daemon.doctor.cluster.looks import PARTITIONS_MAX, READ_SECONDS, Look, tick_at
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register, seen_in_part
from daemon.errors import BrokerUnavailable, BundleError, TopicError
from daemon.model.shelf import Shelf
from daemon.pins import PinFollower
from daemon.tools.state_topic import LOOK_BACK, newest_marker
from daemon.transport.port import Reader
from daemon.transport.topics import TopicFacts

FOREIGN_STATE = register(
    Check(
        code="foreign_state",
        of=("cluster",),
        severity="problem",
        title="the state topic belongs to somebody else",
        measures="partitions of the state topic whose newest checkpoint is another group's or cannot be read, or that "
        "hold records and no checkpoint",
        limit=0,
        form="count",
        remedy="set [topics] state to a name of its own, and create it",
    )
)
RECREATED = register(
    Check(
        code="recreated_topic",
        of=("cluster",),
        severity="problem",
        title="the ticks topic was deleted and created anew: offsets mean other ticks now",
        measures="partitions whose checkpoint was written for another topic of that name, or whose committed offset or "
        "checkpoint is beyond the end",
        limit=0,
        form="count",
        remedy="give [kafka] group_id and [topics] state new names, create the topics, and start again",
    )
)
LOST_TICKS = register(
    Check(
        code="lost_ticks",
        of=("cluster",),
        severity="problem",
        title="ticks that recovery needs are no longer retained",
        measures="ticks from the committed offset or the checkpoint on, whichever is earlier, that are deleted",
        limit=0,
        form="count",
        remedy='keep ticks for longer; to go on without them set [pipeline] on_lost_ticks = "reset"',
    )
)
OLD_CHECKPOINT = register(
    Check(
        code="old_checkpoint",
        of=("cluster",),
        severity="warning",
        title="ticks that recovery needs will soon be deleted",
        measures="age of the oldest tick that a restart would read, as a share of retention.ms of the ticks",
        limit=0.5,
        problem_limit=0.9,
        remedy="start the daemon before they are gone, or keep ticks for longer",
    )
)
PINNED_MISSING = register(
    Check(
        code="pinned_bundle_missing",
        of=("cluster",),
        severity="problem",
        title="the bundle that the group runs is not on this machine",
        measures="1 where the pinned bundle is neither in [model] bundles nor [model] bundle",
        limit=0,
        form="count",
        remedy="copy its folder into [model] bundles; an instance without it takes no part after its next start",
    )
)
OF_CHECKPOINTS = (FOREIGN_STATE, RECREATED, LOST_TICKS, OLD_CHECKPOINT)
OF_PINS = (PINNED_MISSING,)

#: All partitions together; one takes 50 ms, and seconds where an open transaction holds its end up.
CHECKPOINTS_SECONDS = 20.0
#: Records before the end of a state partition that are looked through for a checkpoint.
LOOK_BACK_MAX = max(LOOK_BACK)
#: What stands at the very end of a partition where there is no checkpoint: a few records tell whose they are.
TAIL_RECORDS = 64


@dataclass
class Checkpoints:
    """The newest marker of each partition, and what is wrong with those that have none."""

    markers: dict[int, Marker] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    #: Partitions whose end an open transaction holds up, or that the time did not suffice for.
    unread: list[int] = field(default_factory=list)


def read_checkpoints(reader: Reader, topics: Mapping[str, TopicFacts], group_id: str) -> Checkpoints:
    """Look for the newest marker of each partition near its end.

    Raises
    ------
    TopicError : there is no such topic
    AccessDenied
    """
    if not topics["state"].led:
        raise TopicError(f"no partition of {topics['state'].name} can be read")
    found, deadline = Checkpoints(), time.monotonic() + CHECKPOINTS_SECONDS
    for partition in topics["state"].led:
        if time.monotonic() > deadline:
            found.unread.append(partition)
            continue
        try:
            marker = newest_marker(reader, partition, patience_seconds=READ_SECONDS, look_back_max=LOOK_BACK_MAX)
        except MarkerError as error:
            found.faults[partition] = str(error)
            continue
        except BrokerUnavailable:
            found.unread.append(partition)
            continue
        if marker is None:
            if _holds_records(reader, partition):
                found.faults[partition] = "records, and no checkpoint among them"
        elif marker.group_id != group_id:
            found.faults[partition] = f"a checkpoint of group {marker.group_id}"
        else:
            found.markers[partition] = marker
    return found


def examine_checkpoints(
    found: Checkpoints, look: Look, topics: Mapping[str, TopicFacts], reader: Reader, commands: Commands
) -> Iterator[Outcome]:
    """Judge what a restart would go on from."""
    state, ticks = topics["state"].name, topics["ticks"]
    unread = f"{len(found.unread)} partitions of {state} could not be read to their end in time" if found.unread else ""
    foreign = [Measurement(1.0, resource=f"{state}-{at}", detail=why) for at, why in found.faults.items()]
    yield seen_in_part(judge(FOREIGN_STATE, foreign or [Measurement(0.0, resource=state)]), unread)
    recreated = [_recreated(found, look, ticks, partition) for partition in look.bounds]
    yield seen_in_part(judge(RECREATED, recreated), unread)
    wanted = {partition: _needed(found, look, partition) for partition in look.bounds}
    needed = {partition: offset for partition, offset in wanted.items() if offset is not None}
    nothing = "there is neither a checkpoint nor a committed offset yet"
    lost = [_lost(look, *each) for each in needed.items()]
    keep = commands.set_topic(ticks.name, "retention.ms", 604_800_000)
    yield seen_in_part(judge(LOST_TICKS, lost, command=keep, otherwise=nothing), unread)
    retention = ticks.config.get("retention.ms")
    if retention is None:
        yield judge(OLD_CHECKPOINT, [], otherwise=f"no right to DESCRIBE_CONFIGS {ticks.name}")
        return
    farthest = sorted(needed.items(), key=lambda each: look.bounds[each[0]].stable - each[1], reverse=True)
    ages = [_age(reader, look, *each, int(retention)) for each in farthest[:PARTITIONS_MAX]]
    yield seen_in_part(judge(OLD_CHECKPOINT, ages, command=commands.tickcast("run"), otherwise=nothing), unread)


def examine_pin(found: Checkpoints, reader: Reader, commands: Commands) -> Iterator[Outcome]:
    """Judge whether the pinned bundle is here."""
    settings = commands.settings
    first, end = reader.bounds("state", pins.PARTITION)
    if pins.PARTITION not in found.markers and end - first > LOOK_BACK_MAX:
        yield judge(PINNED_MISSING, [], otherwise="a pin stands near a checkpoint of ours, and there is none")
        return
    pin = PinFollower(reader, settings.kafka.group_id).look()
    if pin is None:
        yield judge(PINNED_MISSING, [Measurement(0.0, detail="nothing is pinned")])
        return
    try:
        path = Shelf(settings.model.bundle, settings.model.bundles).find(pin.bundle)
        yield judge(PINNED_MISSING, [Measurement(0.0, resource=pin.bundle, detail=str(path))])
    except BundleError as error:
        yield judge(
            PINNED_MISSING,
            [Measurement(1.0, resource=pin.bundle, detail=str(error))],
            command=commands.tickcast("bundle show"),
        )


def _needed(found: Checkpoints, look: Look, partition: int) -> int | None:
    """Return the first tick that a restart would read."""
    marker, committed = found.markers.get(partition), look.rows[partition].committed
    if marker is None:
        return committed
    return marker.next_offset if committed is None else min(marker.next_offset, committed)


def _recreated(found: Checkpoints, look: Look, ticks: TopicFacts, partition: int) -> Measurement:
    marker, committed, end = found.markers.get(partition), look.rows[partition].committed, look.bounds[partition].end
    detail = ""
    if marker is not None and marker.topic_id != ticks.id:
        detail = f"the checkpoint is of topic {marker.topic_id}, the cluster has {ticks.id}"
    elif (committed or 0) > end:
        detail = f"the committed offset is {committed}, the end {end}"
    elif marker is not None and marker.next_offset > end:
        detail = f"the checkpoint is at {marker.next_offset}, the end {end}"
    return Measurement(float(bool(detail)), resource=f"{ticks.name}-{partition}", detail=detail)


def _lost(look: Look, partition: int, offset: int) -> Measurement:
    first = look.bounds[partition].first
    detail = f"{offset} is needed, {first} is the first retained"
    return Measurement(max(first - offset, 0), resource=f"{look.topic}-{partition}", detail=detail)


def _age(reader: Reader, look: Look, partition: int, offset: int, retention_ms: int) -> Measurement:
    name, bounds = f"{look.topic}-{partition}", look.bounds[partition]
    tick = tick_at(reader, partition, offset, bounds) if retention_ms > 0 and offset < bounds.stable else None
    if tick is None or tick.timestamp < 0:
        return Measurement(0.0, resource=name)
    age_ms = max(look.at_ms - tick.timestamp, 0)
    detail = f"tick {tick.offset} is {age_ms / 1000:.0f} s old, retention.ms={retention_ms}"
    return Measurement(age_ms / retention_ms, resource=name, detail=detail)


def _holds_records(reader: Reader, partition: int) -> bool:
    """Whether other records than a pin, which can be the first of all, stand at the end of a state partition."""
    first, end = reader.bounds("state", partition)
    place = max(first, end - TAIL_RECORDS)
    try:
        while place < end:
            records, next_place = reader.read("state", partition, place, READ_SECONDS, TAIL_RECORDS)
            if any(record.key != pins.KEY for record in records):
                return True
            if next_place == place:
                break
            place = next_place
    except BrokerUnavailable:  # an open transaction holds the end up
        pass
    return False
