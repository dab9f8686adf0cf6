"""Build kafka-python clients with patience, and say in our own errors what went wrong with them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kafka import KafkaProducer, errors
from kafka.net.compat import KafkaNetClient

from daemon.errors import AccessDenied, BrokerUnavailable, Fenced, TickcastError, TopicError
from daemon.transport.connection import Connection
from daemon.transport.knock import reach
from daemon.transport.remedies import remedied

_log = logging.getLogger(__name__)

#: The least time between two questions of one client for metadata, its first included. kafka-python takes no option for
#: it, and its 100 ms were half of a restart: consumer 0.1 s, producer 0.3 s.
METADATA_BACKOFF_MS = 10

#: How every consumer of ours reads: what is committed, from positions that are set here, with offsets that only
#: transactions commit. Their defaults are wrong for us, each of them.
READING: Mapping[str, Any] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_committed",
    "metrics_enabled": False,
}
#: A request on its way may hold a producer's thread up for its whole timeout.
LET_GO_SECONDS = 15.0

Client = TypeVar("Client")

REFUSALS = (
    errors.AuthorizationError,
    errors.SaslAuthenticationFailedError,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
#: What only somebody who changes a topic can put right; trying again would only fail again.
TOPIC_FAULTS = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.OffsetOutOfRangeError,
    errors.LogTruncationError,
    errors.InvalidTopicError,
)


def connect(client: Callable[..., Client], connection: Connection, timeout_seconds: float, **options: Any) -> Client:
    """Build a kafka-python client, trying again for `timeout_seconds` while no broker answers.

    Notes
    -----
    The constructors reach for a broker themselves and hide whatever goes wrong there behind the same timeout, so a
    client is built only once a broker has let us in, see `reach`. Its network is handed in from here: after a failure
    it is closed, since a consumer that could not be built leaves its thread behind.

    Raises
    ------
    BrokerUnavailable : no broker answered
    AccessDenied : a broker refused our login or certificate, or is not to be trusted
    SettingsError : a file with a secret cannot be read any more
    """
    networks: list[KafkaNetClient] = []

    def build_network(**config: Any) -> KafkaNetClient:
        network = KafkaNetClient(**config)
        network.cluster.config["retry_backoff_ms"] = METADATA_BACKOFF_MS
        networks.append(network)
        return network

    def build(attempt_seconds: float) -> Client | None:
        try:
            return client(
                **connection.client_options(),
                bootstrap_timeout_ms=attempt_seconds * 1000,
                kafka_client=build_network,
                **options,
            )
        except errors.KafkaTimeoutError as error:
            network = networks.pop()
            refusal = _refusal(network)
            network.close()
            if refusal is not None:
                raise AccessDenied(
                    f"{connection.bootstrap_servers} refuses our login ({reason(refusal)}); check [kafka.security]"
                ) from error
            return None

    return reach(connection, timeout_seconds, build)


def let_go(producer: KafkaProducer, wait_seconds: float) -> None:
    """Close a producer without writing what it still holds; wait only so long. Never raises.

    Its own `close` goes on trying to deliver, and a producer that has been given up must not do that: it once added
    partitions to a new transaction, seconds after it had failed, when the broker came back.
    """

    def close() -> None:
        producer._sender.force_close()
        producer.close(timeout=LET_GO_SECONDS)

    close_in_time(close, wait_seconds, "producer")


def close_in_time(close: Callable[[], object], wait_seconds: float, what: str) -> None:
    """Close a client on a thread of its own, and wait only so long: without a broker it may hang. Never raises."""

    def quietly() -> None:
        try:
            close()
        except Exception as error:
            _log.debug("a %s did not close cleanly: %s", what, reason(error))

    closing = threading.Thread(target=quietly, name=f"tickcast-close-{what}", daemon=True)
    closing.start()
    closing.join(wait_seconds)


def translate(error: Exception, doing: str) -> TickcastError:
    """Return our error for one of kafka-python's, to be raised from it.

    Parameters
    ----------
    error : what a client raised; one of ours comes back as it is
    doing : what was being done, e.g. "reading ticks"
    """
    if isinstance(error, TickcastError):
        return error
    what = f"{doing}: {reason(error)}"
    if isinstance(error, errors.FencedInstanceIdError):
        return remedied(Fenced, what)
    if isinstance(error, REFUSALS):
        return remedied(AccessDenied, what)
    if isinstance(error, TOPIC_FAULTS):
        return remedied(TopicError, what)
    if isinstance(error, errors.RetriableError):
        return remedied(BrokerUnavailable, what)
    return TickcastError(what)


def reason(error: BaseException) -> str:
    """Say in one line what an error says, with its name: kafka-python's texts are often empty."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    return text if text.startswith(name) else f"{name}: {text}" if text else name


def _refusal(network: KafkaNetClient) -> Exception | None:
    """Return why a broker refused our login, if one did."""
    failures = (network._manager.auth_failure(node.node_id) for node in network.cluster.bootstrap_brokers())
    return next((failure for failure in failures if failure is not None), None)
