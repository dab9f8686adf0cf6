"""SASL mechanisms whose password is opened for each login, in place of kafka-python's, which keep the one of the start.

So a password that changes in its file counts from the next login on, and none stands in the options of a client, which
kafka-python writes to its log.
"""

from __future__ import annotations

from typing import Any

from kafka.net.sasl import register_sasl_mechanism
from kafka.net.sasl.plain import SaslMechanismPlain
from kafka.net.sasl.scram import SaslMechanismScram


class FreshPlain(SaslMechanismPlain):  # type: ignore[misc]
    """PLAIN with the password as it is now."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**_opened(config))


class FreshScram(SaslMechanismScram):  # type: ignore[misc]
    """SCRAM with the password as it is now."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**_opened(config))


def register_mechanisms() -> None:
    """Have kafka-python take ours."""
    register_sasl_mechanism("PLAIN", FreshPlain, overwrite=True)
    for name in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        register_sasl_mechanism(name, FreshScram, overwrite=True)


def _opened(config: dict[str, Any]) -> dict[str, Any]:
    return config | {"sasl_plain_password": config["sasl_plain_password"]()}
