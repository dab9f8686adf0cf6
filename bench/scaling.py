"""Measures how tickcast scales on this machine, and writes docs/scaling.md from it and from the model.

    python -m bench.scaling docs/scaling.md                                measures all of it, a quarter of an hour
    python -m bench.scaling docs/scaling.md --only workers costs           these alone; the others stay
    python -m bench.scaling docs/scaling.md --only                         nothing: writes the page anew

What was measured is kept in `bench/scaling.json`, so that the page can be written without measuring.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from bench.figures import run
from bench.rig import CLIENTS, machine, write_section
from bench.scaling_page import SECTIONS, Found

KEPT = Path(__file__).with_suffix(".json")


def wide(clients: Sequence[str]) -> Found:
    """Measure instruments in one process; the single one is the hot one."""
    alone = run("bench.wide", "--instruments", "1", "1000", "--partitions", "1")["sizes"]
    return {"sizes": [*alone, *run("bench.wide", "--instruments", "10000", "100000", "1000000")["sizes"]]}


def start(clients: Sequence[str]) -> Found:
    """Measure starts."""
    return run("bench.wide_start")


def workers(clients: Sequence[str]) -> Found:
    """Measure worker processes."""
    return run("bench.workers")


def costs(clients: Sequence[str]) -> Found:
    """Measure what ticks and snapshots cost with each client."""
    return {client: run("bench.client_costs", "--client", client) for client in clients}


PARTS = {part.__name__: part for part in (wide, start, workers, costs)}


def main() -> None:
    """Measure, keep, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=CLIENTS[:1])
    options = parser.parse_args()
    kept: Found = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    for name in options.only:
        kept[name] = PARTS[name](options.clients)
        kept["machine"] = machine()
        KEPT.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    missing = [name for name in PARTS if name not in kept]
    if missing:
        raise SystemExit(f"{KEPT} lacks {', '.join(missing)}: measure with --only {' '.join(missing)}")
    for name, text in SECTIONS.items():
        write_section(options.document, name, f"\n{text(kept)}\n\n")


if __name__ == "__main__":
    main()
