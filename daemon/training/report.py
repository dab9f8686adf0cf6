"""A training run as one HTML page beside its bundle; not part of the bundle's id."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from daemon import __version__
from daemon.judging import plots
from daemon.judging.page import Block, Column, Facts, Figure, Note, Pair, Section, Table, Text, interval, page, percent
from daemon.judging.statistics import Rows, coverage, mean_r2, r2, r2_difference, time_cells
from daemon.training.collect import F64, Collected
from daemon.training.dataset import PARTS, Split
from daemon.training.fold import Fold
from daemon.training.judge import Judged
from daemon.training.options import TrainingOptions

#: More bars side by side cannot be told apart; the table holds all instruments.
INSTRUMENTS_SHOWN = 12
#: Levels whose interval is looked up in the errors of the validation part.
INTERVAL = (0.05, 0.95)

WHAT_R2_MEANS = (
    "R² compares squared errors with those of “no change” on the test part: 0 % is no better than saying that the "
    "price stays. Every tick with a target counts. Intervals hold the truth in 95 of 100 cases; they know that "
    "forecasts of neighbouring ticks overlap."
)
WHAT_RIVALS_ARE = (
    "The ridge is one regression per instrument and horizon on the inputs that the model sees, fitted on all ticks "
    "before the test part. “Reset” is the same model with its state reset at every tick: what it lacks is what the "
    "ticks before are worth, carried in the state or seen in the window. “Drift” expects the mean move of the "
    "training part. Differences are paired: both forecasts stand on the same draws of a block bootstrap over time, "
    "all instruments at once."
)
WHAT_SPLITS_ARE = (
    "The parts follow each other in time, cut at the same moments for all instruments. A target counts only where it "
    "ends inside its own part and session, so the longest horizon lies between the parts (a purge; an embargo is not "
    "needed, since features look back and parts do not overlap). Scales and weights come from the training part, the "
    "epoch from the validation part; at the end two short epochs run over both."
)


def training_page(collected: Collected, folds: Sequence[Fold], options: TrainingOptions, title: str) -> str:
    """Return the page about a run."""
    last = folds[-1]
    moves = _Moves(last)
    sections = [
        Section("", [_facts(collected, last, options), *_warnings(moves, options)]),
        Section("Skill", _skill(moves, options)),
        Section("Against its rivals", _rivals(moves, options)),
        Section("Fitting", _fitting(last)),
        Section("Splits", _splits(folds, options)),
        Section("Left out", _left_out(collected, last, options)),
    ]
    footer = f"tickcast {__version__}; the same ticks, settings and machine give this page again"
    return page(title, _lead(moves, options), sections, footer=footer)


class _Moves:
    """Targets and forecasts on the test part, by instrument and horizon, ready for the statistics."""

    def __init__(self, fold: Fold) -> None:
        self._splits = {one.track.name: one for one in fold.splits if np.isfinite(one.test.target).any()}
        self.names = list(self._splits)
        self._model, self._reset, self._ridge = (
            judged.forecasts(lambda split: split.test) for judged in (fold.judged, fold.reset, fold.ridge)
        )
        self._outputs = fold.outputs
        self._judged: Judged = fold.judged
        ts = [self._ts(split) for split in self._splits.values()]
        self._span = (min(int(t[0]) for t in ts), max(int(t[-1]) for t in ts)) if ts else (0, 1)

    def of(self, name: str, column: int, who: str = "model") -> tuple[F64, F64]:
        """Return move and forecast."""
        if who == "drift":
            train = self._splits[name].train.target[:, column]
            known = train[np.isfinite(train)]
            move = self._model[name][0][:, column]
            return move, np.full_like(move, known.mean() if len(known) else 0.0)
        move, forecast = {"model": self._model, "reset": self._reset, "ridge": self._ridge}[who][name]
        return move[:, column], forecast[:, column]

    def rows(self, name: str, column: int, who: str = "model") -> Rows:
        """Return the same with its time cells."""
        return Rows(*self.of(name, column, who), time_cells(self._ts(self._splits[name]), *self._span))

    def bounds(self, name: str, column: int) -> tuple[F64, F64]:
        """Return the interval that the errors of the validation part give, in log return."""
        at = next(i for i, one in enumerate(self._judged.series) if one.split.track.name == name)
        one, output = self._judged.series[at], self._outputs[column]
        test = one.split.test
        unit = output.scale * one.volatility[test.begin : test.end]
        y = self._judged.y[at][test.begin : test.end, column]
        quantiles = dict(output.residual_quantiles)
        low, high = ((y + quantiles[level]) * unit for level in INTERVAL)
        return low, high

    @staticmethod
    def _ts(split: Split) -> NDArray[np.int64]:
        return split.track.ts[split.test.begin : split.test.end]


def _lead(moves: _Moves, options: TrainingOptions) -> str:
    found = []
    for column, horizon in enumerate(options.horizons):
        value = percent(mean_r2([moves.rows(name, column) for name in moves.names]).value, 1, sign=True)
        if value is not None:
            found.append(f"{value} % {_ahead(horizon)}")
    if not found:
        return "No price of the test part moved, so there is no R²."
    return f"Mean R² against no change on ticks never seen, over {len(moves.names)} instruments: {', '.join(found)}."


def _facts(collected: Collected, fold: Fold, options: TrainingOptions) -> Facts:
    ts = collected.times
    fitted = fold.fitted
    model = f"{options.layers} x {options.cell.upper()}({options.units}), loss {options.loss}, seed {options.seed}"
    mode = "state carried through a session" if options.window is None else f"windows of {options.window} ticks"
    return Facts(
        [
            (
                "ticks",
                f"{collected.tick_count:,} of {len(fold.splits)} instruments, {_clock(ts[0])} to {_clock(ts[-1])}",
            ),
            ("model", f"{model}, {mode}"),
            ("columns", ", ".join(options.columns)),
            ("fitting", f"{fitted.epochs} epochs, the best was {fitted.best_epoch}, ended by {fitted.ended_by}"),
        ]
    )


def _warnings(moves: _Moves, options: TrainingOptions) -> list[Block]:
    """Say what the reader must not overlook; each only where its whole interval says so."""
    found: list[Block] = []
    for column, horizon in enumerate(options.horizons):
        below = [name for name in moves.names if r2(*moves.of(name, column), horizon).below_zero]
        if below:
            found.append(Note(f"Worse than no change {_ahead(horizon)}: {', '.join(below)}.", "warning"))
    return found


def _skill(moves: _Moves, options: TrainingOptions) -> list[Block]:
    heads = [Column("instrument", number=False)]
    for horizon in options.horizons:
        heads += [Column(f"R² {horizon}", "%"), Column("95 %", "%")]
    rows = []
    for name in moves.names:
        row: list[str | None] = [name]
        for column, horizon in enumerate(options.horizons):
            found = r2(*moves.of(name, column), horizon)
            row += [percent(found.value, 1, sign=True), interval(found.low, found.high, 1)]
        rows.append(row)
    mean: list[str | None] = ["mean"]
    for column in range(len(options.horizons)):
        found = mean_r2([moves.rows(name, column) for name in moves.names])
        mean += [percent(found.value, 1, sign=True), interval(found.low, found.high, 1)]
    return [Text(WHAT_R2_MEANS), Table(heads, [*rows, mean], strong=[len(rows)]), *_coverage(moves, options)]


def _coverage(moves: _Moves, options: TrainingOptions) -> list[Block]:
    rows = []
    for column, horizon in enumerate(options.horizons):
        pairs = [(moves.of(name, column)[0], *moves.bounds(name, column)) for name in moves.names]
        if pairs:
            found = coverage(*(np.concatenate(part) for part in zip(*pairs, strict=True)))
            rows.append([str(horizon), *(percent(value, 1) for value in (found.inside, found.below, found.above))])
    heads = [Column("ticks ahead"), Column("inside", "%"), Column("below", "%"), Column("above", "%")]
    caption = (
        "Outcomes of the test part in the 90 % interval that the errors of the validation part give; the daemon starts "
        "from it and follows the outcomes from there."
    )
    return [Table(heads, rows, caption=caption)]


def _rivals(moves: _Moves, options: TrainingOptions) -> list[Block]:
    names = [f"{horizon}" for horizon in options.horizons]
    groups, rows = [], []
    labels = (("model", "model"), ("ridge", "ridge"), ("reset", "reset every tick"), ("drift", "drift"))
    means = {}
    for who, label in labels:
        found = [mean_r2([moves.rows(name, at, who) for name in moves.names]) for at in range(len(names))]
        means[who] = found
        if who != "drift":
            groups.append(plots.Bars(label, [e.value for e in found], [e.low for e in found], [e.high for e in found]))
    for at, horizon in enumerate(options.horizons):
        row: list[str | None] = [str(horizon), *(percent(means[who][at].value, 1, sign=True) for who, _ in labels)]
        for who in ("ridge", "reset"):
            pairs = [(moves.rows(name, at), moves.of(name, at, who)[1]) for name in moves.names]
            gap = r2_difference(pairs)
            row.append(interval(gap.low, gap.high, 1))
        rows.append(row)
    heads = [Column("ticks ahead"), *(Column(label, "%") for _, label in labels)]
    heads += [Column("model − ridge, 95 %", "%"), Column("model − reset, 95 %", "%")]
    drawn = plots.bars(names, groups, x="ticks ahead", y="mean R² against no change", level=0.0)
    return [Text(WHAT_RIVALS_ARE), Figure(drawn, "Whiskers are 95 % intervals."), Table(heads, rows)]


def _fitting(fold: Fold) -> list[Block]:
    curve = fold.fitted.curve
    epochs = np.arange(1, len(curve) + 1, dtype=np.float64)
    loss, skill = (np.array(values) for values in zip(*curve, strict=True))
    kept = f"The kept epoch is {fold.fitted.best_epoch}."
    return [
        Pair(
            [
                Figure(
                    plots.lines([plots.Line("loss", epochs, loss)], x="epoch", y="training loss", half=True),
                    "Loss on the training part, while it falls under the step.",
                ),
                Figure(
                    plots.lines(
                        [plots.Line("skill", epochs, skill)], x="epoch", y="validation R²", percent=True, half=True
                    ),
                    f"Mean R² on the validation part, of the averaged weights. {kept}",
                ),
            ]
        )
    ]


def _splits(folds: Sequence[Fold], options: TrainingOptions) -> list[Block]:
    rows = []
    for number, fold in enumerate(folds, start=1):
        for name in PARTS:
            parts = [(one.track.ts, getattr(one, name)) for one in fold.splits if len(getattr(one, name).target)]
            if parts:
                first = min(int(ts[part.begin]) for ts, part in parts)
                last = max(int(ts[part.end - 1]) for ts, part in parts)
                count = sum(len(part.target) for _, part in parts)
                rows.append([str(number), name, _clock(first), _clock(last), f"{count:,}"])
    heads = [Column("fold"), *(Column(name, number=False) for name in ("part", "from", "to")), Column("ticks")]
    return [Text(WHAT_SPLITS_ARE), Table(heads, rows)]


def _left_out(collected: Collected, fold: Fold, options: TrainingOptions) -> list[Block]:
    rows = [[f"{count:,}", f"ticks refused: {reason}"] for reason, count in collected.refused.most_common()]
    for column, horizon in enumerate(options.horizons):
        for name in PARTS:
            target = np.concatenate([getattr(one, name).target[:, column] for one in fold.splits])
            without = int(np.isnan(target).sum())
            if without:
                rows.append(
                    [f"{without:,}", f"of the {name} part: no tick {horizon} later in the same part and session"]
                )
    return [Table([Column("count"), Column("what", number=False)], rows)] if rows else [Text("Nothing.")]


def _ahead(horizon: int) -> str:
    return "at the next tick" if horizon == 1 else f"{horizon} ticks ahead"


def _clock(ts: int) -> str:
    return datetime.fromtimestamp(int(ts) / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
