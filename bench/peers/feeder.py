"""Ticks for contestants at a steady rate, from a process of its own."""

from __future__ import annotations

import argparse
import subprocess
import sys

from bench.feed import send
from bench.rig import made_ticks

INSTRUMENTS = 500


def feeding(bootstrap: str, topic: str, rate: int, count: int) -> subprocess.Popen[bytes]:
    """Send so many ticks at a rate from a process of its own; as a context manager it is waited for."""
    arguments = ["--bootstrap", bootstrap, "--topic", topic, "--rate", str(rate), "--count", str(count)]
    return subprocess.Popen([sys.executable, "-m", "bench.peers.feeder", *arguments])


def main() -> None:
    """Send ticks at a rate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    options = parser.parse_args()
    ticks = made_ticks(options.count, INSTRUMENTS, seed=options.rate)
    send(options.bootstrap, options.topic, ticks, options.rate)


if __name__ == "__main__":
    main()
