"""States for people: rows of a table, and everything of one snapshot with names to the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from daemon.config import Settings
from daemon.core.features import parse_feature
from daemon.core.instrument import NEVER, Instrument
from daemon.core.marker import Marker, MarkerError
from daemon.core.snapshot import Snapshot, SnapshotError
from daemon.core.spec import Column, Missing
from daemon.errors import TickcastError
from daemon.revision import revision as revision_of
from daemon.stored import Stored

#: Fields of an instrument that hold event times.
TIMES = ("last_ts", "session_start", "session_end", "session_since")
#: Fields in the order in which a person asks for them.
FIELDS = (
    "step",
    "price",
    "bid",
    "ask",
    "bid_size",
    "ask_size",
    "seq",
    "session",
    "spoken_session",
    *TIMES,
    "last_offset",
    "reset_offset",
    "pending_reset",
    "untold_reset",
)


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """The checkpoint of one partition; None is what cannot be known."""

    partition: int
    revision: str | None
    #: The checkpoint's offset: the first tick that is not in it.
    checkpoint: int | None
    #: The next offset to be answered.
    committed: int | None
    instruments: int
    #: Why the states of the partition began, and the first offset answered from them.
    origin: str | None
    live_from: int | None
    #: Why nothing of it can be used.
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class InstrumentRow:
    """One state of a partition."""

    instrument: str
    partition: int
    step: int | None
    session: str | None
    #: ISO 8601, to the nanosecond.
    last_event_time: str | None
    price: float | None
    reset_offset: int | None
    bytes: int
    #: Why it cannot be used, or what waits for the instrument.
    note: str | None = None


def partition_row(partition: int, stored: Stored, committed: int | None) -> PartitionRow:
    """Sum a partition up."""
    count = len(stored.values)
    try:
        marker = stored.marker()
    except MarkerError as error:
        return PartitionRow(partition, None, None, committed, count, None, None, str(error))
    if marker is None:
        return PartitionRow(partition, None, None, committed, count, None, None)
    origin = marker.origin.value
    return PartitionRow(partition, marker.revision, marker.next_offset, committed, count, origin, marker.live_from)


def instrument_rows(partition: int, stored: Stored, marker: Marker) -> Iterator[InstrumentRow]:
    """Yield a row for every key, sorted."""
    for key, found in sorted(stored.snapshots(marker), key=lambda each: each[0]):
        name, size = key.decode(errors="backslashreplace"), len(stored.values[key])
        if isinstance(found, SnapshotError):
            yield InstrumentRow(name, partition, None, None, None, None, None, size, f"cannot be used: {found}")
            continue
        state = found.instrument
        yield InstrumentRow(
            name,
            partition,
            state.step,
            state.session,
            iso_time(state.last_ts),
            state.price,
            state.reset_offset if state.reset_offset >= 0 else None,
            size,
            _note(found),
        )


def snapshot_facts(snapshot: Snapshot, marker: Marker, cell_names: Sequence[str] | None) -> dict[str, Any]:
    """Return everything of a snapshot, in full precision; times also in words."""
    state = snapshot.instrument
    cells: object = state.cells
    if cell_names is not None and len(cell_names) == len(state.cells):
        cells = dict(zip(cell_names, state.cells, strict=True))
    facts = {name: _plain(state, name) for name in FIELDS}
    return {
        "instrument": state.name,
        "revision": snapshot.revision,
        "next_offset": snapshot.next_offset,
        "marker": asdict(marker) | {"origin": marker.origin.value},
        **facts,
        "times": {name: iso_time(getattr(state, name)) for name in TIMES},
        "cells": cells,
        "state": snapshot.state.tolist(),
    }


def snapshot_of(stored: Stored, key: bytes, marker: Marker) -> Snapshot | SnapshotError:
    """Return one instrument's snapshot, or why it cannot be used."""
    alone = Stored()
    alone.values[key] = stored.values[key]
    ((_, found),) = alone.snapshots(marker)
    return found


def bundle_cell_names(settings: Settings, revision: str) -> list[str] | None:
    """Return the names of cells of this revision; None where the settings and their bundle are not of it."""
    from daemon.boundaries import resolve_rules
    from daemon.model.bundle import Bundle

    try:
        bundle = Bundle.load(settings.model.bundle)
        step, rules = bundle.step(settings.model.engine), resolve_rules(settings.session)
    except (TickcastError, ImportError):  # a look at states needs no bundle: numbers without names
        return None
    return (
        cell_names(bundle.spec.columns, bundle.spec.missing)
        if revision_of(bundle.id, settings, rules, step) == revision
        else None
    )


def cell_names(columns: Sequence[Column], missing: Missing = "dead_letter") -> list[str]:
    """Name every cell of an instrument, as `FeatureTable` lays them out for these columns; each name stands once."""
    names = ["variance of one-tick log returns"]
    for column in columns:
        if column.scale == "running":
            names += [f"{column.feature}: running mean", f"{column.feature}: running variance"]
        own_count = len(parse_feature(column.feature, missing).start)
        names += [f"{column.feature}: memory {index}" for index in range(own_count)]
    seen: dict[str, int] = {}
    for index, name in enumerate(names):  # a model may read a feature twice
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[index] = f"{name} ({seen[name]})"
    return names


def iso_time(ns: int) -> str | None:
    """Write an event time as ISO 8601, exact to the nanosecond; None where there was none."""
    if ns == NEVER:
        return None
    seconds, fraction = divmod(ns, 10**9)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
    except (ValueError, OverflowError, OSError):  # a session's end can lie beyond the calendar
        return f"{ns} ns"


def _note(snapshot: Snapshot) -> str | None:
    state = snapshot.instrument
    if snapshot.is_reset:
        return f"will be reset: {(state.pending_reset or 'cold')!s}"
    return None if state.pending_reset is None else f"next tick begins anew: {state.pending_reset!s}"


def _plain(state: Instrument, name: str) -> Any:
    value = getattr(state, name)
    return None if name in TIMES and value == NEVER else getattr(value, "value", value)
