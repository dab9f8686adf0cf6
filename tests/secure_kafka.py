"""A real Apache Kafka behind locks: TLS, client certificates, every SASL mechanism, and rights that nobody has unasked.

It listens in the clear too: there the tests themselves are the super user, and make users, rights and topics.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from daemon.dev import broker as dev_broker
from daemon.dev.broker import Broker, free_port, start_broker
from daemon.dev.broker_properties import HOST

#: The broker's own count of refused logins and handshakes.
REFUSALS_LOGGED = "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.network.Selector=info"
REFUSAL = "Failed authentication with"
PLAIN_USER, PLAIN_PASSWORD = "peter", "plain-canary-4711"

#: A right: kind of resource, name, operation.
Right = tuple[ResourceType, str, ACLOperation]


@dataclass(frozen=True)
class Papers:
    """Certificates and keys, as PEM files: the broker's, a client's, and those of an authority nobody knows."""

    ca: Path
    certificate: Path
    key: Path
    locked_key: Path
    locked_key_password: str
    other_ca: Path
    other_certificate: Path
    other_key: Path


@dataclass(frozen=True)
class SecureKafka:
    """The broker, and where it listens."""

    broker: Broker
    papers: Papers
    #: Listener -> host:port. TLS asks no certificate of clients, MUTUAL does; STALE shows one that has expired; LOGIN
    #: is SASL_SSL, CLEAR is SASL_PLAINTEXT.
    listeners: Mapping[str, str]

    def add_user(self, name: str, password: str, rights: Sequence[Right] = ()) -> None:
        """Make a SCRAM user who may do this and no more."""
        with self.admin() as admin:
            salted = [
                UserScramCredentialUpsertion(name, mechanism, password)
                for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
            ]
            for one in salted:  # Kafka takes one change of a user at a time
                assert admin.alter_user_scram_credentials([one]) == {name: None}
        self.grant(name, rights)

    def grant(self, name: str, rights: Sequence[Right]) -> None:
        if rights:
            with self.admin() as admin:
                admin.create_acls([_rule(name, right) for right in rights])

    def revoke(self, name: str, right: Right) -> None:
        with self.admin() as admin:
            admin.delete_acls([_rule(name, right)])

    @contextmanager
    def admin(self) -> Iterator[KafkaAdminClient]:
        client = KafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        yield client
        client.close()

    def refusals(self) -> int:
        """Return how often the broker refused a login or a handshake so far."""
        return self.broker.log_file.read_text("utf-8", "replace").count(REFUSAL)


def _rule(name: str, right: Right) -> ACL:
    kind, resource, operation = right
    prefixed = ACLResourcePatternType.PREFIXED if resource.endswith("/") else ACLResourcePatternType.LITERAL
    return ACL(f"User:{name}", "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, resource, prefixed))


@contextmanager
def running_secure_kafka(directory: Path) -> Iterator[SecureKafka]:
    """Run the broker in a directory of its own, on free ports."""
    papers, keystore, stale = _papers(directory)
    names = ("PLAINTEXT", "CONTROLLER", "TLS", "STALE", "MUTUAL", "LOGIN", "CLEAR")
    ports: dict[str, int] = {}
    while len(set(ports.values())) < len(names):
        ports = {name: free_port() for name in names}
    listeners = {name: f"{HOST}:{port}" for name, port in ports.items()}
    tls = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(papers.ca),
    }
    properties = {
        "listeners": ",".join(f"{name}://{at}" for name, at in listeners.items()),
        "advertised.listeners": ",".join(f"{name}://{at}" for name, at in listeners.items() if name != "CONTROLLER"),
        "listener.security.protocol.map": (
            "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,STALE:SSL,MUTUAL:SSL,LOGIN:SASL_SSL,CLEAR:SASL_PLAINTEXT"
        ),
        "controller.quorum.voters": f"1@{listeners['CONTROLLER']}",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        **tls,
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.stale.ssl.keystore.location": str(stale),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
        **_logins("login"),
        **_logins("clear"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dev_broker, "JAVA_OPTIONS", (*dev_broker.JAVA_OPTIONS, REFUSALS_LOGGED))
        broker = start_broker(ports["PLAINTEXT"], directory / "kafka", properties=properties)
    with broker:
        yield SecureKafka(broker, papers, listeners)


def _logins(listener: str) -> dict[str, str]:
    """Return the broker's side of each mechanism; tokens are taken without a signature, as Kafka does for tests."""
    prefix = f"listener.name.{listener}"
    security = "org.apache.kafka.common.security"
    unsecured = f"{security}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
    return {
        f"{prefix}.plain.sasl.jaas.config": (
            f'{security}.plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}";'
        ),
        f"{prefix}.scram-sha-256.sasl.jaas.config": f"{security}.scram.ScramLoginModule required;",
        f"{prefix}.scram-sha-512.sasl.jaas.config": f"{security}.scram.ScramLoginModule required;",
        f"{prefix}.oauthbearer.sasl.jaas.config": f"{security}.oauthbearer.OAuthBearerLoginModule required;",
        f"{prefix}.oauthbearer.sasl.server.callback.handler.class": unsecured,
        # Otherwise a session outlives its token.
        f"{prefix}.connections.max.reauth.ms": "3600000",
    }


def unsigned_token(user: str, lifetime_seconds: float = 3600) -> str:
    """Return a JWT without a signature for a user."""
    now = time.time()
    parts: list[dict[str, Any]] = [{"alg": "none"}, {"sub": user, "iat": now, "exp": now + lifetime_seconds}]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, ""])


def secret_file(file: Path, text: str) -> Path:
    """Write a secret that only its owner can read."""
    file.touch(0o600)
    file.write_text(text)
    return file


def _papers(directory: Path) -> tuple[Papers, Path, Path]:
    """Make the certificates; return them and the broker's keystores, a good one and one that has expired."""
    ours, others = trustme.CA(), trustme.CA()
    for name, authority in (("ca.pem", ours), ("other-ca.pem", others)):
        authority.cert_pem.write_to_path(str(directory / name))
    server, old = ours.issue_cert(HOST), ours.issue_cert(HOST, not_after=datetime(2020, 1, 1, tzinfo=UTC))
    keystore, stale = (
        secret_file(directory / name, _pkcs8(leaf, NoEncryption()) + _chain(leaf))
        for name, leaf in (("broker.pem", server), ("stale.pem", old))
    )
    client, foreign = ours.issue_cert("client@tickcast.test"), others.issue_cert("client@tickcast.test")
    password = "key-canary-0815"
    papers = Papers(
        ca=directory / "ca.pem",
        certificate=secret_file(directory / "client.pem", _chain(client)),
        key=secret_file(directory / "client.key", _pkcs8(client, NoEncryption())),
        locked_key=secret_file(directory / "locked.key", _pkcs8(client, BestAvailableEncryption(password.encode()))),
        locked_key_password=password,
        other_ca=directory / "other-ca.pem",
        other_certificate=secret_file(directory / "foreign.pem", _chain(foreign)),
        other_key=secret_file(directory / "foreign.key", _pkcs8(foreign, NoEncryption())),
    )
    return papers, keystore, stale


def _chain(leaf: trustme.LeafCert) -> str:
    return b"".join(pem.bytes() for pem in leaf.cert_chain_pems).decode()


def _pkcs8(leaf: trustme.LeafCert, encryption: KeySerializationEncryption) -> str:
    """Return the key in the one form that Kafka reads."""
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption).decode()
