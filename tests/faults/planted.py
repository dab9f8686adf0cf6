"""A daemon with a fault planted into it: `tickcast run` behind a few lines that change one call of the outside world.

What is replaced is never our own logic but what the world does to it: when the process dies, what the clock of the wall
says, how slowly the broker is read.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from daemon.dev.child import ChildDaemon

FOLDER = Path(__file__).parent / "plants"


class PlantedDaemon(ChildDaemon):
    """A `ChildDaemon` started by one of the scripts in `plants`.

    Parameters
    ----------
    plant : name of the script and its arguments; empty for the plain daemon
    """

    def __init__(
        self, directory: Path, settings: Mapping[str, Any], plant: Sequence[str], *, name: str = "daemon"
    ) -> None:
        super().__init__(directory, settings, name=name)
        self.plant = list(plant)

    def start(self) -> Self:
        """Start the process; it is not ready yet."""
        program = [str(FOLDER / f"{self.plant[0]}.py"), *self.plant[1:]] if self.plant else ["-m", "daemon.cli.main"]
        with self.log.open("ab") as log:
            self._seen = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, *program, "run", "--config", str(self._config)],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._port = None
        return self
