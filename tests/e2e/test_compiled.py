"""The compiled core is the same program: the proofs of the core hold on machine code, and its bytes are Python's.

Compiled in a copy, so that all other tests run on the sources.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Hashes what a pipeline makes of made ticks, bad ones among them: payloads, dead letters and a checkpoint.
DIGEST = """
import hashlib, json, tempfile
from pathlib import Path
from bench.rig import bench_bundle, made_ticks
from bench.scoring import LIMITS, records_of
from daemon.compiled import is_compiled
from daemon.core import pipeline
from daemon.core.sessions import Gap, Rules
from daemon.model.selftest import self_test

ticks = list(made_ticks(6000, 40))
for number, tick in enumerate(ticks):
    tick["ts"] = 1_700_000_000_000_000_000 + number * 1_000_000 * (1 + number % 50 // 49 * 4000)
    tick |= {"bid_size": -1.0} if number % 97 == 0 else {"price": tick["bid"]} if number % 3 == 0 else {}
with tempfile.TemporaryDirectory() as folder:
    bundle = bench_bundle(Path(folder))
    made = pipeline.Pipeline(
        bundle.spec, self_test(bundle), Rules((), Gap(3.0)), pipeline.PipelineOptions(LIMITS), scores=True
    )
made.assign(0)
records, found, count = records_of(ticks), hashlib.sha256(), 0
for start in range(0, len(records), 500):
    batch = made.advance(records[start : start + 500])
    for message in (*batch.forecasts, *batch.dead_letters, *batch.scores):
        found.update(repr(message).encode())
        count += 1
for message in made.checkpoint(0, "r" * 64, len(records)):
    found.update(repr(message).encode())
print(json.dumps([is_compiled(), pipeline.__file__.endswith(".py"), count > len(records), found.hexdigest()]))
"""
PROOFS = ("tests/unit/core", "tests/property/test_any_cut.py", "tests/property/test_snapshot_roundtrip.py")


def run(root: Path, *arguments: str) -> str:
    """Run Python on the program that lies in a folder; return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1", "CI": ""}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    text = done.stdout.decode()
    assert done.returncode == 0, text[-5000:]
    return text.splitlines()[-1]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiled copy of the program."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        pytest.skip("no C compiler; on Debian: apt-get install gcc")
    root = tmp_path_factory.mktemp("compiled")
    leave = shutil.ignore_patterns("__pycache__", "*.so", "compiled.json")
    for name in ("daemon", "schemas", "bench", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=leave)
    shutil.copy(ROOT / "pyproject.toml", root)
    run(root, "-m", "daemon.dev.compile")
    return root


@pytest.mark.long
def test_machine_code_gives_the_bytes_of_its_sources(copy):
    ours, theirs = run(ROOT, "-c", DIGEST), run(copy, "-c", DIGEST)
    digest = ours.split()[-1]
    assert ours == f"[false, true, true, {digest}"
    assert theirs == f"[true, false, true, {digest}"


@pytest.mark.long
def test_the_proofs_of_the_core_hold_on_machine_code(copy):
    assert "passed" in run(copy, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-m", "not long", *PROOFS)
