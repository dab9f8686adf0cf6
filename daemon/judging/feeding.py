"""Feeds ticks of files to a pipeline as a topic would, and records what it forecasts.

The records are what `tickcast replay` would have put into a topic with so many partitions: the same partitions and
offsets, so ids are the same too.

A file does not say when its ticks were published. Records therefore carry no Kafka timestamp, and no tick is ahead of
it: what a daemon sees of ticks that were published after they happened, live or replayed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from daemon.core.pipeline import Batch, Pipeline
from daemon.core.records import InputRecord
from daemon.dev.replay import partition_of
from daemon.errors import SettingsError
from daemon.judging.tape import Recorder

#: As the daemon counts a record without one.
NO_TIMESTAMP = -1
#: A broker's own limit is beyond any use; a partition costs little, but a typing error should not cost minutes.
PARTITIONS_MAX = 10_000


@dataclass(frozen=True)
class Naming:
    """The topic that the ticks of the files would stand in: ids name it, and evictions are by partition."""

    topic: str = "ticks"
    partitions: int = 1

    def __post_init__(self) -> None:
        """Refuse what is no topic.

        Raises
        ------
        SettingsError : names the option, the value found and the value allowed
        """
        if not 1 <= self.partitions <= PARTITIONS_MAX:
            raise SettingsError(f"--partitions {self.partitions}: give a whole number from 1 to {PARTITIONS_MAX}")


#: A record, and whether its tick holds a quote.
Fed = tuple[InputRecord, bool]


def feed(
    pipeline: Pipeline, ticks: Iterable[Mapping[str, Any]], naming: Naming, size: int
) -> Iterator[tuple[list[Fed], Batch]]:
    """Run ticks through a pipeline, `size` at a time; yield what went in and what came of it."""
    for partition in range(naming.partitions):
        pipeline.assign(partition)
    fed = _records(ticks, naming)
    while batch := list(islice(fed, size)):
        yield batch, pipeline.advance([record for record, _ in batch])


def keep_forecasts(recorder: Recorder, fed: Sequence[Fed], batch: Batch, naming: Naming) -> None:
    """Put the forecasts of a batch on their tapes."""
    quotes = {f"{naming.topic}-{record.partition}-{record.offset}": quote for record, quote in fed}
    for message in batch.forecasts:
        payload = orjson.loads(message.value or b"")
        recorder.add(payload, quote=quotes[payload["id"]])


def _records(ticks: Iterable[Mapping[str, Any]], naming: Naming) -> Iterator[Fed]:
    ends = [0] * naming.partitions
    for tick in ticks:
        name = tick["instrument"]
        partition = partition_of(name, naming.partitions)
        record = InputRecord(naming.topic, partition, ends[partition], NO_TIMESTAMP, name.encode(), orjson.dumps(tick))
        ends[partition] += 1
        yield record, "bid" in tick
