"""The disease that tickcast was built against, and its cure, on a real Keras model.

A stateful Keras layer keeps (h, c) in a variable of the model, so a call leaves something behind for the next one,
whoever asks. After conversion the state is an argument and a result: the same input from the same state gives the same
answer, and whoever has a state of his own has answers of his own.

`python -m daemon.dev.demo.disease` measures it and prints the answers as JSON; TensorFlow thus stays out of the caller.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from daemon.core.spec import Column, Output
from daemon.core.step import F32
from daemon.model.manifest import Manifest

CALLS = 5
FEATURES = 3
UNITS = 16
#: Chosen for answers whose drift is easy to see.
SEED = 1

Answers = dict[str, list[float]]


def measure() -> Answers:
    """Ask a stateful Keras LSTM and its converted step the same question.

    Returns
    -------
    keras : answers of the model, called five times with the same input
    converted : answers of the step, called five times with the same input and state
    a, b : answers of the step to instruments A and B, which take turns with that input, each with its own state
    """
    import keras

    from daemon.model.conversion import convert

    keras.utils.set_random_seed(SEED)
    x = np.random.default_rng(SEED).standard_normal((1, FEATURES)).astype(np.float32)
    model = keras.Sequential(
        [
            keras.layers.Input(batch_shape=(1, 1, FEATURES)),
            keras.layers.LSTM(UNITS, stateful=True),
            keras.layers.Dense(1),
        ]
    )
    manifest = Manifest(columns=(Column("return"), Column("spread"), Column("imbalance")), outputs=(Output(1),))
    with tempfile.TemporaryDirectory() as folder:
        step = convert(model, manifest, Path(folder) / "bundle").step()
    found: Answers = {"keras": [_value(model(x[:, None]).numpy()) for _ in range(CALLS)]}
    start = step.initial_state[None]
    found["converted"] = [_value(step.step(x, start)[0]) for _ in range(CALLS)]
    states = {"a": start, "b": start}
    for name in "ababab":
        y, states[name] = step.step(x, states[name])
        found.setdefault(name, []).append(_value(y))
    return found


def told(answers: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the three lines for people: disease, cure, and that the cure forgets nothing."""
    return [
        f"disease  a stateful Keras LSTM, same input: {_listed(answers['keras'])}",
        f"cure     the model converted, same input:   {_listed(answers['converted'])}",
        f"memory   a state per instrument: A {_listed(answers['a'])}, B {_listed(answers['b'])}",
    ]


def _value(y: F32 | Any) -> float:
    return float(np.asarray(y).reshape(-1)[0])


def _listed(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


if __name__ == "__main__":
    json.dump(measure(), sys.stdout)
