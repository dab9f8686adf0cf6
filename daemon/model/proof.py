"""The proof of a conversion: the step against the original Keras model, called as its user calls it.

1,000 windows, or 1,000 steps, in the mode chosen. Every sequence begins from a reset: a stateful original is reset
before each, and its own fixed batch and time are kept to. A failed proof writes nothing.

- *window*: 1,000 windows that move by one tick, each asked for from a reset.
- *carried*, stateful original: 1,000 steps in calls of its own length, its own state going from call to call.
- *carried*, any other original: sequences from a reset, as long as the original takes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from daemon.core.step import F32, Step, Waves
from daemon.errors import BundleError
from daemon.model.facts import Facts
from daemon.model.keras_graph import Graph
from daemon.model.keras_rules import first_line
from daemon.model.keras_states import states_kept
from daemon.model.selftest import TOLERANCE
from daemon.model.window_step import WindowStep

#: Windows or steps that are compared.
COUNT = 1000
#: Windows that one call of a model without a fixed batch gets.
CALL_ROWS = 250
#: Ticks that one call of a stateful model without a fixed time gets.
CALL_TICKS = 50


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared, and the largest |step - Keras| / max(1, |Keras|); NaN where either gives one."""

    count: int
    what: str
    difference: float
    answers: int

    def __str__(self) -> str:
        return (
            f"proof: {self.count:,} {self.what} against the original model, largest difference {self.difference:.1e} "
            f"of {TOLERANCE:.0e} allowed, over {self.answers:,} answers"
        )


class Original:
    """A Keras model as it was built: its own batch, its own time, its own inputs and states."""

    def __init__(self, graph: Graph, facts: Facts, initial_state: F32 | None) -> None:
        self._model, self._facts = graph.model, facts
        self._variables = [
            variable
            for call in graph.calls
            if call.cell is not None and call.layer.stateful
            for variable in keras.tree.flatten(call.layer.states)
        ]
        self._reset_to = self._starts(initial_state)

    def windows(self, windows: F32) -> F32:
        """Answer windows, shape (windows, time, features), each from a reset; shape (windows, time or 1, outputs)."""
        rows = self._facts.batch or min(CALL_ROWS, len(windows))
        found = []
        for low in range(0, len(windows), rows):
            part = windows[low : low + rows]
            full = np.concatenate([part, np.repeat(part[-1:], rows - len(part), axis=0)])
            self._reset()
            found.append(self._ask(full)[: len(part)])
        return np.concatenate(found)

    def carry(self, sequences: F32, ticks: int) -> tuple[F32, list[int]]:
        """Move the model's own state over sequences in calls of so many ticks; return answers and their ticks."""
        self._reset()
        answers = [self._ask(sequences[:, low : low + ticks]) for low in range(0, sequences.shape[1], ticks)]
        last_only = answers[0].shape[1] < ticks
        at = range(ticks - 1, sequences.shape[1], ticks) if last_only else range(sequences.shape[1])
        return np.concatenate(answers, axis=1), list(at)

    def _ask(self, x: F32) -> F32:
        """Ask for sequences, or for their last ticks where the model has no time; a graph's model has one input."""
        inputs = x if len(self._model.inputs[0].shape) == 3 else x[:, -1]
        y = np.asarray(self._call(inputs), np.float32)
        return y if y.ndim == 3 else y[:, np.newaxis]

    def _call(self, inputs: Any) -> Any:
        try:
            return self._model.predict_on_batch(inputs)
        except Exception:  # noqa: S110 - whatever a compiled call raises; TimeDistributed of Keras 3.15 fails in some
            pass
        try:
            return self._model(inputs, training=False)
        except Exception as error:  # whatever the model's layers raise
            raise BundleError(f"model {self._facts.name} fails when it is called: {first_line(error)}") from error

    def _reset(self) -> None:
        for variable, value in zip(self._variables, self._reset_to, strict=True):
            variable.assign(value)

    def _starts(self, initial_state: F32 | None) -> list[F32]:
        if initial_state is None:
            return [np.zeros(variable.shape, np.float32) for variable in self._variables]
        edges = np.cumsum([variable.shape[-1] for variable in self._variables])[:-1]
        parts = np.split(initial_state, edges)
        return [np.tile(part, (variable.shape[0], 1)) for variable, part in zip(self._variables, parts, strict=True)]


def keeps_all_states(facts: Facts) -> bool:
    """Tell whether every recurrent layer of the original keeps its state, and so can be given one to start from."""
    return 0 < len(facts.stateful) == facts.recurrent_count


def prove(graph: Graph, facts: Facts, step: Step, draw: Callable[[int], F32], initial_state: F32 | None) -> Proof:
    """Compare a step with the original model.

    Parameters
    ----------
    step : the converted model in the mode chosen, from `initial_state`
    draw : returns so many rows of inputs, float32 of shape (rows, n_features)
    initial_state : what the original starts from, None for zeros

    Raises
    ------
    BundleError : with the figure, where it is beyond `TOLERANCE`; or the model's weights changed
    """
    original = Original(graph, facts, initial_state)
    before = weights_digest(graph.model)
    with states_kept(graph.model):
        proof = (_windows if isinstance(step, WindowStep) else _carried)(original, facts, step, draw)
    if weights_digest(graph.model) != before:
        raise BundleError(
            f"model {facts.name}: its weights changed while it was asked; a layer trains when it is called"
        )
    if not proof.difference <= TOLERANCE:
        raise BundleError(
            f"model {facts.name} cannot stream: over {proof.count:,} {proof.what} the converted step differs by "
            f"{proof.difference:.2e} from the model's own answers, allowed is {TOLERANCE:.0e}"
        )
    return proof


def weights_digest(model: Any) -> str:
    """Return a hash over all weights of a model."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _windows(original: Original, facts: Facts, step: Step, draw: Callable[[int], F32]) -> Proof:
    assert isinstance(step, WindowStep)
    x = draw(COUNT + step.steps - 1)
    windows = np.lib.stride_tricks.sliding_window_view(x, step.steps, axis=0).swapaxes(1, 2)
    expected = original.windows(np.ascontiguousarray(windows))[:, -1]
    found = _run(step, x[np.newaxis])[0, step.steps - 1 :]
    return Proof(COUNT, f"windows of {step.steps} ticks", _difference(found, expected), len(expected))


def _carried(original: Original, facts: Facts, step: Step, draw: Callable[[int], F32]) -> Proof:
    if keeps_all_states(facts):
        ticks = facts.steps or CALL_TICKS
        count = -(-COUNT // ticks) * ticks
        x = _sequences(draw, facts.batch or 1, count)
        expected, at = original.carry(x, ticks)
        found = _run(step, x)[:, at]
        return Proof(count, "carried steps", _difference(found, expected), expected[..., 0].size)
    worst, answers = 0.0, 0
    for length in _lengths(facts):
        x = _sequences(draw, -(-COUNT // length), length)
        expected = original.windows(x)
        found = _run(step, x)[:, -expected.shape[1] :]
        worst = float(np.maximum(worst, _difference(found, expected)))  # a NaN stays
        answers += expected[..., 0].size
    return Proof(COUNT, "carried steps", worst, answers)


def _lengths(facts: Facts) -> Sequence[int]:
    """Return the lengths of sequences to ask a stateless model: its own, or one long and many short."""
    return [facts.steps] if facts.steps else [COUNT, 10]


def _sequences(draw: Callable[[int], F32], count: int, ticks: int) -> F32:
    x = draw(count * ticks)
    return x.reshape(count, ticks, x.shape[1])


def _run(step: Step, sequences: F32) -> F32:
    """Run sequences from a reset, shape (sequences, ticks, features) to (sequences, ticks, outputs)."""
    count, ticks, _ = sequences.shape
    rows = count * ticks
    x = np.ascontiguousarray(sequences.swapaxes(0, 1)).reshape(rows, -1)
    waves = Waves(tuple(range(0, rows + 1, count)), np.arange(rows - count, rows))
    y, _, _ = step.scan(x, np.repeat(step.initial_state[np.newaxis], count, axis=0), waves)
    return y.reshape(ticks, count, -1).swapaxes(0, 1)


def _difference(found: F32, expected: F32) -> float:
    return float(np.max(np.abs(found - expected) / np.maximum(1, np.abs(expected))))
