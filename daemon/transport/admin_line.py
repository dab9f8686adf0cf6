"""An admin client that is kept open for the few questions a running daemon asks the cluster.

Building one costs 20 ms and a question 1 to 4 ms, all of which the loop waits for; so the client is built with the
first question and kept. Every question is bounded in time, whatever the client does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from kafka.admin import KafkaAdminClient

from daemon.errors import BrokerUnavailable
from daemon.transport.connection import Connection
from daemon.transport.kafka_client import close_in_time, connect, translate
from daemon.transport.lane import Lane

_log = logging.getLogger(__name__)

CLOSE_TIMEOUT_SECONDS = 1.0

Answer = TypeVar("Answer")


class AdminLine:
    """Ask the cluster, one question at a time.

    After a question that failed the client is thrown away, and the next question builds a new one: kafka-python
    remembers coordinators for ever, and what hangs cannot be asked again.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._admin: KafkaAdminClient | None = None
        self._lane: Lane | None = None

    def ask(self, question: Callable[[KafkaAdminClient], Answer], doing: str, timeout_seconds: float) -> Answer:
        """Return the answer to `question`; connecting and answering may take `timeout_seconds` each.

        Parameters
        ----------
        question : gets the client; errors of ours that it raises come back as they are
        doing : what is asked, for the error

        Raises
        ------
        BrokerUnavailable, AccessDenied, TopicError
        """
        try:
            admin, lane = self._open(timeout_seconds)
            return lane.call(lambda: question(admin), timeout_seconds)
        except Exception as error:
            self.close()
            ours = translate(error, doing)
            if isinstance(error, BrokerUnavailable):
                ours = BrokerUnavailable(f"{doing}: {error}")
            raise ours from error

    def close(self) -> None:
        """Let the connection go; the next question opens another. Bounded in time, never raises."""
        admin, lane = self._admin, self._lane
        self._admin = self._lane = None
        if lane is not None:
            lane.close()
        if admin is not None:
            close_in_time(admin.close, CLOSE_TIMEOUT_SECONDS, "admin")

    def _open(self, timeout_seconds: float) -> tuple[KafkaAdminClient, Lane]:
        if self._admin is None or self._lane is None:
            self._admin = connect(
                KafkaAdminClient,
                self._connection,
                timeout_seconds,
                request_timeout_ms=int(timeout_seconds * 1000),
            )
            self._lane = Lane("admin")
        return self._admin, self._lane
