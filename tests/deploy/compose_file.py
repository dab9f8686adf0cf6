"""docker-compose.yml as the tests read it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"


@dataclass(frozen=True)
class Mount:
    """What stands at a path of a container."""

    #: A path of this repository, or the name of a volume.
    source: Path | str
    target: str
    read_only: bool


@dataclass(frozen=True)
class Service:
    """One service; the words are compose's own."""

    name: str
    content: dict[str, Any]

    @property
    def image(self) -> str:
        return self.content["image"]

    @property
    def is_ours(self) -> bool:
        return "build" in self.content

    @property
    def is_once(self) -> bool:
        return self.content["restart"] == "no"

    @property
    def command(self) -> list[str]:
        return self.content.get("command", [])

    @property
    def environment(self) -> dict[str, str]:
        return self.content.get("environment", {})

    @property
    def healthcheck(self) -> list[str]:
        """The command, without the word CMD; empty where it is disabled."""
        test = self.content["healthcheck"].get("test", ["CMD"])
        assert test[0] == "CMD", f"{self.name}: no shell in a health check"
        return test[1:]

    @property
    def mounts(self) -> Iterator[Mount]:
        for text in self.content.get("volumes", []):
            source, target, *mode = text.split(":")
            yield Mount(ROOT / source if source.startswith("./") else source, target, mode == ["ro"])

    @property
    def conditions(self) -> dict[str, str]:
        """The services that this one waits for, and for what of them."""
        return {name: each["condition"] for name, each in self.content.get("depends_on", {}).items()}


def read_file() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text("utf-8"))


def services() -> dict[str, Service]:
    return {name: Service(name, content) for name, content in read_file()["services"].items()}
