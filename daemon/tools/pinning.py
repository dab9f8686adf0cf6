"""Pins a bundle for a group, and sees what the group makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from daemon.core import pin as pins
from daemon.core.marker import Marker, MarkerError
from daemon.core.pin import PARTITION, Pin
from daemon.core.records import Message
from daemon.errors import BrokerUnavailable, SettingsError
from daemon.tools.state_topic import newest_marker, read_stored
from daemon.transport.port import Reader

#: Between two looks at what runs.
LOOK_SECONDS = 0.3
#: How long the newest marker of a partition is waited for: on a busy machine a first fetch takes its time.
MARKER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Running:
    """What the newest checkpoint of a partition is of; None is what cannot be known."""

    partition: int
    owner: str | None
    model: str | None
    revision: str | None
    checkpoint: int | None


def running(reader: Reader, owners: Mapping[int, str | None]) -> list[Running]:
    """Return what runs in each partition, by its newest checkpoint.

    Parameters
    ----------
    owners : of each partition
    """
    found = []
    for partition, owner in owners.items():
        marker = _marker(reader, partition)
        if marker is None:
            found.append(Running(partition, owner, None, None, None))
        else:
            found.append(Running(partition, owner, marker.model or None, marker.revision, marker.next_offset))
    return found


def pin_in_force(reader: Reader, group_id: str) -> Pin | None:
    """Return the newest pin of a group, of the whole partition that pins stand in; None where there is none.

    A pin that is overlooked would be followed by one of the same number, which the group does not heed.

    Raises
    ------
    BrokerUnavailable : no broker answers, or an open transaction holds the end up
    TopicError, AccessDenied
    """
    pin = read_stored(reader, PARTITION).pin()
    return pin if pin is not None and pin.group_id == group_id else None


def next_pin(group_id: str, bundle: str, before: Pin | None, ran: str) -> Pin:
    """Return the pin that is to be written.

    Parameters
    ----------
    before : the one in force
    ran : what ran before, where nothing was pinned; empty where that is not known
    """
    previous = ran if before is None else before.bundle
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Pin(group_id, bundle, "" if previous == bundle else previous, before.number + 1 if before else 1, at)


def message(pin: Pin) -> Message:
    """Return the record of a pin."""
    return Message(PARTITION, pins.KEY, pins.encode(pin))


def require_ours(reader: Reader, group_id: str, topic: str) -> None:
    """Make sure that a state topic belongs to a group, or to nobody yet.

    Raises
    ------
    SettingsError : it is another group's
    """
    marker = _marker(reader, PARTITION)
    if marker is not None and marker.group_id != group_id:
        raise SettingsError(
            f"the state topic {topic} belongs to group {marker.group_id!r}, the settings say {group_id!r}; "
            "give --config of the group whose model is to change"
        )


def await_switch(
    look: Callable[[], list[Running]],
    bundle: str,
    seconds: float,
    seen: Callable[[Running, float], None],
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Running]:
    """Look until every partition runs a bundle or the time is up; return what was seen last.

    Parameters
    ----------
    seen : called once for each partition that runs it, with the seconds since the call
    """
    began = monotonic()
    done: set[int] = set()
    while True:
        found = look()
        for each in found:
            if each.model == bundle and each.partition not in done:
                done.add(each.partition)
                seen(each, monotonic() - began)
        if all(each.model == bundle for each in found) or monotonic() - began >= seconds:
            return found
        sleep(LOOK_SECONDS)


def _marker(reader: Reader, partition: int) -> Marker | None:
    try:
        return newest_marker(reader, partition, patience_seconds=MARKER_SECONDS)
    except (MarkerError, BrokerUnavailable):  # held up by a transaction: what can be known is enough
        return None
