"""Whatever befalls the processes of a group, the topics hold in the end what one undisturbed run would have written.

A failing seed is printed; `pytest tests/simulation --seed N` runs it alone, and it gets a test in `test_named_seeds`.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.simulation.conftest import SEEDS
from tests.simulation.faults import EVERYWHERE, FAULTS
from tests.simulation.oracle import prove

CHUNK = 100
#: How often each of these must have happened over all seeds, lest the simulation go soft without anybody noticing.
OFTEN = 100
#: How often each fault must have struck at each of its points.
NOW_AND_THEN = 3
#: What has to happen besides the faults.
EVENTS = (
    *("ticks", "ticks in a transaction", "aborted ticks", "trimmed", "compacted", "tombstones compacted"),
    *("started", "stopped, left", "stopped, stayed", "killed between turns", "crashed", "revised"),
    *("marker landed late", "transaction of the dead expired", "ended by Fenced", "ended by BrokerUnavailable"),
    *("transaction failed", "checkpoint alone", "checkpoint with ticks", "tombstone"),
    *("state read again", "ticks read again", "assigned", "revoked", "lost", "paused"),
    *("revoked in the middle of a restore", "lost in the middle of a restore"),
    *("promoted", "switched", "not ready for lack of a bundle"),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seeds" in metafunc.fixturenames:
        seed = metafunc.config.getoption("--seed", default=None)
        count = metafunc.config.getoption("--seeds", default=SEEDS)
        chunks = (
            [range(seed, seed + 1)]
            if seed is not None
            else [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
        )
        metafunc.parametrize("seeds", chunks, ids=lambda chunk: f"{chunk[0]}-{chunk[-1]}")


@pytest.fixture(scope="module")
def happened() -> Counter[str]:
    """What happened in all seeds so far, and how many they are."""
    return Counter()


def test_nothing_is_lost_doubled_or_changed(seeds: range, happened: Counter[str]) -> None:
    for seed in seeds:
        happened += prove(seed).happened
        happened["seed"] += 1


def test_everything_happened_often(happened: Counter[str]) -> None:
    if happened["seed"] < SEEDS:
        pytest.skip("only some of the seeds were run")
    wanted = dict.fromkeys(EVENTS, OFTEN)
    for fault, (_, points) in FAULTS.items():
        name = fault.__name__
        wanted |= {f"{name} at {point}": NOW_AND_THEN for point in points}
        happened[name] = sum(happened[f"{name} at {point}"] for point in points)
        wanted[name] = OFTEN
        if points == EVERYWHERE:
            wanted |= dict.fromkeys((f"{name} while restoring", f"{name} while running"), OFTEN // 2)
    seldom = {what: happened[what] for what, least in wanted.items() if happened[what] < least}
    assert not seldom, seldom
