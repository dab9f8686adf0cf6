"""Where the cluster is and how to log in: what every Kafka client of ours is built from."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from daemon.config import KafkaSettings, SecuritySettings
from daemon.errors import SettingsError
from daemon.transport.oauth import token_provider
from daemon.transport.secret_files import Secret, named, secret_of, warn_where_others_read

_log = logging.getLogger(__name__)

#: kafka-python backs off to 30 s between knocks by itself; a broker that comes back should be found sooner.
RECONNECT_BACKOFF_MAX_MS = 1000

#: What only its owner should read.
SECRET_FILES = ("key_file", "key_password_file", "password_file", "token_file", "client_secret_file")


@dataclass(frozen=True, slots=True)
class Connection:
    """The cluster to speak to."""

    #: `host:port`, comma-separated.
    bootstrap_servers: str
    #: kafka-python's own security options; kept out of `repr`. Secrets in it are functions that open them.
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_settings(cls, settings: KafkaSettings) -> Connection:
        """Take the address and the security options from the settings.

        Raises
        ------
        SettingsError : a file that they name cannot be used; says which key, which file and why
        """
        _check_files(settings.security)
        _warn_where_readable(settings.security)
        return cls(settings.bootstrap_servers, security_options(settings.security))

    @property
    def servers(self) -> list[str]:
        """The brokers to ask first, `host:port` each."""
        return [server.strip() for server in self.bootstrap_servers.split(",")]

    @property
    def protocol(self) -> str:
        """The security protocol, as Kafka names it."""
        return str(self.security.get("security_protocol", "PLAINTEXT"))

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments that every kafka-python client takes."""
        return {
            "bootstrap_servers": self.servers,
            "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
            **self.security,
        }


def security_options(security: SecuritySettings) -> dict[str, Any]:
    """Translate our settings into kafka-python's names, leaving out what is not set.

    Certificates and keys go as paths: kafka-python opens them for each new connection, so renewed ones count without
    a restart. A password goes as a function, see `daemon.transport.login`.
    """
    options = {
        "security_protocol": security.protocol,
        "ssl_cafile": security.ca_file and str(security.ca_file),
        "ssl_certfile": security.certificate_file and str(security.certificate_file),
        "ssl_keyfile": security.key_file and str(security.key_file),
        "ssl_password": security.key_file and _key_password(security, security.key_file),
        "sasl_mechanism": security.mechanism,
        "sasl_plain_username": security.username,
        "sasl_plain_password": secret_of(security, "password"),
        "sasl_oauth_token_provider": token_provider(security) if security.mechanism == "OAUTHBEARER" else None,
    }
    return {name: value for name, value in options.items() if value is not None}


def transactional_id(group_id: str, instance_id: str) -> str:
    """Return the stable id under which an instance writes.

    The slash cannot stand in either name, so no two instances of any two groups share an id: sharing one would make
    them fence each other for ever. One instance of one group, started twice, is told apart by its static membership.
    """
    return f"{group_id}/{instance_id}"


def _key_password(security: SecuritySettings, file: Path) -> Secret:
    """Return what opens the key; OpenSSL would ask at the terminal for a password that it is not given."""
    return secret_of(security, "key_password") or partial(_no_key_password, file)


def _no_key_password(file: Path) -> str:
    raise SettingsError(f"{named('key_file', file)} is encrypted; set kafka.security.key_password_file")


def _check_files(security: SecuritySettings) -> None:
    """Open every file once, so that a wrong one is named here and not as a broker that nobody reaches."""
    for key in ("ca_file", "certificate_file", *SECRET_FILES):
        file: Path | None = getattr(security, key)
        if file is None:
            continue
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            raise SettingsError(f"{named(key, file)}: {error.strerror}; make it readable for this user") from error
    for key in ("password", "key_password", "client_secret"):
        if (secret := secret_of(security, key)) is not None:
            secret()
    _check_tls(security)


def _warn_where_readable(security: SecuritySettings) -> None:
    """Warn of secrets that others can read: in their files, or on the network."""
    for key in SECRET_FILES:
        if (file := getattr(security, key)) is not None:
            warn_where_others_read(file, key)
    if security.protocol == "SASL_PLAINTEXT" and security.mechanism in ("PLAIN", "OAUTHBEARER"):
        _log.warning("%s under SASL_PLAINTEXT sends its secret in the clear; SASL_SSL does not", security.mechanism)


def _check_tls(security: SecuritySettings) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if security.ca_file is not None:
        try:
            context.load_verify_locations(security.ca_file)
        except ssl.SSLError as error:
            raise SettingsError(f"{named('ca_file', security.ca_file)} holds no PEM certificates") from error
    if security.certificate_file is None or security.key_file is None:
        return
    try:
        context.load_cert_chain(
            security.certificate_file, security.key_file, _key_password(security, security.key_file)
        )
    except ssl.SSLError as error:
        raise SettingsError(
            f"{named('certificate_file', security.certificate_file)} and key_file = {security.key_file} are no pair of "
            f"PEM certificate and key, or the key's password is wrong ({error.reason or 'unreadable'})"
        ) from error
