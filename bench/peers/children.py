"""A contestant as processes: started, measured, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

STOP_SECONDS = 20.0


class Child:
    """A program in a group of processes of its own, and whatever it starts."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it, or start it again."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def check(self) -> None:
        """Give up where it has ended by itself."""
        assert self._process is not None
        if self._process.poll() is not None:
            lines = self._log.read_text("utf-8", "replace").splitlines()[-15:]
            raise SystemExit(f"{self._command[0]} ended with code {self._process.returncode}:\n" + "\n".join(lines))

    def cpu_seconds(self) -> float:
        """Return the processor time of all its processes so far."""
        total = 0.0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total

    def peak_megabytes(self) -> float:
        """Return the sum of its processes' largest resident sizes."""
        total = 0
        for process in self._tree():
            with suppress(FileNotFoundError, ProcessLookupError):
                status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
                total += int(status.partition("VmHWM:")[2].split()[0])
        return total * 1024 / 1e6

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to stop; kill it when it does not obey."""
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _tree(self) -> list[psutil.Process]:
        assert self._process is not None
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
