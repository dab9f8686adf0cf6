"""Brings partitions to work: after start, restart, rebalance and failed transaction, by the same few lines.

Today a partition that has been read before starts *cold*: its offsets continue where the group committed them, so no
tick is lost or answered twice, but its instruments begin from the initial state and say so (`reset: "cold"`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from daemon.core.pipeline import Pipeline
from daemon.errors import TopicError
from daemon.logs import facts, log
from daemon.transport.port import Source


class Recovery:
    """Starts partitions at the right offset.

    Parameters
    ----------
    auto_offset_reset : where a partition without a committed offset begins
    on_lost_ticks : what to do where committed ticks are no longer retained
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        auto_offset_reset: Literal["earliest", "latest"],
        on_lost_ticks: Literal["stop", "reset"],
    ) -> None:
        self._source = source
        self._pipeline = pipeline
        self._auto_offset_reset = auto_offset_reset
        self._on_lost_ticks = on_lost_ticks

    def drop(self, partitions: Sequence[int]) -> None:
        """Forget partitions that are no longer ours; nothing is written for them."""
        for partition in partitions:
            self._pipeline.drop(partition)

    def start(self, partitions: Sequence[int]) -> None:
        """Give assigned partitions their offset and let them deliver.

        Raises
        ------
        TopicError : the committed offset is beyond the log's end, or before its beginning and `on_lost_ticks` is "stop"
        BrokerUnavailable : the offsets cannot be learned in time
        """
        if not partitions:
            return
        committed = self._source.committed(partitions)
        bounds = self._source.bounds(partitions)
        for partition in partitions:
            first, end = bounds[partition]
            offset = self._offset(partition, committed[partition], first, end)
            cold = offset > first
            self._pipeline.assign(partition, cold=cold)
            self._source.start_at(partition, offset)
            say = log.warning if cold else log.info
            say(
                "partition starts cold" if cold else "partition starts", extra=facts(partition=partition, offset=offset)
            )

    def _offset(self, partition: int, committed: int | None, first: int, end: int) -> int:
        if committed is None:
            return first if self._auto_offset_reset == "earliest" else end
        if committed > end:
            raise TopicError(
                f"partition {partition}: committed offset {committed} is beyond end {end}: the topic was recreated; "
                "start under a new kafka.group_id, or delete the group's offsets"
            )
        if committed < first:
            lost = f"partition {partition}: ticks {committed} to {first - 1} are no longer retained"
            if self._on_lost_ticks == "stop":
                raise TopicError(f'{lost}; set pipeline.on_lost_ticks = "reset" to go on without them')
            log.error(lost, extra=facts(partition=partition, committed=committed, first=first))
            return first
        return committed
