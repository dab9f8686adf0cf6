"""Knock at the brokers' door before clients are built, and say in one line why it stays shut.

kafka-python retries whatever goes wrong at the door and ends with "unable to bootstrap": an unknown authority, a wrong
protocol and an absent broker look the same. A refused login it tells, unless the refusal arrives together with the end
of the connection: then it is dropped, and on a busy machine it was lost every time for 60 s (3.0.12). And by then it
has tried some ten times in 5 s, which locks an account. One knock is one attempt, and its answer is the broker's own;
it takes 1 ms in the clear, and a TLS handshake and a login where there are locks.

Who refuses us, or cannot be trusted, is `AccessDenied`: trying again changes nothing. Who does not answer may come yet.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

from kafka.cluster import collect_hosts
from kafka.errors import KafkaError, for_code
from kafka.net.sasl import get_sasl_mechanism
from kafka.net.transport import KafkaSSLTransport
from kafka.protocol.parser import KafkaProtocol
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslHandshakeRequest

from daemon.errors import AccessDenied, BrokerUnavailable
from daemon.transport.connection import Connection
from daemon.transport.login import register_mechanisms

register_mechanisms()
_log = logging.getLogger(__name__)

Client = TypeVar("Client")

#: One attempt to reach a broker; short, so that a wrong password is reported in seconds and not after the whole wait.
ATTEMPT_SECONDS = 5.0
#: Between knocks while nobody answers: what is refused at once costs 1 ms, and a restart is soon noticed.
KNOCK_PAUSE_SECONDS = 0.25
#: All brokers are tried so quickly first: one that is gone and stands in front must not cost each client its patience.
QUICK_SECONDS = 1.0
#: A handshake or the answer to a login; other bytes than Kafka's look like a longer one.
ANSWER_BYTES_MAX = 64 * 1024
#: Kafka's codes for "not this mechanism" and "no login here".
OTHER_MECHANISM, NO_LOGIN_HERE = 33, 34
#: Where what opens the door is set.
KEYS = "[kafka.security]"
#: X.509 verification results of OpenSSL: the certificate is made out to another name or address.
OTHER_NAME = (62, 64)
#: It is not valid yet, or no longer.
OTHER_TIME = (9, 10)
#: Of a broker's own words.
SAID_CHARACTERS = 200


def reach(connection: Connection, timeout_seconds: float, build: Callable[[float], Client | None]) -> Client:
    """Build a client once a broker lets us in, trying again for `timeout_seconds` while none answers.

    Parameters
    ----------
    build : gets the seconds that one attempt may take; returns None where the broker has gone again

    Raises
    ------
    BrokerUnavailable : no broker answered
    AccessDenied, SettingsError : see `knock`, and what `build` raises
    """
    deadline = time.monotonic() + timeout_seconds
    say_at = time.monotonic() + ATTEMPT_SECONDS

    def attempt_seconds() -> float:
        return max(0.1, min(ATTEMPT_SECONDS, deadline - time.monotonic()))

    while True:
        away = BrokerUnavailable(
            f"no Kafka broker answered at {connection.bootstrap_servers} within {timeout_seconds:g} s; "
            "is it running, and is [kafka] bootstrap_servers right?"
        )
        try:
            if knock(connection, attempt_seconds()) and (client := build(attempt_seconds())) is not None:
                return client
        except BrokerUnavailable as error:  # what gives tokens is away, and waited for as a broker is
            away = error
        now = time.monotonic()
        if now >= deadline:
            raise away
        if now >= say_at:
            _log.warning("no Kafka broker answers at %s yet, trying again", connection.bootstrap_servers)
            say_at = now + ATTEMPT_SECONDS
        time.sleep(min(KNOCK_PAUSE_SECONDS, deadline - now))


def knock(connection: Connection, timeout_seconds: float) -> bool:
    """Try each of the brokers until one lets us in.

    Returns
    -------
    answered : False where none of them answers; those that say nothing take `timeout_seconds` each

    Raises
    ------
    AccessDenied : none lets us in, and one says why; or we cannot trust it
    SettingsError, BrokerUnavailable : there is no password or token to log in with
    """
    provider = connection.security.get("sasl_oauth_token_provider")
    if provider is not None:
        provider.prepare()
    refusal: AccessDenied | None = None
    left = [(host, port) for host, port, _ in collect_hosts(connection.servers, randomize=False)]
    for patience in (min(QUICK_SECONDS, timeout_seconds), timeout_seconds):
        silent = []
        for host, port in left:
            try:
                _Door(connection, host, port, patience).enter()
                return True
            except AccessDenied as error:
                refusal = refusal or error
            except (OSError, KafkaError):  # not there, gone, or too slow
                silent.append((host, port))
        left = silent
    if refusal is not None:
        raise refusal
    return False


class _Door:
    """One broker's listener."""

    def __init__(self, connection: Connection, host: str, port: int, timeout_seconds: float) -> None:
        self._host, self._port = host, port
        self._timeout_seconds = timeout_seconds
        self._options = connection.security
        self._tls = connection.protocol.endswith("SSL")
        self._mechanism: str | None = self._options.get("sasl_mechanism")

    def enter(self) -> None:
        """Connect, and log in where we are to; returns when the broker lets us in."""
        with self._connect() as raw:
            try:
                with self._encrypted(raw) if self._tls else raw as line:
                    self._talk(line)
            except ssl.SSLError as error:
                raise self._explained(error) from error
            except TimeoutError:
                raise
            except (OSError, KafkaError) as error:  # hung up on, or answered in another language
                self._look_for_other_protocol()
                if self._mechanism is None and isinstance(error, ConnectionError):
                    return  # what is no Apache Kafka may not know the question
                raise

    def _connect(self) -> socket.socket:
        return socket.create_connection((self._host, self._port), self._timeout_seconds)

    def _encrypted(self, raw: socket.socket) -> ssl.SSLSocket:
        # The very context that the clients build.
        context: ssl.SSLContext = KafkaSSLTransport._build_ssl_context(
            KafkaSSLTransport.DEFAULT_CONFIG | {k: v for k, v in self._options.items() if k.startswith("ssl_")}
        )
        return context.wrap_socket(raw, server_hostname=self._host.rstrip("."))

    def _talk(self, line: socket.socket) -> None:
        """Ask for our mechanism; who wants no login asks for any, to see whether the broker wants one."""
        wire = _wire()
        answer = _ask(line, wire, SaslHandshakeRequest(mechanism=self._mechanism or "PLAIN", version=1))
        offered = ", ".join(sorted(answer.mechanisms))
        if self._mechanism is None:
            if answer.error_code in (0, OTHER_MECHANISM):
                protocol = _protocol(sasl=True, tls=self._tls)
                raise self._refused(f"wants a login ({offered})", f"set {KEYS} protocol = {protocol} and mechanism")
        elif answer.error_code == NO_LOGIN_HERE:
            raise self._refused("wants no login", f"set {KEYS} protocol = {_protocol(sasl=False, tls=self._tls)}")
        elif answer.error_code == OTHER_MECHANISM:
            raise self._refused(f"takes no {self._mechanism} logins", f"set {KEYS} mechanism to one of {offered}")
        else:
            self._log_in(line, wire, self._mechanism)

    def _log_in(self, line: socket.socket, wire: KafkaProtocol, name: str) -> None:
        options = {key: value for key, value in self._options.items() if key.startswith("sasl_")}
        mechanism = get_sasl_mechanism(name)(host=self._host, **options)
        remedy = f"check {KEYS} " + ("token_file or token_url" if name == "OAUTHBEARER" else "username and password")
        while not mechanism.is_done():
            answer = _ask(line, wire, SaslAuthenticateRequest(auth_bytes=mechanism.auth_bytes(), version=1))
            if answer.error_code:
                said = answer.error_message or for_code(answer.error_code).__name__
                raise self._refused(f"refuses our login ({said[:SAID_CHARACTERS]})", remedy)
            try:
                mechanism.receive(answer.auth_bytes)
            except ValueError as error:  # SCRAM: the broker could not prove that it knows our password
                raise self._refused(f"does not complete our login ({error})", remedy) from error

    def _explained(self, error: ssl.SSLError) -> Exception:
        """Return our error for a TLS handshake that failed, or the error itself where it may just be bad luck."""
        alert = error.reason or ""
        if isinstance(error, ssl.SSLCertVerificationError):
            remedy = f"set {KEYS} ca_file to the authority that signed it"
            if error.verify_code in OTHER_NAME:
                remedy = "name the broker in [kafka] bootstrap_servers as its certificate does"
            elif error.verify_code in OTHER_TIME:
                remedy = "have it renewed, or set the clock of this machine"
            return self._refused(f"has a certificate that we cannot trust ({error.verify_message})", remedy)
        if "ALERT" in alert and "ssl_certfile" in self._options:
            return self._refused(f"refuses our certificate ({alert})", f"check {KEYS} certificate_file")
        if "ALERT" in alert:
            remedy = f"set {KEYS} certificate_file and key_file"
            return self._refused(f"wants a certificate of ours ({alert})", remedy)
        try:
            self._look_for_other_protocol()
        except AccessDenied as refusal:
            return refusal
        return error

    def _look_for_other_protocol(self) -> None:
        """Try the door the other way, in the clear or encrypted, and say so where it opens."""
        try:
            with self._connect() as line:
                if self._tls:
                    _ask(line, _wire(), SaslHandshakeRequest(mechanism="PLAIN", version=1))
                else:
                    _blindfold().wrap_socket(line, server_hostname=self._host).close()
        except (OSError, KafkaError):
            return
        protocol = _protocol(sasl=self._mechanism is not None, tls=not self._tls)
        raise self._refused("speaks no TLS" if self._tls else "speaks TLS", f"set {KEYS} protocol = {protocol}")

    def _refused(self, what: str, remedy: str) -> AccessDenied:
        return AccessDenied(f"{self._host}:{self._port} {what}; {remedy}")


def _protocol(*, sasl: bool, tls: bool) -> str:
    return f'"{"SASL_" if sasl else ""}{"SSL" if tls else "PLAINTEXT"}"'


def _wire() -> KafkaProtocol:
    return KafkaProtocol(client_id="tickcast-knock", receive_message_max_bytes=ANSWER_BYTES_MAX)


def _ask(line: socket.socket, wire: KafkaProtocol, request: Any) -> Any:
    """Send a request and wait for its answer."""
    wire.send_request(request)
    line.sendall(wire.send_bytes())
    while data := line.recv(4096):
        for _, answer in wire.receive_bytes(data):
            return answer
    raise ConnectionError("hung up")


def _blindfold() -> ssl.SSLContext:
    """Return a context that trusts anybody: only to see whether TLS is spoken, nothing is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
