"""Training from ticks to a bundle: collect, split, fit, measure, write. Nothing is written before all is done."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from daemon.boundaries import resolve_rules
from daemon.core.spec import Column, Output
from daemon.errors import SettingsError
from daemon.model.conversion import convert
from daemon.model.manifest import Manifest
from daemon.training.collect import collect
from daemon.training.dataset import columns_of, outputs_of, part_sizes, split_in_time, training_rows, volatility_of
from daemon.training.fit import EpochEnd, Fitted, fit
from daemon.training.judge import Judged, Validation, judge
from daemon.training.options import Listener, Progress, TrainingOptions, TrainingReport
from daemon.training.scores import mean_skill


def train(
    ticks: Iterable[Mapping[str, Any]], options: TrainingOptions, out: Path, progress: Listener | None = None
) -> TrainingReport:
    """Fit a model on ticks and write it as a bundle.

    Parameters
    ----------
    ticks : dicts with the keys of `Tick`, in order of time for each instrument
    out : folder of the bundle
    progress : told now and then where the run stands

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
    rules = resolve_rules(options.sessions)
    collected = collect(ticks, options.columns, rules, lambda count: tell(Progress("reading", count)))
    splits = split_in_time(collected, options.split, options.horizons)
    columns, outputs = columns_of(splits, options.columns), outputs_of(splits, options.horizons)

    from daemon.training.network import Network

    network = Network(len(columns), len(outputs), options.units, options.layers, options.seed)
    validation = Validation(network, splits, columns, outputs)

    def listen(end: EpochEnd) -> None:
        tell(Progress("training", collected.tick_count, end.done, end.epoch, end.loss, end.skill, end.seconds_left))

    fitted = fit(
        network,
        training_rows(splits, columns, outputs),
        validation.skill,
        epochs=options.epochs,
        seconds=None if options.minutes is None else options.minutes * 60,
        seed=options.seed,
        listen=listen,
    )
    tell(Progress("judging", collected.tick_count, done=1.0, epoch=fitted.epochs))
    judged = judge(network, splits, columns, outputs)
    manifest = _manifest(judged, columns, outputs, options, fitted)
    bundle = convert(network.plain_model(), manifest, out, replace=options.force)
    skills = judged.test_skills(outputs)
    return TrainingReport(
        bundle=out,
        bundle_id=bundle.id,
        tick_count=collected.tick_count,
        refused=dict(collected.refused),
        parts=part_sizes(splits),
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        ended_by=fitted.ended_by,
        seconds=time.monotonic() - began,
        horizons=options.horizons,
        skill=mean_skill(list(skills.values())),
        skill_by_instrument=skills,
    )


def _check_out(out: Path, *, force: bool) -> None:
    if out.exists() and not force:
        raise SettingsError(f"{out} exists; give another --out, or --force to replace it")
    if not out.absolute().parent.is_dir():
        raise SettingsError(f"{out}: its parent folder does not exist; create it first")


def _check_tensorflow() -> None:
    """Say that TensorFlow is missing before the ticks are read; importing it takes seconds and waits until then."""
    if find_spec("tensorflow") is None or find_spec("keras") is None:
        raise SettingsError("training needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`")


def _manifest(
    judged: Judged, columns: Sequence[Column], outputs: Sequence[Output], options: TrainingOptions, fitted: Fitted
) -> Manifest:
    splits = judged.splits
    first = min(int(split.track.ts[0]) for split in splits)
    last = max(int(split.track.ts[split.validation.end - 1]) for split in splits if split.validation.end)
    return Manifest(
        columns=tuple(columns),
        outputs=judged.outputs_with_residuals(outputs),
        volatility_prior=volatility_of(splits),
        validation_variance=judged.validation_variance(),
        trained_on={
            "instruments": [split.track.name for split in splits],
            "from": _iso(first),
            "to": _iso(last),
            "ticks": part_sizes(splits),
            "best_epoch": fitted.best_epoch,
            "seed": options.seed,
        },
    )


def _iso(ts: int) -> str:
    return datetime.fromtimestamp(ts / 1e9, UTC).isoformat(timespec="seconds")
