"""The backtest against a daemon on a real Kafka: the same ticks, the same payloads, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from daemon.cli import main
from tests.bundles import tiny_bundle
from tests.e2e.world import PARTITIONS, World
from tests.training.market_ticks import market_ticks

pytestmark = pytest.mark.kafka

COUNT = 4000


def test_a_backtest_forecasts_what_the_daemon_published(kafka: str, tmp_path: Path):
    """Quotes and trades, several sessions, late ticks that become dead letters on both sides."""
    ticks = market_ticks(COUNT, instruments=5, session_seconds=40)
    ticks[1000:1000] = [ticks[500]] * 3
    file, out = tmp_path / "ticks.jsonl", tmp_path / "forecasts.jsonl"
    file.write_text("".join(json.dumps(tick) + "\n" for tick in ticks))
    bundle = tiny_bundle(tmp_path).path
    world = World(kafka, tmp_path, bundle)
    try:
        world.send_ticks(ticks)
        world.daemon().wait_ready()
        published = [record.value for record in world.await_outcomes() if not record.headers]
    finally:
        world.close()
    options = ["--topic", world.topics.ticks, "--partitions", str(PARTITIONS), "--forecasts", str(out), "--json"]
    result = CliRunner().invoke(main.app, ["backtest", str(bundle), str(file), *options])
    assert result.exit_code == 0, result.output
    found = out.read_bytes().splitlines()
    assert len(found) == len(published) == COUNT
    assert sorted(found) == sorted(published)
    assert json.loads(result.stdout)["dead_letters"] == {"late": 3}
