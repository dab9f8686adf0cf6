"""When each partition's states are written to the state topic, and what is written.

A checkpoint is made inside a transaction that commits its partition's offset: snapshots of the instruments touched
since the last one, tombstones of those evicted, the marker. At most one partition's checkpoint per transaction, phases
staggered, so that no batch waits for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from daemon.core import marker as markers
from daemon.core.marker import Marker
from daemon.core.pin import Pin
from daemon.core.pipeline import Pipeline
from daemon.core.records import Message

#: Spreads the phases of any number of partitions evenly: multiples of the golden ratio never bunch.
GOLDEN_RATIO = 0.6180339887498949


@dataclass(slots=True)
class _Partition:
    #: As in the state topic.
    marker: Marker
    #: When the next checkpoint is due, seconds.
    due_at: float


class Checkpoints:
    """The checkpoints of the running partitions.

    Parameters
    ----------
    seconds, ticks : a checkpoint is due after either, where there is anything unsaved
    monotonic : the clock, seconds
    """

    def __init__(self, pipeline: Pipeline, seconds: float, ticks: int, monotonic: Callable[[], float]) -> None:
        self._pipeline = pipeline
        self._seconds = seconds
        self._ticks = ticks
        self._monotonic = monotonic
        self._partitions: dict[int, _Partition] = {}
        #: What markers say beside the states: the bundle that runs, and the newest pin.
        self._model = ""
        self._pin: Pin | None = None

    def adopt(self, pipeline: Pipeline) -> None:
        """Write the states of another pipeline from now on; every partition begins anew."""
        self._pipeline = pipeline
        self._partitions.clear()

    def sign(self, model: str, pin: Pin | None) -> None:
        """Let the markers from here on name the bundle that runs and the newest pin."""
        self._model = model
        self._pin = pin

    def begin(self, partition: int, marker: Marker) -> None:
        """Watch a partition that starts to run; `marker` is the one in the state topic."""
        phase = self._seconds * ((partition + 1) * GOLDEN_RATIO % 1)
        self._partitions[partition] = _Partition(marker, self._monotonic() + phase)

    def drop(self, partition: int) -> None:
        """Forget a partition; unknown ones are no error."""
        self._partitions.pop(partition, None)

    def due(self, positions: Mapping[int, int]) -> int | None:
        """Return the partition whose checkpoint has been due for longest, None where none is.

        Parameters
        ----------
        positions : next offset of each running partition; what is before it is in the states
        """
        now = self._monotonic()
        waiting = [
            (found.due_at, partition)
            for partition, found in self._partitions.items()
            if (unsaved := positions[partition] - found.marker.next_offset) > 0
            and (now >= found.due_at or unsaved >= self._ticks)
        ]
        return min(waiting)[1] if waiting else None

    def unsaved(self, positions: Mapping[int, int]) -> list[int]:
        """Return the partitions with anything to save."""
        return [p for p, found in self._partitions.items() if positions[p] > found.marker.next_offset]

    def messages(self, partition: int, next_offset: int) -> list[Message]:
        """Return the checkpoint of a running partition at `next_offset`."""
        marker = replace(self._partitions[partition].marker, next_offset=next_offset)
        return self.of(partition, marker)

    def of(self, partition: int, marker: Marker) -> list[Message]:
        """Return the checkpoint of a partition at a marker: snapshots, tombstones and, last, the marker."""
        return checkpoint(self._pipeline, partition, replace(marker, model=self._model, pin=self._pin))

    def committed(self, partition: int, next_offset: int) -> None:
        """Note that the checkpoint was committed."""
        found = self._partitions[partition]
        found.marker = replace(found.marker, next_offset=next_offset)
        found.due_at = self._monotonic() + self._seconds
        self._pipeline.checkpointed(partition, next_offset)


def checkpoint(pipeline: Pipeline, partition: int, marker: Marker) -> list[Message]:
    """Return snapshots, tombstones and, last, the marker."""
    return [
        *pipeline.checkpoint(partition, marker.revision, marker.next_offset),
        Message(partition, markers.KEY, markers.encode(marker)),
    ]
