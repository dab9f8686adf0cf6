"""One broker for the whole folder, one topic of ticks, one undisturbed run; every test has a stage of its own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from daemon.dev.market import Market
from daemon.tick_files import read_ticks
from tests.bundles import tiny_bundle
from tests.contract.worlds import CLIENTS
from tests.faults.feed import dirty, write_feed
from tests.faults.power import Power
from tests.faults.stage import Ground, Stage
from tests.faults.verdict import Outcomes, read_outcomes, read_places
from tests.kafka_fixture import make_topics

TICKS = 40_000
FEED_SEED = 20240808


@pytest.fixture(scope="session")
def power(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Power]:
    """A broker that these tests may kill."""
    made = Power(tmp_path_factory.mktemp("power"))
    yield made
    made.stop()


@pytest.fixture(scope="session")
def ground(
    power: Power, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, pytestconfig: pytest.Config
) -> Ground:
    """The ticks, in their topic: real ones, or simulated ones where the file is absent, so that CI proves it too."""
    try:
        source, ticks = "real", read_ticks([request.getfixturevalue("real_ticks")], in_order=True)
    except pytest.skip.Exception:
        source, ticks = "simulated", Market(seed=FEED_SEED).ticks()
    feed = list(dirty(islice(ticks, TICKS), FEED_SEED))
    topic = make_topics(power.bootstrap, "faults").ticks
    write_feed(power.bootstrap, topic, feed)
    places = read_places(power.bootstrap, topic)
    assert len(places) == len(feed)
    bundle = tiny_bundle(tmp_path_factory.mktemp("bundle")).path
    return Ground(power, bundle, topic, places, source)


@pytest.fixture(scope="session")
def undisturbed(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """The outcomes of one daemon that nobody harms, at the default settings."""
    stage = Stage(ground, tmp_path_factory.mktemp("undisturbed"))
    try:
        stage.daemon().wait_ready()
        stage.await_end()
        assert stage.logged("transaction failed") == 0
        stage.stop_all()
        found = read_outcomes(stage)
    finally:
        stage.close()
    assert set(found) == set(ground.places)
    return found


@pytest.fixture
def stage(ground: Ground, undisturbed: Outcomes, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A group of its own on the ticks of all; its parameter, where a test gives one, is the client."""
    client = getattr(request, "param", CLIENTS[0])
    if client == "librdkafka":
        pytest.importorskip("confluent_kafka", reason="the extra librdkafka is not installed")
    made = Stage(ground, tmp_path, client)
    yield made
    made.close()
