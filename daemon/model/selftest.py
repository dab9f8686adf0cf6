"""The self-test at start: each row of a step is on its own, and the step is the model of the bundle.

1. Elementwise functions of numpy give the same bits wherever a value stands in an array.
2. A tile is chosen in which every slot gives a row the bits it gets alone, whatever its neighbours hold.
3. A scan over waves gives the bits of one step per wave.
4. The golden sequence gives Keras' own outputs within `TOLERANCE`, and twice the same bits.

The first three hold promise 1 (same log, same bits), the last that the weights and their order are right. It takes
about 0.04 s for 2 x LSTM(64).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.core.step import F32, Step, Waves, scan_waves
from daemon.errors import BundleError
from daemon.model.bundle import Bundle, Engine

#: Bound on |step - Keras| in units of max(1, |Keras|): float32 sums in another order differ by about 1e-7.
TOLERANCE = 1e-5
#: Best first; `daemon.model.numpy_step.TILE_ROWS` says why. One row per product leaves no neighbours.
TILES = (8, 4, 2, 1)
#: Rows whose bits are compared in every slot.
PROBES = 4
#: Functions that steps and features rest on: of any number, and of positive ones.
ELEMENTWISE = (np.exp, np.expm1, np.tanh)
ELEMENTWISE_POSITIVE = (np.log, np.log1p, np.sqrt)
SEED = 20_260_101

MakeStep = Callable[[int], Step]


def self_test(bundle: Bundle, engine: Engine = "auto") -> Step:
    """Return the bundle's step, on the tile that this machine allows, after all four checks.

    The golden sequence is held against the model in its mode, before any roll-out; all else against the whole step.

    Raises
    ------
    BundleError : names the check that failed, with the figure
    """
    check_elementwise()
    made: dict[int, Step] = {}

    def make(tile_rows: int) -> Step:
        made[tile_rows] = bundle.step(engine, tile_rows)
        return made[tile_rows]

    step = made[choose_tile(make)]
    check_scan(step)
    check_golden(bundle.model_step(engine, step.tile_rows), bundle.golden_inputs, bundle.golden_outputs)
    return step


def check_elementwise() -> None:
    """Compare numpy's elementwise functions at many offsets, lengths and strides with one value at a time.

    Raises
    ------
    BundleError : names the function whose result depends on the place
    """
    for dtype in (np.float32, np.float64):
        signed = np.random.default_rng(SEED).normal(0, 3, 70).astype(dtype)
        for function in ELEMENTWISE + ELEMENTWISE_POSITIVE:
            values = np.abs(signed) if function in ELEMENTWISE_POSITIVE else signed
            alone = np.concatenate([function(values[index : index + 1]) for index in range(len(values))])
            for part in _views(len(values)):
                if not same_bits(function(values[part]), alone[part]):
                    raise BundleError(
                        f"self-test: numpy.{function.__name__} on {np.dtype(dtype).name} depends on a value's place "
                        "on this CPU; set NPY_DISABLE_CPU_FEATURES to its newest extension, e.g. AVX512_SKX"
                    )


def choose_tile(make_step: MakeStep, tiles: Sequence[int] = TILES) -> int:
    """Return the first tile in which every slot gives a row the same bits.

    Parameters
    ----------
    make_step : makes a step that runs on tiles of so many rows
    tiles : candidates, best first

    Raises
    ------
    BundleError : if even the last candidate does not
    """
    for tile_rows in tiles:
        if slots_agree(make_step(tile_rows)):
            return tile_rows
    raise BundleError(f"self-test: no tile of {list(tiles)} rows gives the same bits in every slot on this machine")


def slots_agree(step: Step) -> bool:
    """Tell whether rows get the same bits alone as in every slot, beside any neighbours, in calls of any size."""
    x, state = _rows(step, PROBES)
    y, after = _alone(step, x, state)
    for neighbours in _neighbours(step):
        # Tile t of each probe holds it in slot t.
        crowd, crowd_state = (np.tile(part, (PROBES * step.tile_rows, 1)) for part in neighbours)
        places = _diagonal(step.tile_rows)
        crowd[places], crowd_state[places] = (np.repeat(part, step.tile_rows, axis=0) for part in (x, state))
        for got, expected in zip(step.step(crowd, crowd_state), (y, after), strict=True):
            if not same_bits(got[places], np.repeat(expected, step.tile_rows, axis=0)):
                return False
    return _call_sizes_agree(step)


def check_scan(step: Step) -> None:
    """Compare a scan over waves that shrink and end with one step per wave.

    Raises
    ------
    BundleError : if any bit differs
    """
    sizes = (2 * step.tile_rows + 1, step.tile_rows + 1, *(step.tile_rows,) * 3, 3, 2, 1, 1)
    bounds = (0, *accumulate(sizes))
    chains, rows = sizes[0], bounds[-1]
    waves = Waves(bounds, np.arange(rows))
    x, _ = _rows(step, rows)
    _, start = _rows(step, chains)
    for got, expected in zip(step.scan(x, start, waves), scan_waves(step, x, start, waves), strict=True):
        if not same_bits(got, expected):
            raise BundleError("self-test: a scan over waves differs from one step per wave; this is a bug, report it")


def check_golden(step: Step, inputs: F32, outputs: F32) -> None:
    """Replay the golden sequence twice from a reset: Keras' outputs within `TOLERANCE`, and the same bits again.

    Raises
    ------
    BundleError : with the largest relative difference
    """
    difference = golden_difference(step, inputs, outputs)
    if not difference <= TOLERANCE:
        raise BundleError(
            f"self-test: golden replay differs from Keras by {difference:.2e}, allowed is {TOLERANCE:.0e}; "
            "the bundle is damaged, convert the model again"
        )
    if not same_bits(_replay(step, inputs), _replay(step, inputs)):
        raise BundleError("self-test: the golden sequence gave other bits the second time: a state is not reset")


def golden_difference(step: Step, inputs: F32, outputs: F32) -> float:
    """Return the largest |step - Keras| / max(1, |Keras|) over the golden sequence; NaN where the step gives one."""
    return float(np.max(np.abs(_replay(step, inputs) - outputs) / np.maximum(1, np.abs(outputs))))


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Tell whether two arrays hold the same bytes; NaN equals itself, 0 and -0 differ."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def _replay(step: Step, inputs: F32) -> F32:
    state = step.initial_state[np.newaxis]
    outputs = np.empty((len(inputs), step.n_outputs), np.float32)
    for index in range(len(inputs)):
        outputs[index : index + 1], state = step.step(inputs[index : index + 1], state)
    return outputs


def _rows(step: Step, count: int) -> tuple[F32, F32]:
    """Draw inputs like scaled features and states like those of gated cells."""
    draw = np.random.default_rng(SEED)
    x = draw.standard_normal((count, step.n_features)).astype(np.float32)
    return x, np.tanh(draw.standard_normal((count, step.state_size))).astype(np.float32)


def _alone(step: Step, x: F32, state: F32) -> tuple[F32, F32]:
    results = [step.step(x[index : index + 1], state[index : index + 1]) for index in range(len(x))]
    return np.concatenate([y for y, _ in results]), np.concatenate([after for _, after in results])


def _neighbours(step: Step) -> Iterator[tuple[F32, F32]]:
    """Yield one tile of neighbours after the other: ordinary, zero, huge, not a number."""
    x, state = _rows(step, step.tile_rows + PROBES)
    x, state = x[PROBES:], state[PROBES:]
    yield x, state
    for factor in (0.0, 1e30, np.nan):
        yield x * np.float32(factor), state * np.float32(factor)


def _diagonal(tile_rows: int) -> NDArray[np.intp]:
    tiles = np.arange(PROBES * tile_rows)
    return tiles * tile_rows + tiles % tile_rows


def _call_sizes_agree(step: Step) -> bool:
    """Compare calls of 1 to a few tiles' rows, from memory at other offsets each time, with rows alone."""
    count = 2 * step.tile_rows + 1
    x, state = _rows(step, count)
    y, after = _alone(step, x, state)
    for rows in range(1, count + 1):
        low = count - rows
        got, got_after = step.step(_shifted(x[low:], rows), _shifted(state[low:], rows))
        if not (same_bits(got, y[low:]) and same_bits(got_after, after[low:])):
            return False
    return True


def _shifted(rows: F32, offset: int) -> F32:
    """Return the same rows in memory that starts `offset` floats further into a buffer."""
    buffer = np.empty(rows.size + offset, np.float32)
    copy = buffer[offset:].reshape(rows.shape)
    copy[...] = rows
    return copy


def _views(length: int) -> Iterator[slice]:
    for offset in range(18):
        yield slice(offset, length)
        yield slice(offset, offset + 1 + offset % 5)
        yield slice(offset, length, 2 + offset % 3)
    for size in range(1, 35):
        yield slice(length - size, length)
