"""Fits the network epoch by epoch, judges it on the validation part, and keeps the best weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import TYPE_CHECKING

import numpy as np

from daemon.core.step import F32
from daemon.training.options import EndedBy
from daemon.training.streams import CHUNK_TICKS, Piece, SessionRows, chunks, cut

if TYPE_CHECKING:
    from daemon.training.network import Network

#: Adam's step at the start; it falls along a cosine to FINAL_SHARE of this, which settles the noise of small batches.
LEARNING_RATE = 4e-3
FINAL_SHARE = 0.05
#: Epochs at the end with the validation part among the rows, and their rate as a share of the first.
SETTLE_EPOCHS = 2
SETTLE_SHARE = 0.1
#: Updates an epoch should have. Fewer rows side by side mean more of them, at more time per tick.
UPDATES_WANTED = 60
STREAMS_MIN, STREAMS_MAX = 8, 64


@dataclass(frozen=True)
class EpochEnd:
    """Where fitting stands after an epoch."""

    epoch: int
    loss: float
    #: On the validation part, mean over instruments and outputs; NaN where nothing moved.
    skill: float
    #: Share of the fitting done, and the seconds the rest will take.
    done: float
    seconds_left: float


@dataclass(frozen=True)
class Fitted:
    """How fitting went; the network holds the weights of `best_epoch`."""

    epochs: int
    best_epoch: int
    ended_by: EndedBy
    #: Loss and validation skill after each epoch.
    curve: tuple[tuple[float, float], ...]


def fit(
    network: Network,
    train: Sequence[SessionRows],
    validate: Callable[[], float],
    *,
    epochs: int,
    patience: int,
    seconds: float | None,
    seed: int,
    listen: Callable[[EpochEnd], None],
) -> Fitted:
    """Run epochs until they are used up, time is, or the validation skill no longer grows.

    Parameters
    ----------
    train : the training part; rows without a target have weight 0
    patience : epochs without a better validation skill before fitting ends
    validate : returns the skill of the network on the validation part
    seconds : time for fitting, None for no limit
    listen : called after each epoch

    Raises
    ------
    KeyboardInterrupt : only before the first epoch has ended; later ones end the fitting and keep the best weights
    """
    random = np.random.default_rng(seed)
    streams = stream_count(sum(len(rows.x) for rows in train))
    began = time.monotonic()
    best_skill, best_epoch, best_weights, epoch = -np.inf, 0, network.weights(), 0
    ended_by: EndedBy = "epochs"
    done = 0.0
    curve: list[tuple[float, float]] = []
    try:
        while done < 1.0:
            rate = LEARNING_RATE * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + cos(pi * done)) / 2)
            loss = _epoch(network, train, cut([len(rows.x) for rows in train], streams, random), streams, rate)
            epoch += 1
            found = validate()
            curve.append((loss, found))
            if found > best_skill or best_epoch == 0:
                best_skill, best_epoch, best_weights = found, epoch, network.weights()
            elapsed = time.monotonic() - began
            done = max(epoch / epochs, elapsed / seconds if seconds else 0.0)
            listen(EpochEnd(epoch, loss, found, min(done, 1.0), elapsed * max(1 / done - 1, 0.0)))
            if epoch - best_epoch >= patience:
                ended_by = "early stopping"
                break
        else:
            ended_by = "epochs" if epoch >= epochs else "time"
    except KeyboardInterrupt:
        if best_epoch == 0:
            raise
        ended_by = "interrupt"
    network.set_weights(best_weights)
    return Fitted(epoch, best_epoch, ended_by, tuple(curve))


def settle(network: Network, rows: Sequence[SessionRows], seed: int) -> None:
    """Go on for a few epochs at the lowest rate, on rows that now include the latest ones.

    What is learned ages: on real ticks a linear fit without the last seventh of its ticks lost a fortieth of its skill
    fifty ticks ahead. Nothing is chosen here, so nothing has to be held out.
    """
    random = np.random.default_rng(seed + 1)
    streams = stream_count(sum(len(one.x) for one in rows))
    for _ in range(SETTLE_EPOCHS):
        pieces = cut([len(one.x) for one in rows], streams, random)
        _epoch(network, rows, pieces, streams, LEARNING_RATE * SETTLE_SHARE)


def stream_count(rows: int) -> int:
    """Return how many rows of the batch suit so many training ticks."""
    return int(np.clip(rows // (CHUNK_TICKS * UPDATES_WANTED), STREAMS_MIN, STREAMS_MAX))


def _epoch(network: Network, train: Sequence[SessionRows], pieces: Sequence[Piece], streams: int, rate: float) -> float:
    states, losses, weights = network.zero_states(streams), [], []
    for chunk in chunks(train, pieces, streams):
        loss, states = network.fit(chunk, states, rate)
        losses.append(loss)
        weights.append(float(chunk.weight.sum()))
    return float(np.average([float(loss) for loss in losses], weights=weights))


def run_through(network: Network, sequences: Sequence[F32], outputs: int) -> list[F32]:
    """Run whole sequences, each from the initial state.

    Parameters
    ----------
    sequences : float32 arrays, shape (ticks, features), scaled
    outputs : columns of the network's output

    Returns
    -------
    float32 arrays, shape (ticks, outputs), one for each sequence
    """
    found = [np.zeros((len(x), outputs), np.float32) for x in sequences]
    rows = [SessionRows(x, blank, blank) for x, blank in zip(sequences, found, strict=True)]
    # the longest first, so that the streams end at about the same time
    whole = sorted((Piece(at, 0, len(x)) for at, x in enumerate(sequences)), key=lambda piece: -piece.end)
    streams = min(len(sequences), STREAMS_MAX)
    states = network.zero_states(streams)
    for chunk in chunks(rows, whole, streams):
        y, states = network.run(chunk, states)
        for row, piece in enumerate(chunk.source):
            if piece is not None:
                found[piece.sequence][piece.begin : piece.end] = y[row, : piece.end - piece.begin]
    return found
