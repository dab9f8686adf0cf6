"""The bundle as one flat file for Java: big-endian, as `DataInputStream` reads it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from bench.peers.one_tick import COVERAGE, NumpyRow
from daemon.core.intervals import Tracker
from daemon.model.bundle import Bundle
from daemon.model.program import Program
from daemon.training.options import DEFAULT_COLUMNS


def export(bundle: Bundle, path: Path) -> None:
    """Write the file; columns must be the default ones under running scales, outputs plain means of log returns.

    Order: model id; counts of layers, columns, outputs; volatility prior; mean and standard deviation of every column;
    horizon, mean, scale and volatility switch of every output, with the start of its interval's track; units, weights
    (inputs, then units, by gates i, f, o, c) and bias of every layer; weights and bias of the head.
    """
    program, spec = bundle.program, bundle.spec
    assert isinstance(program, Program)
    assert tuple(column.feature for column in spec.columns) == DEFAULT_COLUMNS
    rows = NumpyRow(program)
    name = spec.model_id.encode()
    parts = [
        struct.pack(">H", len(name)) + name,
        struct.pack(">iiid", len(rows.layers), len(spec.columns), len(spec.outputs), spec.volatility_prior),
        *(struct.pack(">dd", column.mean, column.std) for column in spec.columns),
    ]
    for output in spec.outputs:
        track = Tracker(output, scaled=False, quantiled=False, coverage=COVERAGE).start()
        parts.append(struct.pack(">idd?", output.horizon, output.mean, output.scale, output.volatile))
        parts.append(struct.pack(">7d", *track))
    for weights, bias, units in rows.layers:
        parts += [struct.pack(">i", units), _floats(weights.ravel()), _floats(bias)]
    parts += [_floats(rows.head.kernel.ravel()), _floats(rows.head.bias)]
    path.write_bytes(b"".join(parts))


def _floats(values: Iterable[float]) -> bytes:
    numbers = [float(value) for value in values]
    return struct.pack(f">{len(numbers)}f", *numbers)
