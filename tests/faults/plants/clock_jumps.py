"""Run tickcast under a wall clock that jumps back and forth. Only the wall clock may: the monotonic one never does.

    clock_jumps.py SECONDS[,SECONDS...] run --config FILE

Every `EVERY_SECONDS` the clock is set off by the next of the values, over and over.
"""

import sys
import time

OFFSETS = [float(seconds) for seconds in sys.argv[1].split(",")]
EVERY_SECONDS = 0.2

real_time, real_time_ns = time.time, time.time_ns


def offset() -> float:
    """Return by how much the clock is wrong now."""
    return OFFSETS[int(time.monotonic() / EVERY_SECONDS) % len(OFFSETS)]


# Before anything else is imported: who took the function itself would keep the right clock.
time.time = lambda: real_time() + offset()
time.time_ns = lambda: real_time_ns() + round(offset() * 1e9)

from daemon.cli.main import main  # noqa: E402

sys.argv = ["tickcast", *sys.argv[2:]]
main()
