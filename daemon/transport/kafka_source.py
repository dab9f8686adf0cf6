"""The input topic on kafka-python: one static member of a cooperative group that decides its positions itself.

kafka-python never resolves a position here. With `auto_offset_reset="none"` it would raise as soon as one partition
has no committed offset, and with any other value one partition whose offset is held by another owner's open
transaction keeps all the others from being fetched (both measured). So every new partition is paused and given a
placeholder position before `poll` can look at it, and waits for `start_at`.

No deserialisers: one that raises leaves the consumer spinning in `poll` for ever, its timeout ignored.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import LogTruncationError, OffsetOutOfRangeError
from kafka.structs import MemberState

from daemon.core.records import Record
from daemon.transport.admin_line import AdminLine
from daemon.transport.changes import numbers
from daemon.transport.connection import Connection
from daemon.transport.kafka_changes import AssignmentChanges
from daemon.transport.kafka_client import READING, connect, reason, translate
from daemon.transport.kafka_committed import fetch_committed
from daemon.transport.kafka_records import bring_ours
from daemon.transport.kafka_topic import METADATA_MAX_AGE_SECONDS, TopicWatch
from daemon.transport.lane import Lane
from daemon.transport.place import Place, orphans
from daemon.transport.port import Polled
from daemon.transport.remedies import missing

_log = logging.getLogger(__name__)

#: A member hears of a rebalance with its next heartbeat, and until all have heard of it nobody goes on. At the default
#: of 3000 ms each one stops all partitions for 3 s. When a second instance joined, the partitions that moved stood
#: still for 0.2-0.7 s and those that stayed for 0.2-0.7 s at 300; for 0.2-0.4 s and 0.2-0.3 s at 150 (two cores, load
#: 10). Heartbeats of 150 cost an idle process 0.2 % of a core more.
HEARTBEAT_INTERVAL_MS = 150
#: How long a killed instance keeps its partitions; the broker's least is 6000 by default.
SESSION_TIMEOUT_MS = 10_000
#: The broker holds a fetch this long when a partition has nothing; at 500 one hot partition beside idle ones fell from
#: 64,800 to 12,200 records/s.
FETCH_MAX_WAIT_MS = 20
#: How long a poll waits for a rebalance to end, whatever its own timeout; see `KafkaSource._settle`.
REBALANCE_WAIT_SECONDS = 1.0
#: The other partitions wait as long; an answer takes 1 ms, and who gets none asks again.
COMMITTED_TIMEOUT_SECONDS = 0.1
REQUEST_TIMEOUT_SECONDS = 10.0
CLOSE_TIMEOUT_SECONDS = 5.0
#: How a topic that was created anew can look from below.
MOVED_UNDER_US = (LogTruncationError, OffsetOutOfRangeError)


class KafkaSource:
    """A `Source` on a Kafka consumer group; its constructor waits up to `timeout_seconds` for a broker."""

    def __init__(
        self, connection: Connection, *, topic: str, group_id: str, instance_id: str, timeout_seconds: float = 60.0
    ) -> None:
        self._topic = topic
        self._group_id = group_id
        self._consumer: KafkaConsumer = connect(
            KafkaConsumer,
            connection,
            timeout_seconds,
            client_id=f"tickcast-{instance_id}",
            group_id=group_id,
            group_instance_id=instance_id,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            metadata_max_age_ms=int(METADATA_MAX_AGE_SECONDS * 1000),
            **READING,
        )
        bring_ours(self._consumer)
        self._admin = AdminLine(connection)
        self._place = Place(connection, self._admin, group_id, instance_id)
        self._changes = AssignmentChanges(self._consumer)
        self._started: set[int] = set()
        self._consumer.subscribe([topic], listener=self._changes)
        self._look_up_topic(timeout_seconds)
        self._watch = TopicWatch(self._consumer, topic, self._admin)

    def poll(self, timeout_seconds: float, max_records: int) -> Polled:
        """Do as `Source.poll` says; wait up to `REBALANCE_WAIT_SECONDS` while the group rebalances.

        Such a poll delivers nothing anyway. Once it is known who has what, nobody waits for ticks: the caller has more
        to do, and a new partition brings none. A poll that raised is never tried again: kafka-python would spin in it.

        Raises
        ------
        TopicError : the topic was deleted, or created anew, or does not hold a position any more
        """
        try:
            self._settle()
            patience_ms = 0 if self._changes.pending else timeout_seconds * 1000
            fetched = self._consumer.poll(timeout_ms=patience_ms, max_records=max_records)
            if not fetched:
                self._settle()
        except Exception as error:
            if isinstance(error, MOVED_UNDER_US):
                self._watch.ask()
            raise translate(error, f"reading {self._topic}") from error
        self._watch.check()
        changed = self._changes.take()
        self._started.difference_update(changed.revoked, changed.lost, changed.assigned)
        batches = list(fetched.values())
        records: Sequence[Record] = batches[0] if len(batches) == 1 else [r for batch in batches for r in batch]
        return Polled(records, changed.revoked, changed.lost, changed.assigned)

    @property
    def joined(self) -> bool:
        """True while we are a settled member of the group, with or without partitions."""
        return self._consumer.group_metadata().state is MemberState.STABLE

    def assignment(self) -> tuple[int, ...]:
        """Return the partitions that are ours now, sorted."""
        return numbers(self._consumer.assignment())

    def committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """Do as `Source.committed` says, in one request for all partitions that waits `COMMITTED_TIMEOUT_SECONDS`."""
        if not partitions:
            return {}
        timeout_ms = COMMITTED_TIMEOUT_SECONDS * 1000
        try:
            return fetch_committed(self._consumer, self._group_id, self._topic, partitions, timeout_ms)
        except Exception as error:
            raise translate(error, f"reading the committed offsets of {self._topic}") from error

    def bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Do as `Source.bounds` says; the end is what a `read_committed` reader may see."""
        wanted = [self._tp(partition) for partition in partitions]
        timeout_ms = REQUEST_TIMEOUT_SECONDS * 1000
        try:
            first = self._consumer.beginning_offsets(wanted, timeout_ms=timeout_ms)
            end = self._consumer.end_offsets(wanted, timeout_ms=timeout_ms)
        except Exception as error:
            raise translate(error, f"reading the bounds of {self._topic}") from error
        return {tp.partition: (first[tp], end[tp]) for tp in wanted}

    def start_at(self, partition: int, offset: int) -> None:
        """Seek an assigned partition and let it deliver.

        kafka-python 3.0.12 sets aside what it has parsed of a paused partition. Once any other partition has delivered
        it neither gives that back nor fetches on: the partition stands still for ever (measured). So it is thrown
        away here; the seek asks for it again.
        """
        tp = self._tp(partition)
        self._consumer._fetcher._paused_partition_records.pop(tp, None)
        self._consumer.seek(tp, offset)
        self._consumer.resume(tp)
        self._started.add(partition)

    def stop(self, partition: int) -> None:
        """Pause an assigned partition until the next `start_at`; nothing of it is delivered any more."""
        self._consumer.pause(self._tp(partition))
        self._started.discard(partition)

    def positions(self) -> dict[int, int]:
        """Do as `Source.positions` says; a marker at the end is stepped over by the poll after the last record.

        Every started partition has one, and a poll has validated it. The consumer's own `position` validates them all,
        each time: for 100 partitions that took 15 ms, three times a turn.
        """
        assigned = self._consumer._subscription.assignment
        return {partition: assigned[self._tp(partition)].position.offset for partition in sorted(self._started)}

    def lags(self) -> dict[int, int]:
        """Do as `Source.lags` says.

        What the client knows is the high watermark, so an open transaction on the input counts as lag until it ends;
        a partition that has not been fetched yet counts as 0.
        """
        ends = {partition: self._consumer.highwater(self._tp(partition)) for partition in self._started}
        return {p: max(0, (ends[p] or 0) - position) for p, position in self.positions().items()}

    def group_metadata(self) -> object:
        """Return the membership to commit under; read it right after the poll that brought the records."""
        return self._consumer.group_metadata()

    def topic_id(self) -> str:
        """Return the id that the cluster gave the input topic when it was created, as it was when we began."""
        return self._watch.topic_id

    def confirm(self) -> None:
        """Do as `Source.confirm` says.

        The consumer itself does not tell: kafka-python ends its heartbeats when they are fenced, and goes on polling.
        """
        group = self._place.ask(self._watch)
        self._place.require(group, [self._consumer.group_metadata().member_id])
        known = self._consumer._cluster.partitions_for_topic(self._topic)
        if orphaned := orphans(group, self._topic, known):
            _log.warning("the partitions %s belong to nobody, asking the group to share anew", sorted(orphaned))
            self._consumer._coordinator.request_rejoin()

    def close(self, *, leave: bool) -> None:
        """Do as `Source.close` says."""
        member_id = self._consumer.group_metadata().member_id
        lane = Lane("close-source")
        try:
            lane.call(self._close_consumer, CLOSE_TIMEOUT_SECONDS)
            if leave and member_id:
                lane.call(lambda: self._place.leave(member_id), CLOSE_TIMEOUT_SECONDS)
        except Exception as error:
            _log.warning("the consumer did not close cleanly: %s", reason(error))
        finally:
            lane.close()
            self._admin.close()

    def _settle(self) -> None:
        """Wait for a rebalance to end, if there is one.

        The answer to our joining must find us waiting: kafka-python 3.0.12 throws an answer away that arrives between
        two polls. It then joins anew, or, if it was the topic's growth that made it join, thinks that it has joined and
        sends no heartbeats any more (both measured); asking for the rejoin again mends that. It is the coordinator that
        is waited for: a poll of the consumer would not return with the assignment, but wait on for records, which
        paused partitions never bring (1 s more for every hand-over).
        """
        coordinator = self._consumer._coordinator
        if coordinator.need_rejoin() or coordinator.state is MemberState.REBALANCING:
            coordinator.request_rejoin()
            coordinator.poll(timeout_ms=REBALANCE_WAIT_SECONDS * 1000)

    def _look_up_topic(self, timeout_seconds: float) -> None:
        """Learn the partitions before joining: a leader that does not know them yet shares out none (measured)."""
        lane = Lane("topic")
        try:
            known = lane.call(lambda: self._consumer.partitions_for_topic(self._topic), timeout_seconds)
        except Exception as error:
            self.close(leave=False)
            raise translate(error, f"looking up the topic {self._topic}") from error
        finally:
            lane.close()
        if not known:
            self.close(leave=False)
            raise missing(self._topic)

    def _close_consumer(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_SECONDS * 1000)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)
