"""What training reaches on real ticks: the model of `tickcast train` with its default settings, fitted on the first
70 % in time, against ridge regressions fitted per instrument and against itself without memory.

    python -m bench.training README.md --ticks FILE            measure and write the section
    python -m bench.training README.md --ticks FILE --print    print it only

The ridge is the bar: nine features of the quote and trade stream, one regression per instrument and horizon, fitted on
all ticks before the split, on squares. Differences come with standard errors of a paired block bootstrap: blocks of
time, drawn for all instruments at once, so that what moves them together is not counted six times.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.rig import machine, write_section
from daemon.boundaries import resolve_rules
from daemon.tick_files import read_ticks
from daemon.training import TrainingOptions, train
from daemon.training.collect import Track, collect
from daemon.training.fold import Fold

BLOCK_SECONDS = 2.0
DRAWS = 1000
RIDGE_COLUMNS = ("return", "imbalance", "spread", "signed_size", "wait")
PENALTY = 10.0


def moving_sum(values: np.ndarray, count: int) -> np.ndarray:
    """Sum the last `count` values, fewer at the start."""
    total = np.cumsum(values)
    return total - np.concatenate([np.zeros(min(count, len(total))), total[:-count]])


def ridge_features(track: Track) -> np.ndarray:
    """Return the nine features, shape (ticks, 9)."""
    move, imbalance, spread, flow, wait = track.features.T
    ages = np.minimum(np.arange(len(move)) + 1, 5)
    return np.column_stack(
        [
            move,
            imbalance,
            spread,
            flow,
            wait,
            moving_sum(move, 5),
            moving_sum(move, 20),
            moving_sum(flow, 10),
            moving_sum(imbalance, 5) / ages,
        ]
    )


def ridge_forecasts(track: Track, begin: int, horizons: Sequence[int]) -> np.ndarray:
    """Fit on the ticks before `begin`, no target of which reaches beyond it, and forecast the rest."""
    x, price = ridge_features(track), np.log(track.price)
    found = np.empty((len(x) - begin, len(horizons)))
    for column, horizon in enumerate(horizons):
        end = begin - horizon
        mean, std = x[:end].mean(axis=0), x[:end].std(axis=0) + 1e-12
        z = np.column_stack([(x - mean) / std, np.ones(len(x))])
        y = price[horizon:begin] - price[:end]
        weights = np.linalg.solve(z[:end].T @ z[:end] + PENALTY * np.eye(z.shape[1]), z[:end].T @ y)
        found[:, column] = z[begin:] @ weights
    return found


class Sums:
    """Squares summed by block of time: arrays of shape (instruments, blocks, horizons)."""

    def __init__(self, times: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> None:
        start = min(int(ts[0]) for ts in times)
        self._blocks = [((ts - start) / (BLOCK_SECONDS * 1e9)).astype(int) for ts in times]
        self.count = 1 + max(int(blocks[-1]) for blocks in self._blocks)
        self._targets = targets
        self.moves = self._by_block([np.nan_to_num(target) ** 2 for target in targets])

    def errors(self, forecasts: Sequence[np.ndarray]) -> np.ndarray:
        pairs = zip(self._targets, forecasts, strict=True)
        return self._by_block([np.nan_to_num(target - forecast) ** 2 for target, forecast in pairs])

    def _by_block(self, values: Sequence[np.ndarray]) -> np.ndarray:
        found = np.zeros((len(values), self.count, values[0].shape[1]))
        for row, (blocks, value) in enumerate(zip(self._blocks, values, strict=True)):
            np.add.at(found[row], blocks, value)
        return found


def r2(errors: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Return R2 by instrument and horizon, of sums over the blocks in axis 1."""
    return 1 - errors.sum(axis=1) / moves.sum(axis=1)


def section(ticks: Path, minutes: float) -> str:
    """Train, judge, and write the section."""
    kept: list[Fold] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = train(
            read_ticks([ticks], in_order=False),
            TrainingOptions(minutes=minutes),
            Path(folder) / "bundle",
            keep=kept.append,
        )
    seconds = time.monotonic() - began
    fold, horizons = kept[-1], report.horizons
    model = fold.judged.forecasts(lambda split: split.test)
    reset = fold.reset.forecasts(lambda split: split.test)
    plain = collect(read_ticks([ticks], in_order=False), RIDGE_COLUMNS, resolve_rules(()))
    begins = {split.track.name: split.test.begin for split in fold.splits}
    ridge = {track.name: ridge_forecasts(track, begins[track.name], horizons) for track in plain.tracks}
    names = sorted(model)
    times = {split.track.name: split.track.ts[split.test.begin :] for split in fold.splits}
    sums = Sums([times[name] for name in names], [model[name][0] for name in names])
    errors = {
        "model": sums.errors([model[name][1] for name in names]),
        "ridge": sums.errors([ridge[name] for name in names]),
        "reset": sums.errors([reset[name][1] for name in names]),
    }
    score = {name: r2(error, sums.moves) for name, error in errors.items()}
    draws = np.random.default_rng(0).integers(0, sums.count, (DRAWS, sums.count))
    drawn = {name: np.stack([r2(error[:, at], sums.moves[:, at]) for at in draws]) for name, error in errors.items()}

    def error_of(name: str) -> np.ndarray:
        return (drawn["model"] - drawn[name]).mean(axis=1).std(axis=0)

    lines = [
        "| ticks ahead | R² of the model | ridge per instrument | difference | state reset every tick | difference |",
        "|---|---|---|---|---|---|",
    ]
    for at, horizon in enumerate(horizons):
        mean = {name: found[:, at].mean() for name, found in score.items()}
        cells = [f"{mean['model']:.3f}"]
        for name in ("ridge", "reset"):
            cells += [f"{mean[name]:.3f}", f"{mean['model'] - mean[name]:+.3f} ± {error_of(name)[at]:.3f}"]
        lines.append(f"| {horizon} | " + " | ".join(cells) + " |")
    chosen = [at for at, horizon in enumerate(horizons) if horizon >= 10]
    head = " | ".join(f"{horizons[at]} ahead: model, ridge, difference" for at in chosen)
    lines += [f"\n| instrument | {head} |", "|---|" + "---|" * len(chosen)]
    each = (drawn["model"] - drawn["ridge"]).std(axis=0)
    for row, name in enumerate(names):
        cells = []
        for at in chosen:
            ours, theirs = score["model"][row, at], score["ridge"][row, at]
            cells.append(f"{ours:.3f}, {theirs:.3f}, {ours - theirs:+.3f} ± {each[row, at]:.3f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    note = (
        f"\nMean R² against no change over {len(names)} instruments, on the last 30 % in time of"
        f" {report.tick_count:,} real ticks ({report.parts['test']:,}); default settings, {report.epochs} epochs"
        f" (ended by: {report.ended_by}), {seconds:.0f} s on {os.cpu_count()} cores with reading and judging. ± is the"
        f" standard error of a paired block bootstrap ({sums.count} blocks of {BLOCK_SECONDS:.0f} s: few). Measured"
        f" {machine()}; `python -m bench.training README.md --ticks FILE` measures it again.\n"
    )
    return "\n".join([note, *lines, "\n"])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("--ticks", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.0, help="for fitting; more on a machine that is shared")
    parser.add_argument("--print", action="store_true")
    options = parser.parse_args()
    text = section(options.ticks, options.minutes)
    if options.print:
        print(text)
    else:
        write_section(options.document, "training", text)


if __name__ == "__main__":
    main()
