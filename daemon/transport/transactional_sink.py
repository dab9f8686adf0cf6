"""The output topics: one transaction per batch, and a new producer after any that failed; the same by either client.

Why a failed producer is never used again: what has become of its transaction is not known, and claiming the
transactional id anew settles it.

What a fence means. That the coordinator gave our transactional id a newer epoch: because our own transaction was older
than its timeout, or because another producer was opened with the id. The first is our own affair, and a rebuilt
producer goes on. The second happens only when one instance of one group runs twice (`transactional_id`), and then the
ids of group membership, which are the same too, decide: the process that joined the group last owns the name, and the
offsets of the other are refused from then on. So a fenced producer is `TransactionFailed`, a fenced member is `Fenced`:
the newer of two processes may lose a transaction to the older one but survives it, and the older one always ends. Were
a fenced producer a reason to exit, the two could end each other; by librdkafka, which joins again without being asked,
a process that wakes from a long sleep can still do that to the one in its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from kafka import KafkaAdminClient

from daemon.errors import AccessDenied, BrokerUnavailable, Fenced, TickcastError, TopicError, TransactionFailed
from daemon.transport.admin_line import AdminLine
from daemon.transport.connection import Connection, transactional_id
from daemon.transport.kafka_hanging import end_hanging, read_last
from daemon.transport.port import Outgoing, Role

#: How long a killed process can block `read_committed` readers and the next owner; Kafka Streams chose the same.
TRANSACTION_TIMEOUT_SECONDS = 10.0
#: Below it, so that a request whose answer was lost is sent again within the transaction.
REQUEST_TIMEOUT_SECONDS = 5.0
#: Of keys and values: a partition gets one batch per round trip, so batches must be large; below the brokers' default
#: of 1 MiB for a batch, compressed or not.
BATCH_BYTES = 256 * 1024
ABORT_TIMEOUT_SECONDS = 3.0
#: For the question where the partitions are.
METADATA_TIMEOUT_SECONDS = 3.0
CLOSE_TIMEOUT_SECONDS = 5.0
#: For each of two questions about transactions that hang; above the patience with leaders and coordinators in them.
ASK_TIMEOUT_SECONDS = 45.0

#: Failures that no new producer mends; everything else is `TransactionFailed`.
FINAL = (AccessDenied, Fenced, TopicError)

#: A connected producer, with what its client needs beside it.
Held = TypeVar("Held")
Answer = TypeVar("Answer")


class TransactionalSink(ABC, Generic[Held]):
    """A `Sink` on one transactional producer at a time; a client only says how it takes each step.

    Every step is bounded: a transaction has until its coordinator would abort it anyway. What then still hangs is
    abandoned with its producer, which the next `open` fences.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        topics: Mapping[Role, str],
        ticks_topic: str,
        group_id: str,
        instance_id: str,
        timeout_seconds: float = 60.0,
    ) -> None:
        self._connection = connection
        self._topics = dict(topics)
        self._ticks_topic = ticks_topic
        self._group_id = group_id
        self._instance_id = instance_id
        self._transactional_id = transactional_id(group_id, instance_id)
        self._admin = AdminLine(connection)
        self._timeout_seconds = timeout_seconds
        self._held: Held | None = None

    def open(self) -> None:
        """Claim our transactional id: fences and aborts what an earlier holder left open, ends what Kafka left open.

        Call it again after `TransactionFailed`, before reading committed offsets: only then is it settled whether a
        commit whose answer was lost has happened.

        Raises
        ------
        BrokerUnavailable, AccessDenied
        TopicError : an output topic does not exist
        """
        self.close()
        self._held = self._connect()
        try:
            last = self._ask(lambda admin: read_last(admin, self._transactional_id))
            self._claim()
            topics = self._topics.values()
            self._ask(lambda admin: end_hanging(admin, self._group_id, self._instance_id, topics, last))
            self._learn_partitions()
        except Exception as error:
            self.close()
            ours = self._explain(error, f"claiming the transactional id {self._transactional_id}")
            raise (ours if isinstance(ours, FINAL) else BrokerUnavailable(str(ours))) from error
        finally:
            self._admin.close()

    def commit(self, outgoing: Outgoing, offsets: Mapping[int, int], group_metadata: object) -> None:
        """Do as `Sink.commit` says; the records carry the time of publishing.

        Raises
        ------
        TransactionFailed : nothing of it is visible, unless the answer to the commit itself was lost: after the next
            `open` the committed offsets tell
        Fenced : another process has taken over our place in the group
        AccessDenied : a right is missing
        TopicError : a topic refuses a record for good, e.g. for its size
        """
        assert offsets, "a transaction without offsets is not fenced"
        if self._held is None:
            self.open()
        try:
            self._transact(outgoing, offsets, group_metadata)
        except Exception as error:
            ours = self._explain(error, "writing a transaction")
            self._give_up()
            raise (ours if isinstance(ours, FINAL) else TransactionFailed(str(ours))) from error
        except BaseException:  # a signal's exception: nothing may be left open, nothing to explain
            self._give_up()
            raise

    @abstractmethod
    def close(self) -> None:
        """Let go of the producer, without writing what it still holds. Bounded in time, never raises."""

    @abstractmethod
    def _connect(self) -> Held:
        """Return a new producer."""

    @abstractmethod
    def _claim(self) -> None:
        """Fence whoever held the transactional id before."""

    @abstractmethod
    def _learn_partitions(self) -> None:
        """Look where the partitions of the output topics are; raise `TopicError` where one does not exist."""

    @abstractmethod
    def _transact(self, outgoing: Outgoing, offsets: Mapping[int, int], group_metadata: object) -> None:
        """Write one transaction."""

    @abstractmethod
    def _abort(self) -> None:
        """Abort what is open, if the client can still do so. Never raises."""

    @abstractmethod
    def _explain(self, error: Exception, doing: str) -> TickcastError:
        """Return our error for one of the client's."""

    @property
    def _producing(self) -> Held:
        assert self._held is not None, "the sink is not open"
        return self._held

    def _give_up(self) -> None:
        """Abort at once: a process that ends now would else block readers until the timeout."""
        self._abort()
        self.close()

    def _ask(self, question: Callable[[KafkaAdminClient], Answer]) -> Answer:
        return self._admin.ask(question, "looking for transactions that Kafka left open", ASK_TIMEOUT_SECONDS)
