"""Promises 1 and 2 for models in window mode and for roll-outs: the logs and proofs that a carried state has."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.snapshot import decode
from daemon.core.spec import ModelSpec, Output
from daemon.core.step import Step
from daemon.model.numpy_step import NumpyStep
from daemon.model.rollout import Rollout, RolloutStep, rolled_outputs
from daemon.model.window_step import WindowStep
from tests.bundles import tiny_program
from tests.property.logs import SPEC, build, cuts, events, logs, pipeline, remembered, run
from tests.ticks import model, outcomes, raw, records

COLUMNS = SPEC.columns
CANARY = [json.dumps(raw(n, price=100 + n % 3, fields={"flow": n % 5, "volume": 2.0})).encode() for n in range(8)]
OUTPUTS = (Output(1, scale=1e-3), Output(1, "price", scale=2.0))
FUTURE = ("hold", 0.5, "output:1", "hold", "hold", 3.0)
ROLLOUT = Rollout(FUTURE, (1, 3, 4))
fewer = settings(max_examples=settings.default.max_examples // 3)


def _lstm(outputs: int) -> NumpyStep:
    return NumpyStep(tiny_program(len(COLUMNS), outputs, units=12, layers=2))


def _rolled(inner: Step) -> RolloutStep:
    return RolloutStep(inner, COLUMNS, OUTPUTS, ROLLOUT, (0,))


ROLLED = model(COLUMNS, rolled_outputs(OUTPUTS, ROLLOUT, (0,)))
WAYS: dict[str, tuple[ModelSpec, Step]] = {
    "window": (SPEC, WindowStep(_lstm(2), 5)),
    "window of one tick": (SPEC, WindowStep(_lstm(2), 1)),
    "rolled out": (ROLLED, _rolled(_lstm(2))),
    "window rolled out": (ROLLED, _rolled(WindowStep(_lstm(2), 5))),
}
every_way = pytest.mark.parametrize("way", WAYS)


def made(way: str, **options):
    spec, step = WAYS[way]
    return pipeline(spec=spec, step=step, **options)


@every_way
@fewer
@given(logs, cuts, st.sampled_from((1, 2, 100)), st.booleans())
def test_no_cut_changes_a_byte_of_any_outcome_or_of_what_is_kept(way, log, cut, room, canary):
    reference = made(way, instruments_per_partition_max=room)
    other = made(way, instruments_per_partition_max=room, canary_ticks=CANARY if canary else ())
    assert outcomes(run(other, log, cut)) == outcomes(run(reference, log, (1,)))
    assert remembered(other) == remembered(reference)


@every_way
@fewer
@given(logs, cuts, st.floats(0, 1))
def test_states_that_went_through_snapshots_go_on_as_if_they_never_left(way, log, cut, share):
    at = round(share * len(log))
    whole, first, second = made(way), made(way), made(way)
    run(first, log[:at], cut)
    for partition in first.partitions:
        values = first.checkpoint(partition, "0123456789ab", 0)
        kept = [message for message in values if message.value is not None]
        snapshots = [decode(message.key.decode(), message.value) for message in kept]
        assert all(map(second.fits, snapshots))
        second.put_back(partition, snapshots)
        second.settle(partition)
    run(whole, log[:at], cut)
    assert outcomes(run(second, log[at:], cut)) == outcomes(run(whole, log[at:], cut))
    assert remembered(second) == remembered(whole)


@every_way
def test_the_canary_among_them_always_gets_its_answers(way):
    ticks = [raw(n / 10, f"I{n % 5}", price=100 + n % 7, fields={"flow": n % 3, "volume": 2.0}) for n in range(200)]
    watched = made(way, canary_ticks=CANARY)
    probes = [batch.probe for batch in run(watched, records(ticks), (3, 1, 6)) if batch.probe is not None]
    assert len(probes) > 5
    assert {(probe.variance, probe.max_difference) for probe in probes} == {(0.0, 0.0)}


@every_way
def test_the_logs_drawn_here_break_these_models_too(way):
    seen: Counter[str] = Counter()

    @settings(max_examples=10)
    @given(st.lists(events, min_size=20, max_size=60), cuts)
    def look(drawn, cut):
        for batch in run(made(way), build(drawn), cut):
            seen.update(str(reason) for reason in batch.reasons.elements())
            seen["forecast"] += len(batch.forecasts)

    look()
    assert seen["non_finite"] > 5
    assert seen["forecast"] > 200
