"""The admin client, with our errors, and with patience for coordinators that a new cluster is still making."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from kafka.admin import KafkaAdminClient
from kafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    KafkaError,
    NotCoordinatorError,
)

from daemon.transport.connection import Connection
from daemon.transport.kafka_client import connect, translate

#: A person waits in front of a command: long enough for a broker that is just starting.
WAIT_SECONDS = 15.0
#: The first group or transaction of a new cluster makes it create its own topics; 1-2 s were seen.
COORDINATOR_SECONDS = 30.0
COORDINATOR_AWAY = (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorError)

Answer = TypeVar("Answer")


@contextmanager
def admin_client(connection: Connection, wait_seconds: float = WAIT_SECONDS) -> Iterator[KafkaAdminClient]:
    """Open an admin client, and turn what it raises into our errors.

    Raises
    ------
    BrokerUnavailable, AccessDenied, TopicError
    """
    admin = connect(KafkaAdminClient, connection, wait_seconds)
    try:
        yield admin
    except KafkaError as error:
        raise translate(error, f"asking {connection.bootstrap_servers}") from error
    finally:
        admin.close()


def coordinated(ask: Callable[[], Answer]) -> Answer:
    """Ask a group's or transaction's coordinator, waiting for one that is just being made."""
    return patiently(ask, COORDINATOR_AWAY, COORDINATOR_SECONDS)


def patiently(ask: Callable[[], Answer], away: tuple[type[KafkaError], ...], seconds: float) -> Answer:
    """Ask, and for so long ask again while the answer is one of these errors."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except away:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def describe_group(admin: KafkaAdminClient, group_id: str) -> dict[str, Any]:
    """Return kafka-python's description of a group; one that never was has the state Dead."""

    def ask() -> dict[str, Any]:
        group: dict[str, Any] = admin.describe_groups([group_id])[group_id]
        error = group["error"] or ""  # the client hands errors out as text, and the group without a state
        if GroupAuthorizationFailedError.__name__ in error:
            raise GroupAuthorizationFailedError(error)
        if not group["group_state"]:
            raise NotCoordinatorError(error)
        return group

    return coordinated(ask)
