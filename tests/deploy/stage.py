"""A real Prometheus with the shipped configuration, over a daemon that answers a live market on a real Kafka."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from daemon.config import TopicSettings
from daemon.dev.broker import free_port
from daemon.dev.child import ChildDaemon
from daemon.dev.dashboards.values import Prometheus
from daemon.dev.demo.feed import Feed
from daemon.dev.market import Market
from daemon.dev.replay import TickProducer
from daemon.tick_files import read_ticks
from daemon.transport.connection import Connection

SHIPPED = Path(__file__).parents[2] / "deploy" / "prometheus"
PATIENCE_SECONDS = 120.0
TICKS_PER_SECOND = 400.0
REAL_TICKS = 10_000
#: Silence that ends a session.
GAP_SECONDS = 2.0


def tool(name: str) -> str:
    """Return the path of a program of Prometheus; skip where it is absent."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: apt-get install --no-install-recommends prometheus")
    return found


def await_that(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS:.0f} s: {what()}"
        time.sleep(0.1)


@contextmanager
def running_prometheus(directory: Path, *targets: int) -> Iterator[str]:
    """Run the shipped configuration with targets of our own, on a free port; yields its URL.

    It looks every second, so that tests need not wait for four times 5 s.
    """
    config = directory / "prometheus"
    shutil.copytree(SHIPPED, config)
    hosts = ", ".join(f'"127.0.0.1:{port}"' for port in targets)
    (config / "targets" / "tickcast.yml").write_text(f"- targets: [{hosts}]\n", "utf-8")
    file = config / "prometheus.yml"
    file.write_text(re.sub(r"_interval: \d+s", "_interval: 1s", file.read_text("utf-8")), "utf-8")
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        tool("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory / 'tsdb'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    log = directory / "prometheus.log"
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            await_that(lambda: process.poll() is not None or is_ready(url), lambda: log.read_text("utf-8")[-2000:])
            assert process.poll() is None, log.read_text("utf-8")[-2000:]
            yield url
        finally:
            process.terminate()


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=10):
            return True
    except OSError:
        return False


def market(real: Path | None) -> Iterator[dict[str, Any]]:
    """Yield real ticks where there are some, as if they had just come, and then a live market without end."""
    if real is not None:
        ticks = list(islice(read_ticks([real], in_order=True), REAL_TICKS))
        shift = time.time_ns() - ticks[-1]["ts"]
        yield from ({**tick, "ts": tick["ts"] + shift} for tick in ticks)
    # Sessions short enough that some open while we look.
    hours = {"session_seconds": 5.0, "quiet_seconds": 1.5 * GAP_SECONDS}
    yield from Market(start_ns=time.time_ns(), ticks_per_second=TICKS_PER_SECOND, **hours).ticks()


def settings_of(bootstrap: str, topics: TopicSettings, bundle: Path) -> dict[str, Any]:
    """Return settings with a session rule of each sort that says when ticks are to be expected."""
    return {
        "kafka": {"bootstrap_servers": bootstrap, "group_id": topics.ticks + "-group"},
        "topics": topics.model_dump(),
        "model": {"bundle": str(bundle)},
        "pipeline": {"checkpoint_seconds": 1.0},
        "session": [
            {"match": "FLOW1", "rule": "calendar", "calendar": "24/7"},
            {"match": "WALK", "rule": "never"},
            {"match": "*", "rule": "gap", "gap_seconds": GAP_SECONDS},
        ],
    }


@dataclass(frozen=True)
class Stage:
    """A daemon with ticks to answer, and a Prometheus that looks at it."""

    daemon: ChildDaemon
    prometheus: Prometheus
    url: str


@contextmanager
def running_stage(
    bootstrap: str, topics: TopicSettings, bundle: Path, directory: Path, ticks: Iterable[Mapping[str, Any]]
) -> Iterator[Stage]:
    """Run everything until the caller is done.

    Parameters
    ----------
    ticks : more than anybody will wait for, sent in the pace of their event times
    """
    daemon = ChildDaemon(directory, settings_of(bootstrap, topics, bundle)).start()
    try:
        daemon.wait_ready()
        with (
            closing(TickProducer(Connection(bootstrap), topics.ticks)) as producer,
            running_prometheus(directory, daemon.port) as url,
        ):
            feed = Feed(producer, ticks)
            feed.start()
            try:
                yield Stage(daemon, Prometheus(url), url)
            finally:
                feed.stop()
    finally:
        daemon.stop()
