"""Where an audit begins a partition, and with which states. Pure; no client, no clock.

    an export of the states that still live    its snapshots, at the offset of its marker
    else, where their first tick is retained   nothing, at that tick, as the daemon itself began
    else                                       nothing, at the first tick retained; an instrument is judged from its
                                               first published reset on that leaves nothing of what came before

The marker in the state topic tells which states live, where they began and under which revision. An export of states
that have been given up since (the group was set back, ticks were lost, the revision changed) is good up to there: so
what another revision published is audited with an export of its states, and with the settings and bundle of then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from daemon.core.marker import Marker, MarkerError
from daemon.core.snapshot import Snapshot
from daemon.stored import Stored, blank, is_instrument
from schemas import ResetCause


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a partition before the audit."""

    partition: int
    group_id: str
    topic_id: str
    revision: str
    #: First retained tick.
    first: int
    #: Of the group: every tick before it has its outcome committed.
    committed: int | None
    #: The newest in the state topic.
    marker: Marker | None
    exported: Stored | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """How the re-run of a partition begins, and which ticks can be judged."""

    #: The first tick that is run.
    offset: int
    #: Ticks before it are run silently, as the daemon did; what was published for them is of other states.
    live_from: int
    #: The first tick that is no longer judged.
    until: int
    origin: ResetCause
    #: In words.
    line: str
    #: The first tick that these states answered, where others may have answered it, and more, before the group was
    #: set back.
    set_back_to: int | None = None
    snapshots: tuple[Snapshot, ...] = ()
    #: What an operator has reset: tick -> instruments.
    resets: Mapping[int, tuple[tuple[str, ResetCause], ...]] = field(default_factory=dict)
    #: All instruments but `unsure` stand as the daemon's did; otherwise none does.
    whole: bool = True
    #: Instruments that stand otherwise than the daemon's did.
    unsure: tuple[str, ...] = ()
    #: The states have been given up since, perhaps before `until`: a forecast of another model ends what can be judged.
    ended: bool = False


def start_of(setting: Setting) -> Start | str:
    """Return where the audit begins, or why nothing of the partition can be judged."""
    marker, exported = setting.marker, setting.exported
    try:
        kept = None if exported is None else exported.marker()
    except MarkerError as error:
        return f"the snapshot file was made by another release: {error}"
    for found, source in ((marker, "the state topic"), (kept, "the snapshot file")):
        if found is not None and (foreign := _foreign(found, setting, source)) is not None:
            return foreign
    live = marker or kept
    until = setting.committed
    if until is None:
        if live is None:
            return "the group has committed nothing"
        until = live.next_offset
    if exported is not None and kept is not None and kept.next_offset >= setting.first and _lives_on(kept, marker):
        return _other_revision(kept, setting, "the snapshot file") or _from_export(exported, kept, marker, until)
    if marker is None:
        line = "there is no marker in the state topic: instruments are judged from their next reset on"
        return Start(setting.first, setting.first, until, ResetCause.FIRST, line, whole=False)
    return _other_revision(marker, setting, "the state topic") or _from_log(setting, marker, until)


def _from_log(setting: Setting, marker: Marker, until: int) -> Start:
    set_back_to = _set_back_to(marker)
    if marker.replay_start >= setting.first:
        line = f"from tick {marker.replay_start}, where the states began"
        return Start(marker.replay_start, marker.live_from, until, marker.origin, line, set_back_to)
    begin = max(setting.first, marker.live_from)
    line = (
        f"ticks {marker.replay_start} to {setting.first - 1}, with which the states began, are no longer retained: "
        f"from tick {begin}, instruments are judged from their next reset on"
    )
    return Start(begin, begin, until, marker.origin, line, set_back_to, whole=False)


def _foreign(marker: Marker, setting: Setting, source: str) -> str | None:
    if marker.group_id != setting.group_id:
        return f"{source} belongs to group {marker.group_id!r}, the settings say {setting.group_id!r}"
    if marker.topic_id != setting.topic_id:
        return f"the ticks topic was created anew since {source} was written"
    return None


def _other_revision(marker: Marker, setting: Setting, source: str) -> str | None:
    if marker.revision == setting.revision:
        return None
    return (
        f"{source} is of revision {marker.revision}, these settings, this bundle and this machine make "
        f"{setting.revision}: audit with what the daemon ran with"
    )


def _lives_on(kept: Marker, marker: Marker | None) -> bool:
    """Say whether the exported states were live at their marker, and not set back to before it later."""
    return marker is None or _same_life(kept, marker) or kept.next_offset < marker.live_from


def _set_back_to(marker: Marker) -> int | None:
    """Only what starts cold can have been set back; looking for that costs a read of all outcomes."""
    return marker.live_from if marker.origin is ResetCause.COLD else None


def _same_life(one: Marker, other: Marker) -> bool:
    return replace(one, next_offset=other.next_offset) == other


def _from_export(exported: Stored, kept: Marker, marker: Marker | None, until: int) -> Start:
    line = f"from the snapshots at tick {kept.next_offset}"
    ended = marker is not None and not _same_life(kept, marker)
    if marker is not None and ended:
        until = min(until, marker.live_from)
        line += (
            f" up to tick {until}, where the daemon began anew: the rest is another audit, without the snapshot file"
        )
    snapshots: list[Snapshot] = []
    unsure: list[str] = []
    resets: dict[int, list[tuple[str, ResetCause]]] = {}
    for key, found in exported.snapshots(kept):
        if isinstance(found, Snapshot):
            snapshot, instrument = found, found.instrument
            if snapshot.is_reset:
                unsure.append(instrument.name)
                cause = instrument.pending_reset or ResetCause.OPERATOR
                resets.setdefault(max(snapshot.next_offset, kept.next_offset), []).append((instrument.name, cause))
        elif is_instrument(key):
            snapshot = blank(key, kept)
            unsure.append(key.decode())
        else:
            continue
        snapshots.append(snapshot)
    return Start(
        kept.next_offset,
        kept.next_offset,
        until,
        kept.origin,
        line,
        _set_back_to(kept),
        tuple(snapshots),
        {offset: tuple(each) for offset, each in resets.items()},
        unsure=tuple(unsure),
        ended=ended,
    )
