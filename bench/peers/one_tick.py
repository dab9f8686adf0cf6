"""The work of one tick, for frameworks that hand over one message at a time: tick in, forecast and next state out.

Decoding, order, session, features and intervals are the project's own core. What the core does for whole batches with
numpy (the step, prices from outputs) would cost one row several times what it has to, and that would be no fault of the
framework: here it is written for one row, as somebody would who only ever gets one. The payload is the pipeline's; a
test holds one against the other.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from math import exp, floor, frexp, inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from daemon.core import snapshot
from daemon.core.features import FeatureTable
from daemon.core.forecast import PRICE_DIGITS, VARIANCE_DIGITS, Forecaster
from daemon.core.instrument import Instrument
from daemon.core.intake import Intake, OrderLimits, Row
from daemon.core.kept_scores import pack_pending
from daemon.core.scores import ROOM_BYTES, WIDTH, Scorer
from daemon.core.sessions import Gap, Rules
from daemon.model.bundle import Bundle
from daemon.model.ops import Dense, Lstm
from daemon.model.program import Program
from schemas import SCHEMA_VERSION, ResetCause, TickDecoder

F32 = NDArray[np.float32]
#: (x, states) -> (y, next states); states are h and c of every layer, one after the other.
Model = Callable[[F32, F32], tuple[F32, F32]]

#: The settings' defaults that reach payloads (`daemon.config`): the peers' environments need no settings.
GAP_SECONDS = 3600.0
LIMITS = OrderLimits(future_skew_ns=60 * 10**9, max_lateness_ns=0, seq_restart_ns=300 * 10**9)
WARMUP_TICKS = 50
COVERAGE = 0.9

#: Stands in snapshots, where the daemon names its revision.
REVISION = "peers-bench-"
_LOG10_2 = 0.30102999566398120


class Held(NamedTuple):
    """All that is kept of one instrument."""

    instrument: Instrument
    #: h and c of every layer.
    state: F32


class OneTick:
    """Forecasts tick by tick.

    Parameters
    ----------
    bundle : stacked LSTMs with a dense head, outputs in log returns (`bench.rig.bench_bundle`)
    model : runs instead of the bundle's weights on numpy
    """

    def __init__(self, bundle: Path, model: Model | None = None) -> None:
        loaded = Bundle.load(bundle)
        assert isinstance(loaded.program, Program)
        self._model = model or NumpyRow(loaded.program)
        self._state_size = loaded.program.state_size
        self._spec = spec = loaded.spec
        self._decode = TickDecoder().decode
        self._features = FeatureTable(spec.columns, spec.volatility_prior, spec.missing)
        self._intake = Intake(self._features, Rules([], Gap(GAP_SECONDS)), LIMITS)
        self._scorer = OneRowScorer(Scorer(Forecaster(spec, COVERAGE)))
        self._scales = [(output.mean, output.scale, output.volatile) for output in spec.outputs]

    def new(self, name: str) -> Held:
        """Return what is kept of an instrument that has seen no tick."""
        instrument = Instrument(name, -1, list(self._features.start), ResetCause.FIRST)
        return Held(instrument, np.zeros(self._state_size, np.float32))

    def forecast(
        self, value: bytes, held: Held, *, topic: str, partition: int, offset: int, timestamp: int
    ) -> tuple[bytes, Held]:
        """Return the forecast and what is kept after it; the instrument in `held` is moved on in place.

        Raises
        ------
        Rejected : the tick is none, or cannot be taken
        """
        tick = self._decode(value)
        row = self._intake.accept(tick, held.instrument, offset=offset, timestamp=timestamp)
        start = held.state if row.reset is None else np.zeros_like(held.state)
        y, state = self._model(np.array(row.features, np.float32), start)
        price, volatility = row.price, row.volatility
        said = [
            mean + scale * (volatility if volatile else 1.0) * each
            for (mean, scale, volatile), each in zip(self._scales, y.tolist(), strict=True)
        ]
        units = [abs(scale * (volatility if volatile else 1.0)) for _, scale, volatile in self._scales]
        power = _power(price, PRICE_DIGITS)
        means = [round(price * exp(each) * power) / power for each in said]
        lower, upper, variance = self._scorer.score(row, means, said, units)
        payload = {
            "id": f"{topic}-{partition}-{offset}",
            "instrument": tick.instrument,
            "ts": tick.ts,
            "session": row.session,
            "step": row.step,
            "reset": row.reset,
            "warm": row.step >= WARMUP_TICKS,
            "price": price,
            "horizons": self._spec.horizons,
            "mean": means,
            "lower": lower,
            "upper": upper,
            "variance": variance,
            "model": self._spec.model_id,
            "schema_version": SCHEMA_VERSION,
        }
        return orjson.dumps(payload), Held(held.instrument, state)


def pack(held: Held) -> bytes:
    """Return what is kept as bytes, for the peer's own store: a snapshot of the daemon's."""
    return snapshot.encode(REVISION, held.instrument.last_offset + 1, held.instrument, held.state.tobytes())


def unpack(name: str, packed: bytes) -> Held:
    """Return what bytes hold."""
    found = snapshot.decode(name, packed)
    return Held(found.instrument, found.state)


class NumpyRow:
    """Stacked LSTMs with a dense head, one row at a time; one product a layer, since calls cost more than sums."""

    def __init__(self, program: Program) -> None:
        *lstms, head = [node.op for node in program.nodes]
        assert isinstance(head, Dense)
        self.head = head
        #: Kernel over recurrent kernel, shape (inputs + units, gates * units), and bias; gates i, f, o, c.
        self.layers: list[tuple[F32, F32, int]] = []
        for op in lstms:
            assert isinstance(op, Lstm)
            weights = np.concatenate([op.kernel, op.recurrent], axis=1)
            units = op.bias.shape[1]
            joined = np.ascontiguousarray(weights.transpose(1, 0, 2).reshape(-1, 4 * units))
            self.layers.append((joined, op.bias.reshape(-1), units))

    def __call__(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Advance one row; see `Model`."""
        after = np.empty_like(state)
        at = 0
        for weights, bias, units in self.layers:
            middle, end = at + units, at + 2 * units
            z = np.concatenate((x, state[at:middle])) @ weights
            z += bias
            gates = z[: 3 * units]
            np.negative(gates, gates)
            np.exp(gates, gates)
            gates += 1
            np.reciprocal(gates, gates)
            c = after[middle:end]
            np.multiply(gates[units : 2 * units], state[middle:end], c)
            c += gates[:units] * np.tanh(z[3 * units :])
            x = after[at:middle]
            np.multiply(gates[2 * units :], np.tanh(c), x)
            at = end
        return x @ self.head.kernel + self.head.bias, after


class OneRowScorer:
    """Scores of one row, on plain floats, by the rules of a `Scorer`; outputs say log returns, as a plain mean."""

    def __init__(self, scorer: Scorer) -> None:
        self._rules = scorer

    def score(
        self, row: Row, means: list[float], values: list[float], units: list[float]
    ) -> tuple[list[float] | None, list[float] | None, list[float] | None]:
        """Settle what the tick is the truth of, sample anew, and return the ends and variances of its forecast."""
        rules, scores = self._rules, row.instrument.scores
        if scores is None:
            scores = row.instrument.scores = rules._awake(row.instrument)
        if not scores.corrections:
            rules.look(scores)
        if row.reset is not None:
            scores.drop()
        phase = row.step & rules._period_mask
        if rules._due[phase]:
            rules._settle(scores, rules._due[phase], row.step, row.price, 0, [])
        corrections = scores.corrections
        for column, horizon in rules._sampled[phase]:
            if len(scores.horizons[column]) <= ROOM_BYTES:
                value, unit, at = values[column], units[column], WIDTH * column
                low, high = value + corrections[at] * unit, value + corrections[at + 1] * unit
                scores.horizons[column] += pack_pending(
                    row.step + horizon, row.offset, row.ts, row.price, means[column], value, unit, low, high,
                    corrections[at + 3],
                )  # fmt: skip
        return _levels(row.price, means, values, units, corrections)


def _levels(
    price: float, means: list[float], values: list[float], units: list[float], corrections: array[float]
) -> tuple[list[float] | None, list[float] | None, list[float] | None]:
    lowers, uppers, variances = [], [], []
    power = _power(price, PRICE_DIGITS)
    for column, (mean, value, unit) in enumerate(zip(means, values, units, strict=True)):
        low, high, mean_square, holds_price = corrections[WIDTH * column : WIDTH * (column + 1)]
        if low == -inf:
            return None, None, None
        held = price if holds_price else mean
        lowers.append(min(round(price * exp(value + low * unit) * power) / power, mean, held))
        uppers.append(max(round(price * exp(value + high * unit) * power) / power, mean, held))
        variance = unit * unit * mean_square
        fine = _power(variance, VARIANCE_DIGITS)
        variances.append(round(variance * fine) / fine)
    return lowers, uppers, variances


def _power(value: float, digits: int) -> float:
    """Return the power of ten that keeps so many digits of a value."""
    return float(10 ** (digits - floor(frexp(value)[1] * _LOG10_2)))
