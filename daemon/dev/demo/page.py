"""The live page of the demo: `tickcast watch` as a child process; where it cannot be had, the demo goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any, Self

from daemon.dev.broker import is_free
from daemon.dev.child import to_toml

#: Its imports take a second, on a busy machine several.
START_SECONDS = 30.0
STOP_SECONDS = 5.0


class ChildPage(AbstractContextManager["ChildPage"]):
    """One `tickcast watch` with its own settings file and log.

    Parameters
    ----------
    directory : where settings and log are written
    settings : section -> key -> value, as in the TOML file
    port : where it should listen; a free one is taken where this is not
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any], port: int) -> None:
        self.log = directory / "page.log"
        self._config = directory / "page.toml"
        self._config.write_text(to_toml({"kafka": settings["kafka"]}), "utf-8")
        self._port = port if is_free(port) else 0

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "daemon.cli.main", "watch"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--config", str(self._config), "--port", str(self._port)],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def told(self) -> str:
        """Return where it is, or why it is nowhere."""
        assert self._process.stdout is not None
        guard = Timer(START_SECONDS, self._process.kill)
        guard.start()
        try:
            line = self._process.stdout.readline()
        finally:
            guard.cancel()
        address = next((word.rstrip(";") for word in line.split() if word.startswith("http")), None)
        if address is not None:
            return f"live at {address}"
        said = self.log.read_text("utf-8", "replace").splitlines()
        return f"not shown: {said[-1].removeprefix('tickcast: error: ')}" if said else f"not shown; see {self.log}"
