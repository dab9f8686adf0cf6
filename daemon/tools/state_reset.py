"""Resets of instruments by an operator, for a group that stands still.

A reset is a snapshot without state, written over the instrument's own. The next start reads it, replays the ticks from
the checkpoint to the committed offset, lets the reset take place there, and the instrument's next forecast says so.

Why no start of the group can be harmed: the resets stand in the log first, in an open transaction; then it is made
sure that the group has no members and stands where it stood; only then the transaction is committed. Who starts
after that look finds the open transaction in the state topic and waits for it. Who started before is seen. A
command that fails half-way has reset some partitions and not others; running it again does the rest.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from daemon.core.marker import Marker, MarkerError
from daemon.core.records import Message
from daemon.core.snapshot import Snapshot, encode_reset
from daemon.errors import SettingsError
from daemon.stored import Stored, is_instrument
from schemas import ResetCause

CLOSE_NAMES_MAX = 5


@dataclass(frozen=True, slots=True)
class Reset:
    """One reset to be written."""

    instrument: str
    partition: int
    message: Message


@dataclass(frozen=True, slots=True)
class ResetPlan:
    """What is to be written, and what needs nothing."""

    resets: tuple[Reset, ...]
    #: Why instruments of a partition begin anew by themselves.
    notes: tuple[str, ...]

    def by_partition(self) -> dict[int, list[Reset]]:
        """Return the resets of each partition that has any."""
        found: dict[int, list[Reset]] = {}
        for each in self.resets:
            found.setdefault(each.partition, []).append(each)
        return found


class Planner:
    """Collects resets partition by partition.

    Parameters
    ----------
    names : the instruments to reset; None for all
    """

    def __init__(self, names: Sequence[str] | None) -> None:
        self._wanted = None if names is None else dict.fromkeys(names)
        self._found: dict[str, None] = {}
        self._known: set[str] = set()
        self._resets: list[Reset] = []
        self._notes: list[str] = []
        self._behind: list[int] = []

    def add(self, partition: int, stored: Stored, committed: int | None) -> None:
        """Take a partition: what its state topic holds, and the group's committed offset."""
        keys = [key for key in stored.values if is_instrument(key)]
        names = [key.decode() for key in keys]
        self._known.update(names)
        chosen = names if self._wanted is None else [name for name in names if name in self._wanted]
        self._found.update(dict.fromkeys(chosen))
        marker, problem = _marker(stored)
        if marker is not None and committed is not None:
            if committed > marker.next_offset:
                self._behind.append(partition)
            if committed < marker.next_offset:
                problem = f"the group was set back from {marker.next_offset} to {committed}"
        if problem is not None and chosen:
            self._notes.append(f"partition {partition}: all instruments begin anew at the next start: {problem}")
        elif marker is not None and chosen:
            self._plan(partition, stored, marker, marker.next_offset if committed is None else committed, chosen)

    def plan(self) -> ResetPlan:
        """Return what to do.

        Raises
        ------
        SettingsError : an instrument is not there; the message lists close names
        """
        missing = [name for name in self._wanted or () if name not in self._found]
        if missing:
            raise SettingsError(no_such_instrument(missing[0], sorted(self._known), self._behind))
        return ResetPlan(tuple(self._resets), tuple(self._notes))

    def _plan(self, partition: int, stored: Stored, marker: Marker, offset: int, names: Iterable[str]) -> None:
        chosen = set(names)
        for key, found in stored.snapshots(marker):
            if not is_instrument(key) or (name := key.decode()) not in chosen:
                continue
            last = found.instrument.last_offset if isinstance(found, Snapshot) else -1
            value = encode_reset(marker.revision, offset, name, ResetCause.OPERATOR, last)
            self._resets.append(Reset(name, partition, Message(partition, key, value)))


def no_such_instrument(name: str, known: Sequence[str], behind: Sequence[int] = ()) -> str:
    """Say that an instrument has no state, and which names are close; `behind` are partitions that have gone on."""
    close = difflib.get_close_matches(name, known, CLOSE_NAMES_MAX, 0.5) or list(known[:CLOSE_NAMES_MAX])
    folded = [each for each in known if each.casefold() == name.casefold()]
    names = ", ".join(dict.fromkeys([*folded, *close][:CLOSE_NAMES_MAX]))
    text = f"there is no state of instrument {name!r}; " + (f"close are {names}" if names else "there is none at all")
    if behind:
        text += (
            f"; partition{'s' if len(behind) > 1 else ''} {', '.join(map(str, behind))} did not end with a checkpoint, "
            "so it may be newer: start and stop the group once"
        )
    return text + "; `tickcast state list --instruments` lists all"


def unchanged(before: Mapping[int, int | None], read_again: Callable[[], Mapping[int, int | None]]) -> None:
    """Make sure that the group's offsets are those that the resets were planned for.

    Raises
    ------
    SettingsError : the group has run meanwhile
    """
    if dict(read_again()) != dict(before):
        raise SettingsError("the group has run meanwhile, nothing was reset; stop it and try again")


def _marker(stored: Stored) -> tuple[Marker | None, str | None]:
    try:
        marker = stored.marker()
    except MarkerError as error:
        return None, str(error)
    return marker, None if marker is not None else "there is no checkpoint"
