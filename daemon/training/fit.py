"""Fits the network epoch by epoch, judges it on the validation part, and keeps the best weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import TYPE_CHECKING, Any

import numpy as np

from daemon.core.step import F32
from daemon.training.options import EndedBy
from daemon.training.streams import CHUNK_TICKS, Chunk, Piece, SessionRows, chunks, shuffled, window_pieces, windows

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
#: Windows side by side, at least; and the rows of all of them, at most, which bounds memory.
WINDOWS_MIN = 64
WINDOW_ROWS_MAX = 2**15


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
    began = time.monotonic()
    best_skill, best_epoch, best_weights, epoch = -np.inf, 0, network.weights(), 0
    ended_by: EndedBy = "epochs"
    done = 0.0
    curve: list[tuple[float, float]] = []
    try:
        while done < 1.0:
            rate = LEARNING_RATE * (FINAL_SHARE + (1 - FINAL_SHARE) * (1 + cos(pi * done)) / 2)
            loss = _epoch(network, train, random, rate)
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
    for _ in range(SETTLE_EPOCHS):
        _epoch(network, rows, random, LEARNING_RATE * SETTLE_SHARE)


def stream_count(rows: int, window: int | None = None) -> int:
    """Return how many rows of the batch suit so many training ticks."""
    if window is not None:
        return min(max(rows // UPDATES_WANTED, WINDOWS_MIN), WINDOW_ROWS_MAX // window)
    return int(np.clip(rows // (CHUNK_TICKS * UPDATES_WANTED), STREAMS_MIN, STREAMS_MAX))


def _epoch(network: Network, train: Sequence[SessionRows], random: np.random.Generator, rate: float) -> float:
    streams = stream_count(sum(len(rows.x) for rows in train), network.window)
    states, losses, weights = network.zero_states(streams), [], []
    for chunk in shuffled(train, streams, network.window, random):
        loss, states = network.fit(chunk, states, rate)
        losses.append(loss)
        weights.append(float(chunk.weight.sum()))
    return float(np.average([float(loss) for loss in losses], weights=weights))


def run_through(network: Network, sequences: Sequence[F32], outputs: int) -> list[F32]:
    """Run whole sequences, each from the initial state; in window mode, each row's window from it.

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
    states: list[Any] | None = None
    for chunk in _in_order(rows, network.window):
        y, states = network.run(chunk, states or network.zero_states(len(chunk.source)))
        for row, piece in enumerate(chunk.source):
            if piece is not None:
                first = piece.begin if network.window is None else piece.end - 1
                found[piece.sequence][first : piece.end] = y[row, first - piece.begin : piece.end - piece.begin]
    return found


def _in_order(rows: Sequence[SessionRows], window: int | None) -> Iterator[Chunk]:
    if window is not None:
        pieces = window_pieces([len(one.x) for one in rows], window)
        return windows(rows, pieces, min(len(pieces), WINDOW_ROWS_MAX // window), window)
    # the longest first, so that the streams end at about the same time
    whole = sorted((Piece(at, 0, len(one.x)) for at, one in enumerate(rows)), key=lambda piece: -piece.end)
    return chunks(rows, whole, min(len(rows), STREAMS_MAX))
