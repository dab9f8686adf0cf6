"""The input topic on librdkafka: one static member of a cooperative group that decides its positions itself.

What the group gives us and what librdkafka fetches are two things here: a partition that is assigned is only noted, and
handed to librdkafka, with its offset, when `start_at` says so. So nothing is fetched that has to be thrown away, and
librdkafka never resolves a position.

librdkafka fences itself: when a broker comes back after longer than a session, its first request to join may be carried
out and the answer lost; the second makes it another member under the same instance id, and the first member is told
that it was replaced (seen in one of two outages of 14 s). That ends a consumer for good, so after an outage another one
is built, once. Of two processes with one name both may do so, and the older still ends at the second time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from kafka import TopicPartition as KafkaPartition
from kafka.protocol.consumer import IsolationLevel

from daemon.core.records import InputRecord
from daemon.errors import BrokerUnavailable, Fenced, TickcastError
from daemon.transport.admin_line import AdminLine
from daemon.transport.changes import Changes, numbers
from daemon.transport.connection import Connection
from daemon.transport.kafka_bounds import ask_bounds
from daemon.transport.kafka_client import close_in_time
from daemon.transport.kafka_committed import ask_committed
from daemon.transport.kafka_source import HEARTBEAT_INTERVAL_MS, SESSION_TIMEOUT_MS
from daemon.transport.kafka_topic import METADATA_MAX_AGE_SECONDS, SHORT_SECONDS, TopicIdentity, find_topic_id
from daemon.transport.knock import reach
from daemon.transport.lane import Lane
from daemon.transport.librd_client import AWAY, ClientLog, Password, client_options, reason, translate
from daemon.transport.librd_records import READING, take
from daemon.transport.place import Place, orphans
from daemon.transport.port import Polled
from daemon.transport.remedies import missing

_log = logging.getLogger(__name__)

#: A poll looks up this often whether a rebalance has happened inside it, which librdkafka does not return for.
SLICE_SECONDS = 0.02
REQUEST_TIMEOUT_SECONDS = 10.0
#: The other partitions wait as long. An answer takes 1 ms, but after a failure the question connects anew: 20 ms on a
#: quiet machine.
COMMITTED_TIMEOUT_SECONDS = 0.5
CLOSE_TIMEOUT_SECONDS = 5.0
#: Longer than sessions last and joining takes, so that an outage is told from another process with our name.
AFTERMATH_SECONDS = 60.0

#: What passes by itself, unless the cluster says that the topic is gone: one that starts forgets topics for a moment.
FORGOTTEN = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID})
#: What passes by itself; who polls too seldom loses everything and is told so.
PASSING = AWAY | FORGOTTEN | {KafkaError._MAX_POLL_EXCEEDED}


class Membership:
    """What we commit under: our place in the group, in whatever generation it is.

    librdkafka joins anew on its own thread, so the generation moves between two polls, when another member comes or
    goes. What is ours does not: a partition only leaves us inside a poll. So as long as none has brought a change, the
    generation of now says as much as that of the poll, and it is the one that the cluster takes.
    """

    def __init__(self, source: LibrdSource) -> None:
        self._source = source
        self._round = source.round
        self._then = source.read_metadata()

    @property
    def holds(self) -> bool:
        """True while no poll has changed what is ours."""
        return self._round == self._source.round

    def metadata(self) -> bytes:
        """Return librdkafka's metadata: that of now, or of then, which the cluster refuses, where it does not hold."""
        return self._source.read_metadata() if self.holds else self._then


class LibrdSource:
    """A `Source` on a Kafka consumer group; its constructor waits up to `timeout_seconds` for a broker."""

    def __init__(
        self, connection: Connection, *, topic: str, group_id: str, instance_id: str, timeout_seconds: float = 60.0
    ) -> None:
        self._topic = topic
        self._group_id = group_id
        self._admin = AdminLine(connection)
        self._place = Place(connection, self._admin, group_id, instance_id)
        self._connection = connection
        self._client_log = ClientLog()
        self._changes = Changes()
        #: The partitions that are ours, and the next offsets of those that have been started.
        self._owned: set[int] = set()
        self._positions: dict[int, int] = {}
        self._joined = False
        #: Every member id that we have had: the cluster knows the last one for a while after we have lost it.
        self._member_ids: list[str] = []
        #: Until then an outage explains that our place was taken, on the monotonic clock.
        self._aftermath_until = 0.0
        #: Counts the changes of what is ours.
        self.round = 0
        #: Partitions that belonged to nobody when we last looked.
        self._orphaned: set[int] = set()
        self._options = {
            "client.id": f"tickcast-{instance_id}",
            "group.id": group_id,
            "group.instance.id": instance_id,
            "partition.assignment.strategy": "cooperative-sticky",
            "heartbeat.interval.ms": HEARTBEAT_INTERVAL_MS,
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "topic.metadata.refresh.interval.ms": int(METADATA_MAX_AGE_SECONDS * 1000),
            "topic.metadata.propagation.max.ms": int(METADATA_MAX_AGE_SECONDS * 1000),
            "debug": "metadata",  # see `ClientLog`
            "error_cb": self._on_error,
            **READING,
        }
        self._consumer: Consumer = reach(connection, timeout_seconds, lambda _: self._build())
        self._password = Password(connection, self._consumer)
        self._identity = TopicIdentity(topic, self._look_up_topic(), self._admin)
        self._subscribe()

    def poll(self, timeout_seconds: float, max_records: int) -> Polled:
        """Do as `Source.poll` says.

        Raises
        ------
        TopicError : the topic was deleted, or created anew, or does not hold a position any more
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            left = deadline - time.monotonic()
            records = self._take(min(max(left, 0.0), SLICE_SECONDS), max_records)
            if records or self._changes.pending or left <= 0:
                break
        if self._changes.pending:
            self._note_member_id()
        changed = self._changes.take()
        return Polled(records, changed.revoked, changed.lost, changed.assigned)

    @property
    def joined(self) -> bool:
        """True while we are a settled member of the group, with or without partitions."""
        return self._joined

    def assignment(self) -> tuple[int, ...]:
        """Return the partitions that are ours now, sorted."""
        return tuple(sorted(self._owned))

    def committed(self, partitions: Sequence[int]) -> dict[int, int | None]:
        """Do as `Source.committed` says; librdkafka's own question fails for all while a transaction holds one."""
        if not partitions:
            return {}
        try:
            return self._admin.ask(
                lambda admin: ask_committed(admin, self._group_id, self._topic, partitions),
                f"reading the committed offsets of {self._topic}",
                COMMITTED_TIMEOUT_SECONDS,
            )
        except BrokerUnavailable:
            return {}

    def bounds(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Do as `Source.bounds` says; the end is what a `read_committed` reader may see."""
        places = [KafkaPartition(self._topic, partition) for partition in partitions]
        found = self._admin.ask(
            lambda admin: ask_bounds(admin, places, IsolationLevel.READ_COMMITTED),
            f"reading the bounds of {self._topic}",
            REQUEST_TIMEOUT_SECONDS,
        )
        return {tp.partition: bounds for tp, bounds in found.items()}

    def start_at(self, partition: int, offset: int) -> None:
        """Hand an assigned partition to librdkafka, from this offset on."""
        if partition not in self._owned:
            raise ValueError(f"{self._topic}-{partition} is not ours")
        self.stop(partition)
        self._consumer.incremental_assign([TopicPartition(self._topic, partition, offset)])
        self._positions[partition] = offset

    def stop(self, partition: int) -> None:
        """Take an assigned partition from librdkafka until the next `start_at`; nothing of it is delivered any more."""
        self._drop([partition])

    def positions(self) -> dict[int, int]:
        """Do as `Source.positions` says; a marker at the end is stepped over when librdkafka tells of the end."""
        return {partition: self._positions[partition] for partition in sorted(self._positions)}

    def lags(self) -> dict[int, int]:
        """Do as `Source.lags` says.

        What the client knows is the high watermark, so an open transaction on the input counts as lag until it ends;
        a partition that has not been fetched yet counts as 0.
        """
        return {partition: max(0, self._end(partition) - at) for partition, at in self.positions().items()}

    def group_metadata(self) -> object:
        """Return the membership to commit under; read it right after the poll that brought the records."""
        return Membership(self)

    def read_metadata(self) -> bytes:
        """Return librdkafka's own metadata, as it is now."""
        return self._consumer.consumer_group_metadata()  # type: ignore[no-any-return]

    def topic_id(self) -> str:
        """Return the id that the cluster gave the input topic when it was created, as it was when we began."""
        return self._identity.topic_id

    def confirm(self) -> None:
        """Do as `Source.confirm` says.

        Who has just lost its place, or the cluster, hears of another process there when it joins anew.

        librdkafka has no call for another rebalance. Who leaves the group without the client's knowledge causes one
        with the client's next heartbeat, so that is what a member does for orphans that it sees twice: those of a topic
        that has just grown are given away meanwhile.
        """
        self._password.renew()
        group = self._place.ask(self._identity)
        if self._note_member_id() and not self._after_outage:
            self._place.require(group, self._member_ids)
        seen = orphans(group, self._topic, range(self._partition_count()))
        member_id = self._consumer.memberid()
        if seen & self._orphaned and member_id:
            _log.warning("the partitions %s belong to nobody, joining anew to have all shared out", sorted(seen))
            self._place.leave(member_id)
            seen = set()
        self._orphaned = seen

    def close(self, *, leave: bool) -> None:
        """Do as `Source.close` says."""
        lane = Lane("close-source")
        try:
            member_id = self._consumer.memberid()
            lane.call(self._consumer.close, CLOSE_TIMEOUT_SECONDS)
            if leave and member_id:
                lane.call(lambda: self._place.leave(member_id), CLOSE_TIMEOUT_SECONDS)
        except Exception as error:
            _log.warning("the consumer did not close cleanly: %s", error)
        finally:
            lane.close()
            self._admin.close()

    # --- records ------------------------------------------------------------------------------------------------------

    def _take(self, timeout_seconds: float, max_records: int) -> list[InputRecord]:
        """Take what has been fetched, and move the positions behind it."""
        try:
            records, next_offsets, errors = take(self._consumer, self._topic, timeout_seconds, max_records)
        except KafkaException as error:
            raise translate(error, f"reading {self._topic}") from error
        for each in errors:
            self._heed(each)
        self._check_topic(records)
        for partition, offset in next_offsets.items():
            if partition in self._positions:
                self._positions[partition] = offset
            else:  # it was revoked behind these records
                records = [record for record in records if record.partition != partition]
        return records

    def _heed(self, error: KafkaError) -> None:
        """Raise what librdkafka does not mend by itself: it would skip records rather than stop."""
        if error.code() in FORGOTTEN or error.code() == KafkaError._AUTO_OFFSET_RESET:
            with suppress(BrokerUnavailable):
                self._identity.ask(SHORT_SECONDS)
        if error.code() in PASSING:
            _log.debug("librdkafka goes on after %s", reason(error))
            return
        ours = translate(KafkaException(error), f"reading {self._topic}")
        if not (isinstance(ours, Fenced) and self._after_outage):
            raise ours
        self._begin_anew()

    # --- the client ---------------------------------------------------------------------------------------------------

    def _build(self) -> Consumer:
        return Consumer(client_options(self._connection) | self._options, logger=self._client_log)

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assigned, on_revoke=self._on_revoked, on_lost=self._on_lost
        )

    def _begin_anew(self) -> None:
        """Put another consumer in the place of one that has ended; all that was ours is lost."""
        _log.warning("our place in the group was taken while the cluster was away, joining anew")
        self._aftermath_until = 0.0
        ended, self._consumer = self._consumer, self._build()
        self._positions.clear()
        self._on_lost(self._consumer, [TopicPartition(self._topic, partition) for partition in self._owned])
        self._password = Password(self._connection, self._consumer)
        self._subscribe()
        close_in_time(ended.close, CLOSE_TIMEOUT_SECONDS, "consumer")

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._aftermath_until = time.monotonic() + AFTERMATH_SECONDS

    @property
    def _after_outage(self) -> bool:
        return time.monotonic() < self._aftermath_until

    # --- the group ----------------------------------------------------------------------------------------------------

    def _on_assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign([])  # nothing yet; without any call librdkafka would take them all itself
        self._joined = True
        self.round += 1
        self._owned.update(numbers(partitions))
        self._changes.note_assigned(partitions)

    def _on_revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            return  # one that has ended is being closed
        self._forget(partitions)
        self._changes.note_gone(partitions, "revoked")

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._joined = False
        self._forget(partitions)
        self._changes.note_gone(partitions, "lost")

    def _note_member_id(self) -> bool:
        """Note what the client is called in the group; return whether it has a name there now.

        Not from a callback: one inside `close` waited for ever, and held the interpreter's lock meanwhile (measured).
        """
        member_id = self._consumer.memberid()
        if member_id and member_id not in self._member_ids:
            self._member_ids.append(member_id)
        return bool(member_id)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        self.round += 1
        self._owned.difference_update(numbers(partitions))
        self._drop(numbers(partitions))

    def _drop(self, partitions: Sequence[int]) -> None:
        """Take from librdkafka what it has of these partitions."""
        started = [partition for partition in partitions if self._positions.pop(partition, None) is not None]
        self._consumer.incremental_unassign([TopicPartition(self._topic, partition) for partition in started])

    # --- the topic ----------------------------------------------------------------------------------------------------

    def _look_up_topic(self) -> str:
        found = self._admin.ask(
            lambda admin: find_topic_id(admin, self._topic),
            f"looking up the topic {self._topic}",
            REQUEST_TIMEOUT_SECONDS,
        )
        if found is None:
            self.close(leave=False)
            raise missing(self._topic)
        return found

    def _check_topic(self, records: list[InputRecord]) -> None:
        """Raise if the client fetches, or is about to, from another topic than the one that was there at start."""
        told = self._client_log.topic_ids.get(self._topic, ())
        for topic_id in told:
            self._identity.require(topic_id)
        if records and not told:
            raise TickcastError(
                "librdkafka does not tell what topic it reads; install a version that fits: confluent-kafka 2.16 to 2.x"
            )

    def _end(self, partition: int) -> int:
        """Return the high watermark as the client knows it; below 0 where it does not."""
        _, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return int(end)

    def _partition_count(self) -> int:
        try:
            found = self._consumer.list_topics(self._topic, timeout=REQUEST_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise translate(error, f"looking up the topic {self._topic}") from error
        return len(found.topics[self._topic].partitions)
