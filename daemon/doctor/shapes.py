"""Findings on shapes: inputs that a model cannot mean, and targets that a loss would compare with the wrong answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.doctor.finding import Check, Clear, Measurement, Outcome, judge, register
from daemon.doctor.samples import Samples

INPUT_SHAPE = register(
    Check(
        code="input_shape",
        of=("model",),
        severity="problem",
        title="X does not have the shape that the model reads",
        measures="dimensions of X that are not those of the model's input (batch, time, features)",
        limit=0,
        form="count",
        remedy="give X the shape (samples, steps, features)",
    )
)
WELDED_BATCH = register(
    Check(
        code="welded_batch",
        of=("model",),
        severity="warning",
        title="a batch size is welded into the model",
        measures="rows that every call must have",
        limit=1,
        form="count",
        remedy="`tickcast convert --stateless` writes the same weights without it; no training is needed again",
    )
)
TARGET_SHAPE = register(
    Check(
        code="target_shape",
        of=("model",),
        severity="problem",
        title="y does not have the shape of the model's answers",
        measures="dimensions of y that fit no dimension of the answers",
        limit=0,
        form="count",
        remedy="give y the shape (samples, outputs)",
    )
)
TARGET_BROADCASTS = register(
    Check(
        code="target_broadcasts",
        of=("model",),
        severity="problem",
        title="y broadcasts against the answers: the loss compares each target with other samples' or steps' answers",
        measures="differences that a mean squared error would average, for each that it should",
        limit=1,
        form="count",
        remedy="give y the shape of the answers",
    )
)

#: Samples whose losses are compared.
SAMPLES = 256


def examine_input(samples: Samples, model_shape: Sequence[int | None]) -> Iterator[Outcome]:
    """Hold the shape of X against the model's input.

    Parameters
    ----------
    model_shape : (batch, time, features) or (batch, features); None where any size fits
    """
    found, remedy = input_misfit(samples.shape, model_shape)
    detail = f"X is {samples.shape}, the model reads {shape_text(model_shape)}"
    yield judge(INPUT_SHAPE, [Measurement(found, column="X", detail=detail)], remedy=remedy)
    batch = model_shape[0] or 1
    rest = len(samples) % batch
    left = f"; the last {rest} of {len(samples)} samples fill no batch" if rest else ""
    yield judge(WELDED_BATCH, [Measurement(batch, detail=f"predicting one row needs {batch - 1} more{left}")])


def input_misfit(shape: Sequence[int], model_shape: Sequence[int | None]) -> tuple[int, str | None]:
    """Return how many dimensions do not fit, and what would make them fit."""
    wanted = list(model_shape[1:])
    given = list(shape[1:])
    if len(given) == len(wanted):
        wrong = [at for at, (have, want) in enumerate(zip(given, wanted, strict=True)) if want not in (None, have)]
        if not wrong:
            return 0, None
        if len(given) == 2 and _fits(given[::-1], wanted):
            return len(
                wrong
            ), f"time and features are swapped: X = X.transpose(0, 2, 1), not a reshape; {_spelled(wanted)}"
        return len(wrong), _spelled(wanted, given)
    if len(wanted) == 2 and len(given) == 1:
        return 1, _lift(given[0], *wanted)
    return max(abs(len(given) - len(wanted)), 1), _spelled(wanted)


def examine_target(y: NDArray[Any], answer: NDArray[np.float32], loss_of_keras: float | None) -> Iterator[Outcome]:
    """Hold the shape of y against the model's answers to the same samples.

    Parameters
    ----------
    y, answer : as they come, for at most SAMPLES samples
    loss_of_keras : what Keras' mean squared error makes of the two
    """
    pair = aligned(y, answer)
    if pair is None:
        detail = f"y is {_any(y)}, the answers are {_any(answer)}"
        remedy = f"give y the shape {_any(answer)}, or the head as many outputs as y has"
        yield judge(TARGET_SHAPE, [Measurement(1, column="y", detail=detail)], remedy=remedy)
        return
    yield judge(TARGET_SHAPE, [Measurement(0)])
    right = float(np.mean((pair[0] - pair[1]) ** 2))
    times, wrong = _broadcast(y, answer)
    if times <= 1:
        yield judge(TARGET_BROADCASTS, [Measurement(1)])
        return
    by_keras = loss_of_keras is not None and not np.isclose(loss_of_keras, right, rtol=1e-3)
    detail = f"y {_any(y)} against {_any(answer)}: loss {wrong:.4g} instead of {right:.4g}"
    if by_keras:
        remedy = (
            "the head answers every step: set return_sequences=False on the last recurrent layer, or give y a step "
        )
        remedy += "dimension"
        detail += f"; Keras' own loss says {loss_of_keras:.4g}"
    else:
        remedy = "y = y[..., None]: Keras' own fit adds the dimension, numpy, a loss or a loop of your own do not"
    measured = Measurement(times, column="y", detail=detail)
    yield judge(TARGET_BROADCASTS, [measured], remedy=remedy, severity="problem" if by_keras else "warning")


def aligned(y: NDArray[Any], answer: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]] | None:
    """Return target and answer in one shape, at the last step where the target has no steps; None if there is none."""
    if y.shape == answer.shape:
        return y, answer
    if y.ndim == answer.ndim - 1 and y.shape == answer.shape[:-1] and answer.shape[-1] == 1:
        return y[..., None], answer
    if y.ndim == answer.ndim + 1 and y.shape[-1] == 1 and y.shape[:-1] == answer.shape:
        return y[..., 0], answer
    if answer.ndim == 3 and y.ndim <= 2:
        return aligned(y, answer[:, -1])
    return None


def shape_text(shape: Sequence[int | None]) -> str:
    """Return a shape with words for what any size fits."""
    names = ("batch", "time", "features") if len(shape) == 3 else ("batch", "features")
    parts = [name if size is None else f"{name} {size}" for name, size in zip(names, shape, strict=False)]
    return f"({', '.join(parts)})"


def passes(outcome: Outcome) -> bool:
    """Tell whether a shape was found right."""
    return isinstance(outcome, Clear)


def _broadcast(y: NDArray[Any], answer: NDArray[np.float32]) -> tuple[int, float]:
    """Return how many differences stand for each true one, and the loss over them."""
    if y.shape == answer.shape:
        return 1, float("nan")
    if answer.ndim == 3 and y.ndim <= 2 and y.shape != answer.shape[:-1]:
        y = y.reshape(len(y), 1, -1)  # as Keras does
    try:
        difference = y - answer
    except ValueError:  # an error where numpy meets it, and Keras adds the dimension
        return 1, float("nan")
    pair = aligned(y if y.ndim < 3 else y[:, 0], answer)
    size = pair[0].size if pair is not None else answer.size
    return max(difference.size // size, 1), float(np.mean(difference**2))


def _fits(given: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return all(want in (None, have) for have, want in zip(given, wanted, strict=True))


def _spelled(wanted: Sequence[int | None], given: Sequence[int] = ()) -> str:
    text = f"the right shape is {shape_text((None, *wanted)).replace('batch', 'samples')}"
    if len(wanted) == 2 and len(given) == 2 and wanted[1] not in (None, given[1]):
        text += f": X has {given[1]} features, the model was built for {wanted[1]}"
    elif len(wanted) == 2 and len(given) == 2:
        text += f": cut windows of {wanted[0]} steps"
    return text


def _lift(width: int, steps: int | None, features: int | None) -> str:
    """Say how a two-dimensional X becomes three-dimensional."""
    if features == 1 and steps in (None, width):
        return f"the feature dimension is missing: X = X[..., None] makes (samples, {width}, 1)"
    if steps and features and width == steps * features and steps > 1:
        return f"X = X.reshape(-1, {steps}, {features}), if the {features} values of a step lie side by side"
    if features in (None, width) and steps in (None, 1):
        return f"the time dimension is missing: X = X[:, None, :] makes (samples, 1, {width})"
    if features in (None, width):
        return (
            f"the time dimension is missing: np.lib.stride_tricks.sliding_window_view(X, {steps}, axis=0)"
            f".transpose(0, 2, 1) makes (samples, {steps}, {width})"
        )
    return _spelled([steps, features])


def _any(array: NDArray[Any]) -> str:
    """Return a shape without the number of samples."""
    rest = ", ".join(str(size) for size in array.shape[1:])
    return f"(n, {rest})" if rest else "(n,)"
