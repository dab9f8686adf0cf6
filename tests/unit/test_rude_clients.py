"""The port for metrics and probes: who is silent, slow or rude keeps nobody else waiting."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from daemon import health
from daemon.health import REQUESTS_MAX, Health, HealthServer


@pytest.fixture
def server() -> Iterator[HealthServer]:
    made = HealthServer("127.0.0.1", 0, CollectorRegistry(), Health(60.0))
    yield made
    made.close()


def connected(server: HealthServer, said: bytes = b"") -> socket.socket:
    client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    client.sendall(said)
    return client


def probe(server: HealthServer) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/livez", timeout=60) as answer:
        return str(answer.read().decode().strip())


@pytest.mark.parametrize("said", [b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: "])
def test_who_does_not_finish_keeps_no_probe_waiting(
    server: HealthServer, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(health._Quiet, "timeout", 3600.0)
    with ExitStack() as clients:
        for _ in range(REQUESTS_MAX - 1):
            clients.enter_context(connected(server, said))
        assert probe(server) == "alive"


def test_a_crowd_of_silent_clients_is_hung_up_on(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health._Quiet, "timeout", 0.5)
    with ExitStack() as clients:
        crowd = [clients.enter_context(connected(server)) for _ in range(4 * REQUESTS_MAX)]
        assert [client.recv(1) for client in crowd] == [b""] * len(crowd)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert probe(server) == "alive"
            return
        except OSError:
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "said",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"\x16\x03\x01\r\n",
    ],
)
def test_a_request_without_end_or_sense_is_refused(
    server: HealthServer, capfd: pytest.CaptureFixture[str], said: bytes
) -> None:
    with connected(server) as client:
        try:
            client.sendall(said)
            answer = client.recv(65_536)
        except ConnectionError:
            answer = b""
    assert not answer or b" 4" in answer or b"Error code: 4" in answer
    assert probe(server) == "alive"
    assert capfd.readouterr().err == ""
