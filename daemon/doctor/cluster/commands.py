"""The commands of remedies, as they are typed for this cluster and these settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from daemon.config import Settings


@dataclass(frozen=True)
class Commands:
    """Writes commands.

    Kafka's own tools take a login from `--command-config FILE`, which is left to who has one.
    """

    settings: Settings
    #: The settings file, where there is one.
    config: Path | None = None

    def tickcast(self, words: str) -> str:
        """Return a command of ours."""
        return f"tickcast {words}" + (f" --config {self.config}" if self.config else "")

    def kafka(self, tool: str, words: str) -> str:
        """Return a command of Kafka's."""
        return f"{tool}.sh --bootstrap-server {self.settings.kafka.bootstrap_servers} {words}"

    def set_topic(self, topic: str, key: str, value: object) -> str:
        """Return the command that changes a setting of a topic."""
        change = f"--entity-type topics --entity-name {topic} --add-config {key}={value}"
        return self.kafka("kafka-configs", f"--alter {change}")

    def allow(self, operation: str, resource: str) -> str:
        """Return the command that grants a right; `resource` is written as the tool's options are."""
        user = self.settings.kafka.security.username or "NAME"
        return self.kafka("kafka-acls", f"--add --allow-principal User:{user} --operation {operation} {resource}")
