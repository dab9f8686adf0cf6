"""Every contestant of the benchmark beside peers that can run here: tickcast, and those whose environments are made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.peers.contestants import CONTESTANTS, EXACTLY, Contestant
from bench.peers.environments import CACHE
from bench.peers.measure import QUICK, measure
from bench.rig import Rig, bench_bundle

#: Environments are gigabytes from registries, so no test makes one: `python -m bench.peers make`.
READY = [
    each
    for each in CONTESTANTS
    if not each.missing and (each.peer == "tickcast" or (CACHE / each.peer / "made-from").is_file())
]
SIZES = replace(QUICK, share=0.02, seconds=2.0, before_kill_seconds=2.0)


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.parametrize("contestant", READY, ids=lambda each: each.key)
def test_contestant_forecasts_every_tick_and_survives_a_kill(
    contestant: Contestant, kafka: str, tmp_path: Path
) -> None:
    found = measure(Rig(kafka, tmp_path), contestant, bench_bundle(tmp_path).path, CACHE, SIZES)
    assert found["stock"]["missing"] == found["stock"]["repeated"] == found["stock"]["wrong_state"] == 0
    assert found["payloads"]["compared"] > 0
    assert found["payloads"]["different"] == 0
    assert found["payloads"]["price_difference"] < 1e-8
    if contestant.guarantee == EXACTLY:
        assert found["in_all"]["missing"] == found["in_all"]["repeated"] == found["in_all"]["wrong_state"] == 0
