"""One split in time from its parts to a judged network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from daemon.core.spec import Column, Output
from daemon.training.dataset import Split
from daemon.training.fit import EpochEnd, Fitted, fit, settle
from daemon.training.judge import Judged, Validation, judge, judge_reset
from daemon.training.options import Listener, Progress, TrainingOptions
from daemon.training.ridge import first_weights, fit_ridge, run_ridge
from daemon.training.scales import columns_of, outputs_of, running_volatility, volatility_of
from daemon.training.series import Series, series_of, training_rows

if TYPE_CHECKING:
    from daemon.training.network import Network


@dataclass(frozen=True)
class Fold:
    """A network fitted before a point in time and judged after it."""

    splits: Sequence[Split]
    columns: tuple[Column, ...]
    #: With the spread of the errors on the validation part.
    outputs: tuple[Output, ...]
    volatility_prior: float
    validation_variance: float
    network: Network
    fitted: Fitted
    #: The network, the network with its state reset at every tick, and a ridge per instrument on the same inputs.
    judged: Judged
    reset: Judged
    ridge: Judged


def fit_fold(
    splits: Sequence[Split], options: TrainingOptions, tick_count: int, number: tuple[int, int], tell: Listener
) -> Fold:
    """Fit a network on a split and judge it on the test part.

    Parameters
    ----------
    tick_count, number : for the listener: ticks read, and which fold of how many this is

    Raises
    ------
    KeyboardInterrupt : before the first epoch has ended
    """
    columns, prior = columns_of(splits, options.columns), volatility_of(splits)
    volatilities = [running_volatility(split.track, prior) for split in splits]
    outputs = outputs_of(splits, volatilities, options.horizons, options.more)
    series = series_of(splits, columns, volatilities)
    rows = training_rows(series, outputs)

    from daemon.training.network import Network

    of = [output.of for output in outputs]
    network = Network(len(columns), of, options.shape, options.seed, options.window)
    network.start_from(*first_weights(rows, of))

    def listen(end: EpochEnd) -> None:
        tell(Progress("training", tick_count, end.done, end.epoch, end.loss, end.skill, end.seconds_left, number))

    fitted = fit(
        network,
        rows,
        Validation(network, series, outputs).skill,
        epochs=options.epochs,
        patience=options.patience,
        seconds=None if options.minutes is None else options.minutes * 60 / options.folds,
        seed=options.seed,
        listen=listen,
    )
    tell(Progress("judging", tick_count, done=1.0, epoch=fitted.epochs, fold=number))
    # The spread of errors comes from rows that the network has not seen yet; then it sees them, too.
    held_out = judge(network, series, outputs)
    latest = training_rows([replace(one, split=one.split.settled()) for one in series], outputs)
    settle(network, latest, options.seed)
    return Fold(
        splits=splits,
        columns=columns,
        outputs=held_out.outputs_with_residuals(),
        volatility_prior=prior,
        validation_variance=held_out.validation_variance(),
        network=network,
        fitted=fitted,
        judged=judge(network, series, outputs),
        reset=judge_reset(network, series, outputs),
        ridge=_ridge(series, outputs),
    )


def _ridge(series: Sequence[Series], outputs: Sequence[Output]) -> Judged:
    """Fit a regression for each instrument on all its rows before the test part; without any it forecasts no change."""
    found = []
    for one in series:
        rows = training_rows([replace(one, split=one.split.settled())], outputs)
        y = run_ridge(one.x, *fit_ridge(rows)) if rows else np.zeros((len(one.x), len(outputs)))
        found.append(y.astype(np.float32))
    return Judged(series, outputs, found)
