"""A state carried through the pipeline, batch by batch, against one long sequence through Keras."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.spec import Column, Output
from daemon.model.bundle import Bundle
from daemon.model.conversion import convert
from daemon.model.manifest import Manifest
from daemon.model.selftest import self_test
from tests.ticks import pipeline, raw, record

pytestmark = pytest.mark.tensorflow

#: The design's bound on |a - b| / max(1, |b|).
BOUND = 1e-5
STEPS = 60
INSTRUMENTS = ("A", "B", "C")


@pytest.fixture(scope="module")
def keras_and_bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, Bundle]:
    """Return inputs (instruments, steps, 2), Keras' outputs for them as whole sequences, and the converted model."""
    import keras

    keras.utils.set_random_seed(3)
    model = keras.Sequential([
        keras.Input((None, 2)),
        keras.layers.LSTM(12, return_sequences=True),
        keras.layers.GRU(8, return_sequences=True),
        keras.layers.Dense(2),
    ])  # fmt: skip
    columns = (Column("field:a"), Column("field:b"))
    manifest = Manifest(columns=columns, outputs=(Output(1, scale=1e-3), Output(10, scale=1e-3)))
    bundle = convert(model, manifest, tmp_path_factory.mktemp("keras") / "bundle")
    inputs = np.random.default_rng(5).standard_normal((len(INSTRUMENTS), STEPS, 2)).astype(np.float32)
    return inputs, keras.ops.convert_to_numpy(model(inputs)), bundle


@settings(max_examples=20)
@given(data=st.data())
def test_any_cut_into_batches_equals_one_long_sequence_through_keras(
    keras_and_bundle: tuple[np.ndarray, np.ndarray, Bundle], data: st.DataObject
) -> None:
    inputs, expected, bundle = keras_and_bundle
    turns = [who for who in range(len(INSTRUMENTS)) for _ in range(STEPS)]
    order = data.draw(st.permutations(turns), label="whose tick is next")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(order) - 1), max_size=20), label="cuts"))
    made = pipeline(bundle.spec, step=self_test(bundle), canary_ticks=bundle.canary_ticks)
    seen = [0] * len(INSTRUMENTS)
    records, wanted = [], []
    for offset, who in enumerate(order):
        a, b = inputs[who, seen[who]].tolist()
        records.append(record(raw(offset, INSTRUMENTS[who], fields={"a": a, "b": b}), offset))
        wanted.append(expected[who, seen[who]])
        seen[who] += 1
    batches = [made.advance(records[low:high]) for low, high in zip([0, *cuts], [*cuts, len(order)], strict=True)]
    found = np.concatenate([batch.outputs for batch in batches])
    assert np.all(np.abs(found - wanted) <= BOUND * np.maximum(1, np.abs(wanted)))
