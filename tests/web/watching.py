"""`tickcast watch` as a child process, topics to show, and a plain client of its events."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from daemon.config import TopicSettings
from daemon.dev.child import to_toml

PATIENCE_SECONDS = 90.0


class Watch:
    """One page's server."""

    def __init__(self, directory: Path, bootstrap: str, topics: TopicSettings, *options: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "watch.toml"
        settings = {"kafka": {"bootstrap_servers": bootstrap}, "topics": topics.model_dump()}
        self._config.write_text(to_toml(settings), "utf-8")
        self._log = directory / "watch.log"
        self._options = options
        self.port = 0
        self.process = self._start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def restart(self) -> None:
        """Start it again where it was."""
        self.process = self._start()

    def stop(self) -> int:
        """Ask it to stop; return its exit code."""
        self.process.terminate()
        code = self.process.wait(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def get(self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None) -> HTTPResponse:
        """Ask for something; the body is read by the caller."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        connection.request(method, path, headers=dict(headers or {}))
        return connection.getresponse()

    def events(self, query: str = "") -> Iterator[tuple[str, Any]]:
        """Yield events as they come, without end."""
        answer = self.get(f"/events?{query}")
        assert answer.status == 200
        try:
            name = ""
            for line in answer:
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)
        finally:
            answer.close()

    def await_board(self, condition: Callable[[Any], bool], query: str = "") -> Any:
        """Return the first board for which the condition holds."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        for name, content in self.events(query):
            if name == "board" and condition(content):
                return content
            assert time.monotonic() < deadline, content
        raise AssertionError("the stream ended")

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "daemon.cli.main", "watch", "--config", str(self._config)]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*command, "--port", str(self.port), *self._options],
                stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("the live page is at http://"), self._log.read_text()
        self.port = int(line.split("/;")[0].rsplit(":", 1)[1])
        return process


def send(bootstrap: str, topic: str, values: Iterable[Mapping[str, Any]], *, partition: int = 0) -> None:
    """Write messages as they are given, keyed by their instrument."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    for value in values:
        producer.send(topic, json.dumps(value).encode(), value["instrument"].encode(), partition=partition)
    producer.flush()
    producer.close()
