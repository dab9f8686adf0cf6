"""What a peer's program is told: one JSON file, named by an environment variable."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VARIABLE = "TICKCAST_PEERS_RUN"


@dataclass(frozen=True)
class RunSettings:
    """One run of one peer."""

    bootstrap: str
    ticks: str
    forecasts: str
    #: Consumer group, transactional id and whatever else has to be the same after a restart.
    group: str
    bundle: str
    #: Where the peer may keep files; the same after a restart.
    directory: str
    #: What the contestant's line says beside its guarantee (`bench.peers.contestants`).
    options: dict[str, Any] = field(default_factory=dict)

    def write(self, path: Path) -> dict[str, str]:
        """Write the file; return the environment that names it."""
        path.write_text(json.dumps(asdict(self)), "utf-8")
        return {VARIABLE: str(path)}


def read_settings() -> RunSettings:
    """Return what this process was told."""
    return RunSettings(**json.loads(Path(os.environ[VARIABLE]).read_text("utf-8")))
