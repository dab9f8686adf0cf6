"""Starts the flow as `python -m bytewax.run` would, after making the recovery store on the first start.

The store has one partition, for one worker.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from bytewax.recovery import init_db_dir  # type: ignore[import-not-found]

from bench.peers.run_settings import read_settings

told = read_settings()
store = Path(told.directory) / "recovery"
if not store.is_dir():
    store.mkdir()
    init_db_dir(store, 1)
seconds = str(told.options["snapshot_seconds"])
sys.argv = ["bytewax.run", "bench.peers.bytewax.flow:flow", "-r", str(store), "-s", seconds, "-b", "0"]
runpy.run_module("bytewax.run", run_name="__main__")
