"""A broker whose power may fail, and come back over the same records on the same port."""

from __future__ import annotations

import resource
import time
from pathlib import Path

from daemon.dev.broker import Broker, start_broker


class Power:
    """One broker at a time over one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._broker = start_broker(None, directory)
        self.bootstrap = self._broker.bootstrap

    @property
    def broker(self) -> Broker:
        """The process of now, running or ended."""
        return self._broker

    def cut(self) -> None:
        """Kill the broker: nothing is flushed, nobody is told."""
        self._broker.kill()

    def restore(self) -> None:
        """Start it again where it was; its controller makes it wait some seconds first."""
        self._broker.kill()
        self._broker = start_broker(self._broker.port, self._directory)

    def fail(self, seconds: float) -> float:
        """Cut the power, wait, restore it; return for how long nobody answered."""
        began = time.monotonic()
        self.cut()
        time.sleep(seconds)  # the length of the outage is the fault itself: there is no condition to wait for
        self.restore()
        return time.monotonic() - began

    def fill_disk(self, room_bytes: int) -> None:
        """Let every write that takes a file past `room_bytes` fail, as on a full disk."""
        resource.prlimit(self._broker.pid, resource.RLIMIT_FSIZE, (room_bytes, room_bytes))

    def stop(self) -> None:
        """End for good."""
        self._broker.stop()
