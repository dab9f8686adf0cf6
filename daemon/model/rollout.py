"""Roll-outs: a model that forecasts one tick ahead, fed with its own forecasts to look further.

A copy of the state goes forward, tick by tick; the live state is the one after the real tick and nothing else. What
each input will be is said beforehand: an output of the model, its present value, or a constant. An input of which
nobody can say it has no roll-out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from daemon.core.spec import Column, Output, OutputKind
from daemon.core.step import F32, Step, Waves
from daemon.model.grid import one_wave

#: How an input goes on: "output:K" of the model, "hold", or a constant in the feature's own unit.
Future = str | float

#: What an input must be to be an output of a kind: its name, and the transform that gives it of a price or a field.
_UNITS = {"price": ("price", ""), "log_return": ("return", "return"), "difference": ("change", "diff")}
HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a one-tick model looks further ahead.

    `future` has one entry per input column, or none where every horizon is 1.
    """

    future: tuple[Future, ...]
    #: Ticks ahead, strictly increasing.
    horizons: tuple[int, ...]


class RolloutStep:
    """A `daemon.core.step.Step` whose outputs are those of another at every horizon, rolled out on a copy of its state.

    Outputs stand horizon by horizon, in each the published columns in order: of kind "price" the value at that tick, of
    the others, which are changes from tick to tick, the sum up to it. A row whose model breaks on the way has NaN.

    Parameters
    ----------
    inner : the model, one tick ahead; its state is the state
    columns, outputs : what its inputs and outputs mean
    rollout : the future of the inputs and the horizons
    published : which outputs to return; the others only feed inputs

    Raises
    ------
    ValueError : names the input whose future cannot be known
    """

    def __init__(
        self,
        inner: Step,
        columns: Sequence[Column],
        outputs: Sequence[Output],
        rollout: Rollout,
        published: Sequence[int],
    ) -> None:
        check_rollout(columns, outputs, rollout, published)
        self.inner = inner
        self.n_features, self.state_size = inner.n_features, inner.state_size
        self.tile_rows, self.initial_state = inner.tile_rows, inner.initial_state
        self.n_outputs = len(rollout.horizons) * len(published)
        self._horizons = rollout.horizons
        self._published = list(published)
        self._sums = np.array([outputs[index].kind != "price" for index in published])
        self._inputs = _Inputs(columns, outputs, rollout.future) if rollout.horizons[-1] > 1 else None

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Advance each row by one tick; see `daemon.core.step.Step`."""
        y, after, _ = self.scan(x, state, one_wave(len(x)))
        return y, after

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        """Advance whole chains; see `daemon.core.step.Step`."""
        ends = len(waves.final)
        after_rows = np.arange(len(x))
        if self._inputs is None:
            after_rows = after_rows[:0]
        wanted = Waves(waves.bounds, np.concatenate([waves.final, after_rows]))
        y, states, finite = self.inner.scan(x, start, wanted)
        with np.errstate(all="ignore"):
            ahead = self._roll(x, y, states[ends:])
        ahead[~finite] = np.nan
        finite = finite & np.isfinite(ahead).all(axis=1)
        return ahead, states[:ends], finite

    def _roll(self, x: F32, y: F32, state: F32) -> F32:
        """Return the outputs at all horizons; `state` is a copy of the rows' states, and ends here."""
        total = np.zeros((len(y), len(self._published)))
        found = []
        for ahead in range(1, self._horizons[-1] + 1):
            if ahead > 1 and self._inputs is not None:
                x = self._inputs.next(x, y)
                y, state = self.inner.step(x, state)
            value = y[:, self._published].astype(np.float64)
            total = np.where(self._sums, total + value, value)
            if ahead in self._horizons:
                found.append(total)
        return np.concatenate(found, axis=1).astype(np.float32)


class _Inputs:
    """Makes the inputs of the next tick from the inputs and outputs of this one, in the float64 of features."""

    def __init__(self, columns: Sequence[Column], outputs: Sequence[Output], future: Sequence[Future]) -> None:
        self._fed = [index for index, each in enumerate(future) if output_of(each) is not None]
        self._from = [at for each in future if (at := output_of(each)) is not None]
        self._mean = np.array([outputs[at].mean for at in self._from])
        self._scale = np.array([outputs[at].scale for at in self._from])
        self._offset = np.array([columns[index].mean for index in self._fed])
        self._std = np.array([columns[index].std for index in self._fed])
        self._fixed = [index for index, each in enumerate(future) if isinstance(each, float)]
        self._constants = np.array(
            [(float(future[index]) - columns[index].mean) / columns[index].std for index in self._fixed]
        ).astype(np.float32)

    def next(self, x: F32, y: F32) -> F32:
        """Return the next inputs; the arguments are not modified."""
        ahead = x.copy()
        ahead[:, self._fixed] = self._constants
        values = self._mean + self._scale * y[:, self._from].astype(np.float64)
        ahead[:, self._fed] = ((values - self._offset) / self._std).astype(np.float32)
        return ahead


def rolled_outputs(outputs: Sequence[Output], rollout: Rollout, published: Sequence[int]) -> tuple[Output, ...]:
    """Return what the outputs of a `RolloutStep` mean: a sum of h outputs has h times their mean."""
    if not rollout.future:
        return tuple(outputs[index] for index in published)
    return tuple(_ahead(outputs[index], horizon) for horizon in rollout.horizons for index in published)


def check_rollout(
    columns: Sequence[Column], outputs: Sequence[Output], rollout: Rollout, published: Sequence[int]
) -> None:
    """Refuse a roll-out that cannot be.

    Raises
    ------
    ValueError : names the input or output, what was found and what is allowed
    """
    if not published or any(not 0 <= index < len(outputs) for index in published):
        raise ValueError("no output is published; leave publish = false away from one")
    if rollout.horizons == (1,) and not rollout.future:
        return
    if len(rollout.future) != len(columns):
        raise ValueError(f"future tells of {len(rollout.future)} inputs, the model has {len(columns)}")
    for index, output in enumerate(outputs):
        _check_output(index, output, index in published)
    for column, future in zip(columns, rollout.future, strict=True):
        _check_input(column, future, outputs)


def output_of(future: Future) -> int | None:
    """Return K of "output:K", None for another future."""
    head, _, number = future.partition(":") if isinstance(future, str) else ("", "", "")
    return int(number) if head == "output" and number.isascii() and number.isdecimal() else None


def _check_output(index: int, output: Output, published: bool) -> None:
    if output.horizon != 1:
        raise ValueError(
            f"output {index}: a roll-out goes tick by tick, so its horizon must be 1, not {output.horizon}"
        )
    if output.volatile:
        raise ValueError(f"output {index}: its unit is the running volatility, which a roll-out does not know ahead")
    if published and output.of != "mean":
        raise ValueError(f"output {index}: {output.of!r} of one tick cannot be rolled out; give it publish = false")


def _check_input(column: Column, future: Future, outputs: Sequence[Output]) -> None:
    name, index = column.feature, output_of(future)
    if isinstance(future, str) and index is None and future != HOLD:
        raise ValueError(f'input {name}: future {future!r} is none of "output:K", "hold" or a number')
    if column.scale != "frozen" and future != HOLD:
        raise ValueError(f'input {name}: its running scale is not known ahead; give it a frozen scale, or "hold"')
    if index is None:
        return
    if index >= len(outputs):
        raise ValueError(f"input {name}: future names output {index}, the model has {len(outputs)}, counted from 0")
    kind = outputs[index].kind
    if not _has_unit(name, kind):
        raise ValueError(
            f"input {name}: output {index} is a {kind}, which can be the future of {_UNITS[kind][0]} or of a field; "
            'take another output, "hold" or a number'
        )


def _has_unit(feature: str, kind: OutputKind) -> bool:
    """Tell whether a feature has the unit of a kind; fields are the producer's own, and so is what they mean."""
    name, transform = _UNITS[kind]
    head, _, inner = feature.partition(":")
    return (
        feature == name or head == "field" or (head == transform and (inner == "price" or inner.startswith("field:")))
    )


def _ahead(output: Output, horizon: int) -> Output:
    if horizon == 1:
        return output
    mean = output.mean if output.kind == "price" else horizon * output.mean
    return replace(output, horizon=horizon, mean=mean, residual_variance=None, residual_quantiles=())
