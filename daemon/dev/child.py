"""The daemon as a child process on this machine: for the demo, the end-to-end tests and the benchmarks."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from daemon.errors import TickcastError

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05


class ChildDaemon:
    """One `tickcast run` with its own settings file and log.

    Parameters
    ----------
    directory : where settings and log are written
    settings : section -> key -> value, as in the TOML file; `metrics.port` is chosen free
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any], *, name: str = "daemon") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.log = directory / f"{name}.log"
        self._config = directory / f"{name}.toml"
        self._config.write_text(to_toml({**settings, "metrics": {**settings.get("metrics", {}), "port": 0}}), "utf-8")
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    def start(self) -> Self:
        """Start the process; it is not ready yet."""
        command = [sys.executable, "-m", "daemon.cli.main", "run", "--config", str(self._config)]
        with self.log.open("ab") as log:
            self._seen = log.tell()
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._port = None
        return self

    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> Self:
        """Wait until /readyz says so.

        Raises
        ------
        TickcastError : the process ended, or the time is up; with the last lines of its log
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._is_ready():
            if self.process.poll() is not None:
                raise TickcastError(f"the daemon ended with code {self.process.returncode}: {self.tail()}")
            if time.monotonic() > deadline:
                raise TickcastError(f"the daemon was not ready within {timeout_seconds:.0f} s: {self.tail()}")
            time.sleep(POLL_SECONDS)
        return self

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics by name, with its labels where it has some: ``name{label="value"}``."""
        found = {}
        for family in text_string_to_metric_families(self.exposition()):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found

    def exposition(self) -> str:
        """Return /metrics as it is written."""
        return self._get("/metrics")

    @property
    def port(self) -> int:
        """Port of /metrics; known once the daemon is ready."""
        if self._port is None:
            raise TickcastError("the daemon has not said its port yet; wait until it is ready")
        return self._port

    def stop(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Ask it to stop, and return its exit code; kill it when it does not obey."""
        if self._process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running or ended process."""
        if self._process is None:
            raise TickcastError("the daemon has not been started")
        return self._process

    def tail(self, lines: int = 5) -> str:
        """Return the last lines of the log."""
        return " / ".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    def _is_ready(self) -> bool:
        if self._port is None:
            self._port = self._logged_port()
        if self._port is None:
            return False
        try:
            return self._get("/readyz").startswith("ready")
        except (urllib.error.URLError, OSError):
            return False

    def _logged_port(self) -> int | None:
        """Find the metrics port in the log of this start."""
        with self.log.open("rb") as log:
            log.seek(self._seen)
            for line in log:
                if b'"metrics_port"' in line and line.endswith(b"\n"):
                    return int(json.loads(line)["metrics_port"])
        return None

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=10) as answer:
            return str(answer.read().decode())


def to_toml(settings: Mapping[str, Any]) -> str:
    """Write sections of plain keys, and lists of such sections, as TOML."""
    lines = []
    for section, content in settings.items():
        for head, keys in (
            [(f"[[{section}]]", each) for each in content] if isinstance(content, list) else [(f"[{section}]", content)]
        ):
            lines += [head, *(f"{key} = {json.dumps(value)}" for key, value in keys.items()), ""]
    return "\n".join(lines)
