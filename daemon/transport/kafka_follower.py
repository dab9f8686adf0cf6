"""All partitions of some topics as any subscriber without a group sees them: `read_committed`, live.

It begins a little before the ends, so that there is something to see at once, and goes on where it stood after any
failure: nothing is left out, nothing comes twice. Where that place means nothing any more (a topic was created anew,
partitions were added, records fell to retention) it begins as it began, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.cluster import ClusterMetadata
from kafka.errors import LogTruncationError, OffsetOutOfRangeError

from daemon.core.records import Record
from daemon.errors import TopicError
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection
from daemon.transport.kafka_client import READING, close_in_time, connect, translate
from daemon.transport.kafka_topic import find_topic_id
from daemon.transport.offsets import When
from daemon.transport.port import Readable

#: Where no time is given, the last minute is shown; of a busy topic less, so that a page is not kept waiting for it:
#: these many records take a second or two to read.
LOOK_BACK_SECONDS = 60.0
LOOK_BACK_RECORDS_MAX = 20_000
#: Of a topic that has been quiet for longer, this many: the last prices are better than an empty page.
LOOK_BACK_RECORDS_MIN = 2_000
#: At most so many records in one answer; who draws them meanwhile answers nobody else.
POLL_RECORDS = 1_000
#: While the broker holds a fetch of quiet partitions, what came in on the others waits for it.
FETCH_MAX_WAIT_MS = 30
#: How often the client asks for metadata of itself: new partitions and new topics are noticed that late.
METADATA_MAX_AGE_MS = 5_000
#: Where nothing comes for so long, the cluster is asked whether it is there: kafka-python polls on in silence.
CHECK_SECONDS = 2.0
CLOSE_TIMEOUT_SECONDS = 1.0

#: Per topic: its id, and how many partitions it has.
Outline = Mapping[str, tuple[object, int]]


class Followed(NamedTuple):
    """What one poll brought."""

    #: By role; of each partition in offset order.
    records: Mapping[Readable, Sequence[Record]]
    #: True where nothing that came before counts any more: the first time, and when it had to begin again.
    anew: bool = False


class KafkaFollower:
    """Reads topics on and on, without a group; it connects with its first call.

    kafka-python may spin for ever in the poll after one that raised, so after any failure the consumer is thrown away.

    Parameters
    ----------
    topics : name by role
    since : where to begin; None for the last minute or so
    """

    def __init__(
        self,
        connection: Connection,
        topics: Mapping[Readable, str],
        *,
        since: When | None = None,
        timeout_seconds: float = 5.0,
    ) -> None:
        self._connection = connection
        self._roles = {name: role for role, name in topics.items()}
        self._since = since
        self._timeout_seconds = timeout_seconds
        self._admin = AdminLine(connection)
        self._consumer: KafkaConsumer | None = None
        #: When the cluster was last heard of, on the monotonic clock.
        self._heard = 0.0
        #: What the topics were when the positions were taken; empty before that.
        self._outline: Outline = {}
        #: Where each partition is read on.
        self._positions: dict[TopicPartition, int] = {}
        #: Whether they have been taken anew, and nobody has been told yet.
        self._is_anew = False

    def poll(self, timeout_seconds: float) -> Followed:
        """Wait at most so long for records.

        Raises
        ------
        TopicError : a topic is not there
        BrokerUnavailable, AccessDenied : the next call connects again
        """
        try:
            consumer = self._consumer or self._connect()
            if self._has_changed(consumer):
                self._begin(consumer)
            fetched = consumer.poll(timeout_ms=timeout_seconds * 1000, max_records=POLL_RECORDS)
            self._check(bool(fetched))
        except (OffsetOutOfRangeError, LogTruncationError):
            self._outline = {}  # our positions mean nothing any more
            self._discard()
            return Followed({})
        except Exception as error:
            self._discard()
            raise translate(error, f"reading {' and '.join(self._roles)}") from error
        anew, self._is_anew = self._is_anew, False
        found: dict[Readable, list[Record]] = {}
        for place in sorted(fetched):
            found.setdefault(self._roles[place.topic], []).extend(fetched[place])
            self._positions[place] = fetched[place][-1].offset + 1
        return Followed(found, anew)

    def close(self) -> None:
        """Let the connections go. Bounded in time, never raises."""
        self._discard()
        self._admin.close()

    def _connect(self) -> KafkaConsumer:
        self._consumer = connect(
            KafkaConsumer,
            self._connection,
            self._timeout_seconds,
            client_id="tickcast-follower",
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            **READING,
        )
        for topic in self._roles:
            if not self._consumer.partitions_for_topic(topic):
                raise TopicError(
                    f"there is no topic {topic}, or no right to read it; create it with `tickcast topics create`"
                )
        if not self._has_changed(self._consumer):
            _stand(self._consumer, self._positions)
        return self._consumer

    def _has_changed(self, consumer: KafkaConsumer) -> bool:
        """Whether the topics are others than those that the positions belong to.

        A cluster that starts forgets topics for a moment; then nothing is said.
        """
        outline = self._outline_of(consumer)
        return outline != self._outline and all(count for _, count in outline.values())

    def _outline_of(self, consumer: KafkaConsumer) -> Outline:
        cluster: ClusterMetadata = consumer._cluster
        return {
            topic: (cluster.topic_id(topic), len(cluster.partitions_for_topic(topic) or ())) for topic in self._roles
        }

    def _begin(self, consumer: KafkaConsumer) -> None:
        outline = self._outline_of(consumer)
        positions: dict[TopicPartition, int] = {}
        for topic, (_, count) in outline.items():
            positions |= self._starts(consumer, [TopicPartition(topic, partition) for partition in range(count)])
        _stand(consumer, positions)
        self._outline, self._positions, self._is_anew = outline, positions, True

    def _starts(self, consumer: KafkaConsumer, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return where to begin in the partitions of one topic."""
        ask_ms = self._timeout_seconds * 1000
        ends = consumer.end_offsets(places, timeout_ms=ask_ms)
        if self._since == "latest":
            return dict(ends)
        firsts = consumer.beginning_offsets(places, timeout_ms=ask_ms)
        if self._since == "earliest":
            return dict(firsts)
        since_ms = self._since if self._since is not None else int((time.time() - LOOK_BACK_SECONDS) * 1000)
        found = consumer.offsets_for_times(dict.fromkeys(places, since_ms), timeout_ms=ask_ms)
        starts = {place: found[place].offset if found.get(place) else ends[place] for place in places}
        if self._since is not None:
            return starts
        most, fewest = (count // len(places) + 1 for count in (LOOK_BACK_RECORDS_MAX, LOOK_BACK_RECORDS_MIN))
        return {
            place: max(firsts[place], min(max(starts[place], ends[place] - most), ends[place] - fewest))
            for place in places
        }

    def _check(self, is_heard: bool) -> None:
        now = time.monotonic()
        if not is_heard and now > self._heard + CHECK_SECONDS:
            topic = next(iter(self._roles))
            doing = f"looking for topic {topic}"
            self._admin.ask(lambda admin: find_topic_id(admin, topic), doing, self._timeout_seconds)
            is_heard = True
        if is_heard:
            self._heard = now

    def _discard(self) -> None:
        """Let go of the consumer without waiting for one that does not answer."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            close = partial(consumer.close, autocommit=False, timeout_ms=CLOSE_TIMEOUT_SECONDS * 1000)
            close_in_time(close, CLOSE_TIMEOUT_SECONDS, "follower")


def _stand(consumer: KafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
    consumer.assign(list(positions))
    for place, offset in positions.items():
        consumer.seek(place, offset)
