"""The four ways to serve one Keras model: as it is, reset before each call without a lock and with one, converted.

A request is a window, and its answer the first row of every output, as one line of float64.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32, Step
from daemon.errors import BundleError
from daemon.model.numpy_step import NumpyStep
from daemon.model.program import Program

#: Ticks of a window where the model leaves their number open.
OPEN_STEPS = 10
#: In standard deviations of fresh answers; float32 rounds at 1e-7.
LEAK_ALLOWED = 1e-6
_BOLD = re.compile(r"\x1b\[\d*m")

Answer = NDArray[np.float64]
Ask = Callable[[F32], Answer]


@dataclass(frozen=True)
class Way:
    """One way to serve.

    Parameters
    ----------
    ask : the function that the tests call, from several threads at once
    timed : the functions whose calls are timed, by name
    begin : brings back the state of a fresh start
    leak_allowed : the largest leak that counts as none, in standard deviations
    """

    ask: Ask
    timed: Mapping[str, Ask]
    begin: Callable[[], None]
    leak_allowed: float = LEAK_ALLOWED


class ServedModel:
    """A Keras model, and how a service calls it.

    Raises
    ------
    BundleError : if it is no model of one input; on a call, if the model fails on its input
    """

    def __init__(self, model: Any) -> None:
        from daemon.model import keras_states

        self._model = model
        #: Shape of one request, without the batch, and the rows of the batch it is sent in.
        self.shape, self.rows = _request(model)
        #: Mean and standard deviation of inputs as the model expects them; None where no Normalization says so.
        self.scale = _own_scale(model)
        self.stateful_layers = tuple(str(layer.name) for layer in keras_states.stateful_layers(model))
        self.reset: Callable[[], None] = partial(keras_states.reset_states, model)
        #: Gives the model back with the states it came with.
        self.states_kept: Callable[[], AbstractContextManager[None]] = partial(keras_states.states_kept, model)

    def ways(self) -> dict[str, Way]:
        """Return the ways to serve the model itself."""
        return {
            "as_is": self._way(lambda ask: ask),
            "reset_unlocked": self._way(partial(self._reset_first, nullcontext())),
            "reset": self._way(partial(self._reset_first, threading.Lock())),
        }

    def fresh(self, x: F32) -> Answer:
        """Return the answer from a state just reset."""
        self.reset()
        return self.ask(x)

    def ask(self, x: F32) -> Answer:
        """Call the compiled function that `predict` runs too, without the loop that `predict` builds around it."""
        return self._answer(self._model.predict_on_batch, x)

    def warm_up(self, x: F32) -> None:
        """Call each function once: the first call compiles, and would stand out among the latencies.

        The plain call comes first, whose errors name the layer; those of a compiled function begin with its graph.
        """
        for ask in (self._call, self.ask, self._predict):
            ask(x)

    def _way(self, wrapped: Callable[[Ask], Ask]) -> Way:
        timed = {"predict": wrapped(self._predict), "model(x)": wrapped(self._call)}
        return Way(wrapped(self.ask), timed, self.reset)

    def _reset_first(self, lock: AbstractContextManager[Any], ask: Ask) -> Ask:
        def reset_and_ask(x: F32) -> Answer:
            with lock:
                self.reset()
                return ask(x)

        return reset_and_ask

    def _predict(self, x: F32) -> Answer:
        return self._answer(partial(self._model.predict, batch_size=self.rows, verbose=0), x)

    def _call(self, x: F32) -> Answer:
        return self._answer(partial(self._model, training=False), x)

    def _answer(self, function: Callable[[F32], Any], x: F32) -> Answer:
        try:
            return _first_row(function(np.repeat(x[np.newaxis], self.rows, axis=0)))
        except Exception as error:  # whatever layers and TensorFlow raise
            raise BundleError(
                f"model {self._model.name} fails on normal inputs of shape {self.shape}: {_said(error)}"
            ) from error


class ServedStep:
    """A converted step, shared by all requests as the instruments share it in the daemon.

    One tick at a time, each with the state of its own request, the ticks of different requests in any order. The lock
    stands for the daemon's one thread: `NumpyStep` reuses its buffers, and 50 threads inside it at once do get wrong
    answers. It holds for one tick, not for a request, so that a step which kept anything from tick to tick would be
    found out.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._lock = threading.Lock()

    def way(self) -> Way:
        return Way(self.ask, {"window": self.ask, "tick": self._tick}, begin=lambda: None, leak_allowed=0.0)

    def ask(self, x: F32) -> Answer:
        """Return the outputs after every tick of a window, from the initial state."""
        state, outputs = self._step.initial_state[np.newaxis], []
        for tick in self._ticks(x):
            with self._lock:
                y, state = self._step.step(tick, state)
            outputs.append(y)
        return np.concatenate(outputs).ravel().astype(np.float64)

    def _tick(self, x: F32) -> Answer:
        """Return the outputs after the first tick: what one forecast costs where the state is carried."""
        y, _ = self._step.step(self._ticks(x)[0], self._step.initial_state[np.newaxis])
        return y.ravel().astype(np.float64)

    def _ticks(self, x: F32) -> F32:
        return x.reshape(-1, 1, self._step.n_features)


def as_converted(model: Any) -> Any:
    """Return the model that conversion sees, whose answers have their step's order; itself where there is none."""
    from daemon.model.keras_model import take_apart

    try:
        return take_apart(model).model
    except BundleError:
        return model


def converted_step(model: Any) -> Step:
    """Return the step that the converted model would run on: numpy where it can, else TensorFlow.

    Raises
    ------
    BundleError : names the layer that cannot stream, and why
    """
    from daemon.model.conversion import translate
    from daemon.model.keras_model import take_apart

    graph = take_apart(model)
    program = translate(graph)
    if isinstance(program, Program):
        return NumpyStep(program)
    from daemon.model.tensorflow_step import TensorflowStep

    return TensorflowStep(graph)


def _request(model: Any) -> tuple[tuple[int, ...], int]:
    """Return the shape of one request without the batch, and the rows of a batch."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        raise BundleError(f"{type(model).__name__} has no input shape; build it with keras.Input and save it again")
    if len(inputs) != 1:
        raise BundleError(f"model {model.name} has {len(inputs)} inputs; one is supported, concatenate them")
    shape = tuple(inputs[0].shape)
    rows, *rest = shape
    if len(rest) > 1 and rest[0] is None:
        rest[0] = OPEN_STEPS
    if not rest or None in rest:
        raise BundleError(
            f"model {model.name} takes inputs of shape {shape}, expected (batch, time, features) with a fixed "
            "number of features"
        )
    return tuple(rest), rows or 1


def _own_scale(model: Any) -> tuple[F32, F32] | None:
    """Look for a Normalization in front: standard normal inputs would lie far outside what it was fitted on."""
    import keras

    layer = model
    while hasattr(layer, "layers"):
        layer = next((inner for inner in layer.layers if not isinstance(inner, keras.layers.InputLayer)), None)
    if not isinstance(layer, keras.layers.Normalization) or layer.invert:
        return None
    return np.asarray(layer.mean, np.float32), np.sqrt(np.asarray(layer.variance, np.float32))


def _first_row(outputs: Any) -> Answer:
    import keras

    return np.concatenate([np.asarray(y)[0].ravel().astype(np.float64) for y in keras.tree.flatten(outputs)])


def _said(error: Exception) -> str:
    """Return what an error says in one line: Keras' first line names the layer, its second the cause, in bold."""
    lines = [line.strip() for line in _BOLD.sub("", str(error)).splitlines() if line.strip()]
    return " ".join(lines[:2]) or type(error).__name__
