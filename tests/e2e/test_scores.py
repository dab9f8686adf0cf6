"""The scores topic behind a real Kafka: every sampled forecast that came due stands there once, whatever happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.assembly import pipeline_options
from daemon.boundaries import resolve_rules
from daemon.config import Settings
from daemon.core.pipeline import Pipeline
from daemon.model.bundle import Bundle
from daemon.model.selftest import self_test
from daemon.transport.admin import create_topics
from daemon.transport.connection import Connection
from schemas import Score
from tests.bundles import tiny_bundle
from tests.e2e.world import PARTITIONS, World, read_topics

pytestmark = pytest.mark.kafka

#: Tolerant checkpoints: the restart below has to replay, silently.
SETTINGS = {"checkpoint_seconds": 3600, "checkpoint_ticks": 300, "max_batch_ticks": 50}


@pytest.fixture
def world(kafka: str, tmp_path: Path) -> Iterator[World]:
    made = World(kafka, tmp_path, tiny_bundle(tmp_path).path)
    made.topics = made.topics.model_copy(update={"scores": made.topics.ticks + "-scores"})
    assert create_topics(Connection(kafka), made.topics) == [made.topics.scores]
    yield made
    made.close()


def test_a_score_for_each_sampled_forecast_that_came_due_and_no_other(world: World) -> None:
    daemon = world.daemon(pipeline=SETTINGS).wait_ready()
    world.send_quotes(1000, instruments=6)
    world.await_outcomes()
    daemon.kill()
    world.send_quotes(1000, instruments=6)
    daemon.start().wait_ready()
    world.await_outcomes()
    metrics = daemon.metrics()
    assert daemon.stop() == 0

    found = sorted(read_topics(world.bootstrap, world.topics.scores), key=lambda record: record.partition)
    scores = [Score.model_validate_json(record.value) for record in found]
    assert set(Counter((score.id, score.horizon) for score in scores).values()) == {1}
    assert [(r.partition, r.key, r.value) for r in found] == expected(
        world, Settings(**world.settings(pipeline=SETTINGS))
    )
    assert all(record.key == score.instrument.encode() for record, score in zip(found, scores, strict=True))
    assert len(scores) > 400
    assert 0.0 <= metrics['tickcast_interval_coverage_ratio{horizon="1"}'] <= 1.0
    assert (
        metrics['tickcast_forecast_skill_ratio{horizon="10"}']
        <= metrics['tickcast_forecast_skill_upper_ratio{horizon="10"}']
    )


def expected(world: World, settings: Settings) -> list[tuple[int, bytes, bytes]]:
    """Return what one pipeline that nothing disturbs makes of the ticks as they stand in the topic."""
    bundle = Bundle.load(world.bundle)
    made = Pipeline(bundle.spec, self_test(bundle), resolve_rules(()), pipeline_options(settings), scores=True)
    ticks = read_topics(world.bootstrap, world.topics.ticks)
    found = []
    for partition in range(PARTITIONS):
        made.assign(partition)
        batch = made.advance([record for record in ticks if record.partition == partition])
        found += [(message.partition, message.key, message.value) for message in batch.scores]
    return found  # type: ignore[return-value]
