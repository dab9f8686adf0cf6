"""What every librdkafka client of ours is built from, and our errors for theirs.

librdkafka carries the hot path alone: ticks in, outcomes out, snapshots back. All questions to the cluster, which are
rare, go through kafka-python with either client (`AdminLine`), and so does the knock at the door: one way to ask, one
set of answers to understand.

What librdkafka logs repeats failures that we answer for with lines of our own, as with kafka-python; it is logged as
`librdkafka`, which `configure_logs` keeps quiet.
"""

from __future__ import annotations

import base64
import logging
import re
import ssl
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from daemon.errors import AccessDenied, BrokerUnavailable, Fenced, TickcastError, TopicError
from daemon.transport.connection import RECONNECT_BACKOFF_MAX_MS, Connection
from daemon.transport.remedies import remedied

_log = logging.getLogger("librdkafka")

#: Our names for what is the same in both clients, in librdkafka's words.
NAMES = {
    "security_protocol": "security.protocol",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "sasl_mechanism": "sasl.mechanism",
    "sasl_plain_username": "sasl.username",
}
#: librdkafka keeps a token and logs in with it again when a session ends, so it is told that none lives long: it asks
#: when 80 % of this has passed, and the provider has one in hand.
TOKEN_SECONDS = 5.0
#: How often a password is opened again; librdkafka itself keeps the one that it was given.
PASSWORD_SECONDS = 10.0

#: All that a consumer says once it has ended for that reason.
FENCED = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
REFUSALS = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
})  # fmt: skip
#: What only somebody who changes a topic can put right.
TOPIC_FAULTS = frozenset({
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._AUTO_OFFSET_RESET,
    KafkaError._LOG_TRUNCATION,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
})  # fmt: skip
#: The world is away: somebody tries again.
AWAY = frozenset({
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REQUEST_TIMED_OUT,
})  # fmt: skip


class ClientLog:
    """Where one client logs to; as librdkafka's `logger` it is called from inside the client's own calls.

    Notes
    -----
    librdkafka 2.16 fetches by the id of a topic, but goes on with the next id of the same name where it left off in the
    topic before: a topic created anew would be taken for the old one. It has no call that tells the id, only a line of
    its log (`debug = metadata`), which stands in the client's queue before any record that was fetched under the id.
    """

    TOLD = re.compile(r"Topic (\S+) changed id from \S+ to (\S+)$")

    def __init__(self) -> None:
        #: Every id that each topic has had, in the order of time.
        self.topic_ids: dict[str, list[str]] = {}

    def log(self, level: int, form: str, facility: str, *texts: str) -> None:
        """Take one line; the signature is that of `logging.Logger.log` as librdkafka calls it."""
        if facility == "METADATA" and (told := self.TOLD.search(texts[-1])):
            topic, coded = told.groups()
            self.topic_ids.setdefault(topic, []).append(str(uuid.UUID(bytes=base64.b64decode(coded + "=="))))
        _log.log(level, form, facility, *texts)


class Password:
    """Gives a client the password as it is now: it may change in its file while the client lives."""

    def __init__(self, connection: Connection, client: Consumer | Producer) -> None:
        self._open: Callable[[], str] | None = connection.security.get("sasl_plain_password")
        self._user: str | None = connection.security.get("sasl_plain_username")
        self._client = client
        self._due = time.monotonic() + PASSWORD_SECONDS

    def renew(self) -> None:
        """Open it again where it is time; the next login uses it."""
        if self._open is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + PASSWORD_SECONDS
        try:
            self._client.set_sasl_credentials(self._user, self._open())
        except TickcastError as error:
            _log.warning("the password was not renewed: %s", error)


def client_options(connection: Connection) -> dict[str, Any]:
    """Return what every librdkafka client is configured with; secrets are opened here, so log none of it."""
    given = connection.security
    options = {
        "bootstrap.servers": ",".join(connection.servers),
        "reconnect.backoff.max.ms": RECONNECT_BACKOFF_MAX_MS,
        # Its default, rebootstrap, knows no pause: while no broker answers it tries thousands of times a second.
        "metadata.recovery.strategy": "none",
        **{ours: given[name] for name, ours in NAMES.items() if name in given},
    }
    if "sasl_plain_password" in given:
        options["sasl.password"] = given["sasl_plain_password"]()
    if "ssl_keyfile" in given and (password := _key_password(given)):
        options["ssl.key.password"] = password
    if "sasl_oauth_token_provider" in given:
        provider = given["sasl_oauth_token_provider"]
        options["oauth_cb"] = lambda _: (provider.token(), time.time() + TOKEN_SECONDS, "", provider.extensions())
    return options


def translate(error: BaseException, doing: str) -> TickcastError:
    """Return our error for one of librdkafka's, to be raised from it.

    Parameters
    ----------
    error : what a client raised; one of ours comes back as it is
    doing : what was being done, e.g. "reading ticks"
    """
    if isinstance(error, TickcastError):
        return error
    if not isinstance(error, KafkaException):
        return TickcastError(f"{doing}: {type(error).__name__}: {error}")
    found: KafkaError = error.args[0]
    code, what = found.code(), f"{doing}: {reason(found)}"
    if code == KafkaError.FENCED_INSTANCE_ID or (code == KafkaError._FATAL and FENCED in what):
        return remedied(Fenced, what)
    if code in REFUSALS:
        return remedied(AccessDenied, what)
    if code in TOPIC_FAULTS:
        return remedied(TopicError, what)
    if code in AWAY or found.retriable():
        return remedied(BrokerUnavailable, what)
    return TickcastError(what)


def reason(error: KafkaError) -> str:
    """Say in one line what an error says, with its name."""
    return f"{error.name()}: {' '.join(error.str().split())}"


def _key_password(given: Mapping[str, Any]) -> str | None:
    """Return what opens our key, where it is locked; librdkafka takes no function that it asks for it."""
    asked: list[str] = []

    def give() -> str:
        asked.append(given["ssl_password"]())
        return asked[0]

    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(given["ssl_certfile"], given["ssl_keyfile"], give)
    return asked[0] if asked else None
