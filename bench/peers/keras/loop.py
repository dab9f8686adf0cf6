"""The model in a plain loop of a consumer, Keras and a producer, as tutorials write it.

A stateful Keras model holds one (h, c) for each row of its batch, so with many instruments the loop puts those of the
tick's instrument in before the call and takes them out after it. They live in this process alone: offsets are
committed by the clock, so a restart repeats or loses ticks, and every instrument starts from nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # type: ignore[import-not-found]
import numpy as np
from confluent_kafka import Consumer, Producer  # type: ignore[import-not-found]

from bench.peers.one_tick import F32, Held, OneTick
from bench.peers.run_settings import read_settings
from daemon.model.bundle import Bundle
from daemon.model.ops import Dense, Lstm
from daemon.model.program import Program

#: The bundle has its gates in the order i, f, o, c, Keras in i, f, c, o.
KERAS_GATES = [0, 1, 3, 2]


class KerasRow:
    """The bundle's model in Keras, one tick of one instrument at a time."""

    def __init__(self, program: Program, *, predict: bool) -> None:
        *lstms, head = [node.op for node in program.nodes]
        assert isinstance(head, Dense)
        layers: list[Any] = [keras.Input(batch_shape=(1, 1, program.n_features))]
        for at, op in enumerate(lstms):
            more = at < len(lstms) - 1
            layers.append(keras.layers.LSTM(op.bias.shape[1], stateful=True, return_sequences=more))
        self._model = keras.Sequential([*layers, keras.layers.Dense(head.kernel.shape[1])])
        *self._lstms, dense = self._model.layers
        for layer, op in zip(self._lstms, lstms, strict=True):
            assert isinstance(op, Lstm)
            kernels = [np.concatenate(list(each[KERAS_GATES]), axis=-1) for each in (op.kernel, op.recurrent, op.bias)]
            layer.set_weights(kernels)
        dense.set_weights([head.kernel, head.bias])
        self._predict = predict

    def __call__(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Advance one row; see `bench.peers.one_tick.Model`."""
        held = [variable for layer in self._lstms for variable in layer.states]
        for variable, part in zip(held, np.split(state, len(held)), strict=True):
            variable.assign(part[None])
        rows = x[None, None]
        y = self._model.predict(rows, verbose=0) if self._predict else self._model(rows, training=False).numpy()
        return y[0], np.concatenate([variable.numpy()[0] for variable in held])


def main() -> None:
    """Run until stopped."""
    told = read_settings()
    program = Bundle.load(Path(told.bundle)).program
    assert isinstance(program, Program)
    work = OneTick(Path(told.bundle), KerasRow(program, predict=told.options["call"] == "predict"))
    consumer = Consumer(
        {
            "bootstrap.servers": told.bootstrap,
            "group.id": told.group,
            "group.instance.id": told.group,
            "auto.offset.reset": "earliest",
        }
    )
    producer = Producer({"bootstrap.servers": told.bootstrap})
    consumer.subscribe([told.ticks])
    kept: dict[str, Held] = {}
    while True:
        tick = consumer.poll(1.0)
        producer.poll(0)
        if tick is None or tick.error():
            continue
        name = tick.key().decode()
        payload, kept[name] = work.forecast(
            tick.value(),
            kept.get(name) or work.new(name),
            topic=told.ticks,
            partition=tick.partition(),
            offset=tick.offset(),
            timestamp=tick.timestamp()[1],
        )
        producer.produce(told.forecasts, payload, tick.key())


if __name__ == "__main__":
    main()
