"""Training from ticks to a bundle: collect, split, fit, measure, write. Nothing is written before all is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from daemon.boundaries import resolve_rules
from daemon.errors import SettingsError
from daemon.model.bundle import Bundle
from daemon.model.conversion import convert
from daemon.model.manifest import Manifest
from daemon.training.collect import Collected, collect
from daemon.training.dataset import part_sizes, split_in_time
from daemon.training.fold import Fold, fit_fold
from daemon.training.judge import Judged
from daemon.training.options import FoldReport, Listener, Progress, Skills, TrainingOptions, TrainingReport
from daemon.training.scores import mean_skill

#: The page about the run, in the bundle's folder; not part of the bundle's id.
PAGE = "report.html"


def train(
    ticks: Iterable[Mapping[str, Any] | bytes],
    options: TrainingOptions,
    out: Path,
    progress: Listener | None = None,
    keep: Callable[[Fold], None] = lambda fold: None,
) -> TrainingReport:
    """Fit a model on ticks and write it as a bundle, with a page about it beside it where the extra `report` is there.

    Parameters
    ----------
    ticks : dicts with the keys of `Tick`, or messages as on the topic; in order of time for each instrument
    out : folder of the bundle
    progress : told now and then where the run stands
    keep : given the last fold, for figures of one's own

    Raises
    ------
    SettingsError : an option does not fit, `out` exists, or TensorFlow is missing
    TickFileError : too few ticks, or ticks that nothing can be learned from
    KeyboardInterrupt : before the first epoch has ended; later ones end the fitting, and the best so far is written
    """
    began = time.monotonic()
    tell = progress or (lambda progress: None)
    _check_out(out, force=options.force)
    _check_tensorflow()
    collected = collect(
        ticks, options.columns, resolve_rules(options.sessions), lambda count: tell(Progress("reading", count))
    )
    folds = _walk_forward(collected, options, tell)
    last = folds[-1]
    keep(last)
    bundle = convert(last.network.plain_model(), _manifest(last, options), out, replace=options.force)
    by_instrument = last.judged.test_skills()
    return TrainingReport(
        bundle=out,
        bundle_id=bundle.id,
        tick_count=collected.tick_count,
        refused=dict(collected.refused),
        parts=part_sizes(last.splits),
        epochs=last.fitted.epochs,
        best_epoch=last.fitted.best_epoch,
        ended_by=last.fitted.ended_by,
        seconds=time.monotonic() - began,
        horizons=options.horizons,
        skill=_mean(last.judged),
        skill_reset_every_tick=_mean(last.reset),
        skill_ridge=_mean(last.ridge),
        skill_by_instrument=by_instrument,
        folds=tuple(map(_fold_report, folds)),
        page=_write_page(collected, folds, options, bundle),
    )


def _walk_forward(collected: Collected, options: TrainingOptions, tell: Listener) -> list[Fold]:
    """Fit fold after fold, each on all ticks before its test part; an interrupt makes its fold the last one.

    The test parts share out what follows `split`. All are cut and checked before the first is fitted.
    """
    shares = [options.split + (1 - options.split) * number / options.folds for number in range(options.folds + 1)]
    cut = [split_in_time(collected, share, options.horizons, until) for share, until in pairwise(shares)]
    folds: list[Fold] = []
    for splits in cut:
        folds.append(fit_fold(splits, options, collected.tick_count, (len(folds) + 1, len(cut)), tell))
        if folds[-1].fitted.ended_by == "interrupt":
            break
    return folds


def _write_page(collected: Collected, folds: Sequence[Fold], options: TrainingOptions, bundle: Bundle) -> Path | None:
    """Write the page about the run into the bundle's folder, where the extra `report` is installed."""
    if find_spec("jinja2") is None or find_spec("matplotlib") is None:
        return None
    from daemon.judging.page import write_page
    from daemon.training.report import training_page

    file = bundle.path / PAGE
    write_page(file, training_page(collected, folds, options, f"Training of {bundle.id}"))
    return file


def _check_out(out: Path, *, force: bool) -> None:
    if out.exists() and not force:
        raise SettingsError(f"{out} exists; give another --out, or --force to replace it")
    if not out.absolute().parent.is_dir():
        raise SettingsError(f"{out}: its parent folder does not exist; create it first")


def _check_tensorflow() -> None:
    """Say that TensorFlow is missing before the ticks are read; importing it takes seconds and waits until then."""
    if find_spec("tensorflow") is None or find_spec("keras") is None:
        raise SettingsError("training needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`")


def _manifest(fold: Fold, options: TrainingOptions) -> Manifest:
    splits = fold.splits
    first = min(int(split.track.ts[0]) for split in splits)
    last = max(int(split.track.ts[split.validation.end - 1]) for split in splits if split.validation.end)
    return Manifest(
        mode=options.mode,
        steps=options.window or 1,
        columns=fold.columns,
        outputs=fold.outputs,
        volatility_prior=fold.volatility_prior,
        validation_variance=fold.validation_variance,
        trained_on={
            "instruments": [split.track.name for split in splits],
            "from": _iso(first),
            "to": _iso(last),
            "ticks": part_sizes(splits),
            "best_epoch": fold.fitted.best_epoch,
            "seed": options.seed,
        },
    )


def _fold_report(fold: Fold) -> FoldReport:
    tests = [(split.track.ts, split.test) for split in fold.splits if len(split.test.target)]
    return FoldReport(
        begin=_iso(min(int(ts[part.begin]) for ts, part in tests)) if tests else None,
        end=_iso(max(int(ts[part.end - 1]) for ts, part in tests)) if tests else None,
        ticks=part_sizes(fold.splits)["test"],
        skill=_mean(fold.judged),
    )


def _mean(judged: Judged) -> Skills:
    return mean_skill(list(judged.test_skills().values()), sum(output.of == "mean" for output in judged.outputs))


def _iso(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1e9, UTC).isoformat(timespec="seconds")
