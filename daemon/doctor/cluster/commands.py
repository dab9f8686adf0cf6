"""The commands of remedies, as they are typed for this cluster and these settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from daemon.config import Settings


@dataclass(frozen=True)
class Commands:
    """Writes commands."""

    settings: Settings
    #: The settings file, where there is one.
    config: Path | None = None

    def tickcast(self, words: str) -> str:
        """Return a command of ours."""
        return f"tickcast {words}" + (f" --config {self.config}" if self.config else "")

    def kafka(self, tool: str, words: str) -> str:
        """Return a command of Kafka's; on a protected cluster its login stands in a file of its own."""
        kafka = self.settings.kafka
        login = "" if kafka.security.protocol == "PLAINTEXT" else "--command-config client.properties "
        return f"{tool}.sh --bootstrap-server {kafka.bootstrap_servers} {login}{words}"

    def set_topic(self, topic: str, key: str, value: object) -> str:
        """Return the command that changes a setting of a topic."""
        change = f"--entity-type topics --entity-name {topic} --add-config {key}={value}"
        return self.kafka("kafka-configs", f"--alter {change}")

    def allow(self, operation: str, resource: str) -> str:
        """Return the command that grants a right; `resource` is written as the tool's options are."""
        user = self.settings.kafka.security.username or "NAME"
        return self.kafka("kafka-acls", f"--add --allow-principal User:{user} --operation {operation} {resource}")
