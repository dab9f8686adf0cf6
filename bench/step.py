"""The step alone, 2 x LSTM(64): microseconds a tick, by how the ticks of a batch fall on instruments.

    python -m bench.step [--ticks FILE] [--batches N] [--rounds R]

Beside it the floor: the matrix products of the same waves, each as one product of as many rows as there are, and
nothing else. No arrangement of tiles, gates and calls gets below it with numpy.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from bench.rig import machine, median, real_ticks
from daemon.core.step import F32, Index, Step
from daemon.core.waves import Plan, plan
from daemon.model.numpy_step import NumpyStep
from daemon.model.selftest import choose_tile
from tests.bundles import tiny_program

BATCH_TICKS = 2000
FEATURES, OUTPUTS, UNITS, LAYERS, GATES = 14, 4, 64, 2, 4
INSTRUMENTS = (1, 6, 64, 500, 5000)
SEED = 20_260_105


def made_orders(batches: int) -> Iterator[tuple[str, list[Index]]]:
    """Yield names, and for each batch the slot of every tick's instrument."""
    draw = np.random.default_rng(SEED)
    for count in INSTRUMENTS:
        yield f"instruments: {count:,}", [draw.integers(0, count, BATCH_TICKS) for _ in range(batches)]
    others = [draw.integers(1, 500, BATCH_TICKS) for _ in range(batches)]
    hot = [np.where(draw.random(BATCH_TICKS) < 0.5, 0, each) for each in others]
    yield "instruments: 500, one of them half of the ticks", hot


def real_orders(path: Path, batches: int) -> list[Index]:
    """Return the order of a file, batches from all over it."""
    slots: dict[str, int] = {}
    order = np.array([slots.setdefault(tick["instrument"], len(slots)) for tick in real_ticks(path)])
    whole = [order[low : low + BATCH_TICKS] for low in range(0, len(order) - BATCH_TICKS + 1, BATCH_TICKS)]
    return whole[:: max(1, len(whole) // batches)][:batches]


def measure(step: Step, orders: Sequence[Index], rounds: int) -> dict[str, float]:
    """Return microseconds a tick: planning, the scan, the products of its waves."""
    draw = np.random.default_rng(SEED)
    x = draw.standard_normal((BATCH_TICKS, FEATURES)).astype(np.float32)
    floor = Floor()
    spent: dict[str, list[float]] = {"plan": [], "scan": [], "floor": []}
    for _ in range(rounds):
        took = dict.fromkeys(spent, 0.0)
        for slots in orders:
            resets = np.zeros(len(slots), np.bool_)
            took["plan"] += _seconds(lambda slots=slots, resets=resets: plan(slots, resets))
            planned = plan(slots, resets)
            start = np.repeat(step.initial_state[np.newaxis], len(planned.start_slots), axis=0)
            took["scan"] += _seconds(lambda planned=planned, start=start: _scan(step, x, start, planned))
            took["floor"] += _seconds(lambda planned=planned: floor.run(planned.waves.bounds))
        for what, seconds in took.items():
            spent[what].append(1e6 * seconds / (len(orders) * BATCH_TICKS))
    found = {f"{what}, us a tick": round(median(each), 2) for what, each in spent.items()}
    waves = sum(len(plan(slots, np.zeros(len(slots), np.bool_)).waves.bounds) - 1 for slots in orders)
    return {"rows a wave": round(len(orders) * BATCH_TICKS / waves, 1), **found}


class Floor:
    """The products of waves: of each layer its state and its input, all gates at once."""

    def __init__(self) -> None:
        draw = np.random.default_rng(SEED)
        widths = [UNITS + inputs for inputs in (FEATURES, *[UNITS] * (LAYERS - 1))]
        self._weights = [draw.standard_normal((width, GATES * UNITS)).astype(np.float32) for width in widths]
        self._rows = [draw.standard_normal((BATCH_TICKS, width)).astype(np.float32) for width in widths]
        self._result = np.empty((BATCH_TICKS, GATES * UNITS), np.float32)

    def run(self, bounds: Sequence[int]) -> None:
        """Run the products of waves between these bounds."""
        for low, high in pairwise(bounds):
            for rows, weights in zip(self._rows, self._weights, strict=True):
                np.dot(rows[low:high], weights, out=self._result[: high - low])


def _scan(step: Step, x: F32, start: F32, planned: Plan) -> None:
    step.scan(x[planned.order], start, planned.waves)


def _seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Run it and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=Path, help="a real tick file")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    program = tiny_program(FEATURES, OUTPUTS, units=UNITS, layers=LAYERS)
    tile_rows = choose_tile(lambda rows: NumpyStep(program, rows))
    step = NumpyStep(program, tile_rows)
    result: dict[str, object] = {"machine": machine(), "tile rows": tile_rows}
    for name, orders in made_orders(options.batches):
        result[name] = measure(step, orders, options.rounds)
    if options.ticks:
        result["real file"] = measure(step, real_orders(options.ticks, options.batches), options.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
