"""Every contestant of the benchmark beside peers that can run here: tickcast, and those whose environments are made.

`python -m bench.peers make` makes them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from bench.peers.contestants import CONTESTANTS, EXACTLY, Contestant
from bench.peers.environments import CACHE
from bench.peers.measure import QUICK, measure
from bench.rig import Rig, bench_bundle


def is_ready(contestant: Contestant) -> bool:
    """Environments are gigabytes from registries, so no test makes one; in CI it is no matter of luck who runs."""
    if contestant.missing or contestant.peer == "tickcast":
        return not contestant.missing
    return not os.environ.get("CI") and (CACHE / contestant.peer / "made-from").is_file()


READY = [each for each in CONTESTANTS if is_ready(each)]
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
