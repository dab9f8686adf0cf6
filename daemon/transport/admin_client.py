"""The admin client, with our errors, and with patience for coordinators that a new cluster is still making."""

from __future__ import annotations

import socket
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

from daemon.errors import AccessDenied, BrokerUnavailable
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
    try:
        admin = connect(KafkaAdminClient, connection, wait_seconds)
    except BrokerUnavailable as error:
        if connection.security.get("sasl_mechanism") and _accepts_connections(connection):
            raise AccessDenied(
                f"{connection.bootstrap_servers} accepts connections, but no login within {wait_seconds:g} s; "
                "check [kafka.security] protocol, mechanism, username and password"
            ) from error
        raise
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


def _accepts_connections(connection: Connection) -> bool:
    """Whether any of the brokers is there at all.

    kafka-python 3.0.12 drops what arrives together with the end of a connection, and a broker that refuses a login says
    so and hangs up: on a busy machine the refusal was lost every time for 60 s and looked like an absent broker.
    """
    for server in connection.bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        except (OSError, ValueError):
            continue
        return True
    return False
