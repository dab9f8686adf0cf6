"""Where the cluster is and how to log in: what every Kafka client of ours is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from daemon.config import KafkaSettings, SecuritySettings

#: kafka-python backs off to 30 s between knocks by itself; a broker that comes back should be found sooner.
RECONNECT_BACKOFF_MAX_MS = 1000


@dataclass(frozen=True, slots=True)
class Connection:
    """The cluster to speak to."""

    #: `host:port`, comma-separated.
    bootstrap_servers: str
    #: kafka-python's own security options; kept out of `repr`, they hold a password.
    security: Mapping[str, object] = field(default_factory=dict, repr=False)

    @classmethod
    def from_settings(cls, settings: KafkaSettings) -> Connection:
        """Take the address and the security options from the settings."""
        return cls(settings.bootstrap_servers, security_options(settings.security))

    def client_options(self) -> dict[str, Any]:
        """Return the keyword arguments that every kafka-python client takes."""
        return {
            "bootstrap_servers": [server.strip() for server in self.bootstrap_servers.split(",")],
            "reconnect_backoff_max_ms": RECONNECT_BACKOFF_MAX_MS,
            **self.security,
        }


def security_options(security: SecuritySettings) -> dict[str, object]:
    """Translate our settings into kafka-python's names, leaving out what is not set."""
    options = {
        "security_protocol": security.protocol,
        "ssl_cafile": security.ca_file and str(security.ca_file),
        "ssl_certfile": security.certificate_file and str(security.certificate_file),
        "ssl_keyfile": security.key_file and str(security.key_file),
        "sasl_mechanism": security.mechanism,
        "sasl_plain_username": security.username,
        "sasl_plain_password": security.password and security.password.get_secret_value(),
    }
    return {name: value for name, value in options.items() if value is not None}


def transactional_id(group_id: str, instance_id: str) -> str:
    """Return the stable id under which an instance writes.

    The slash cannot stand in either name, so no two instances of any two groups share an id: sharing one would make
    them fence each other for ever. One instance of one group, started twice, is told apart by its static membership.
    """
    return f"{group_id}/{instance_id}"
