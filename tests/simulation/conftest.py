"""How the simulation is run: all seeds, or one of them alone; small reads, so that every path has many pieces."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.ticks import dense_scores

SEEDS = 2000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, help="run one seed of the simulation alone")
    parser.addoption("--seeds", type=int, default=SEEDS, help="run so many seeds of the simulation")


@pytest.fixture(scope="module", autouse=True)
def every_forecast_is_scored() -> Iterator[None]:
    """The ticks of a seed are few; a sample of every fourth forecast would hardly ever meet its truth."""
    with dense_scores():
        yield


@pytest.fixture(autouse=True)
def small_and_silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let recoveries read a few records at a time, pins be noticed soon, and nothing be said."""
    monkeypatch.setattr("daemon.restore.READ_RECORDS", 3)
    # Sooner than live, so that a model changes more than once in the short life of a world.
    monkeypatch.setattr("daemon.switching.LOOK_SECONDS", 0.3)
    monkeypatch.setattr("daemon.switching.RETRY_SECONDS", 2.0)
    log = logging.getLogger("tickcast")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)
