"""Models of others, from their file to forecasts: the modes, the proof, and the prices that the model itself gives."""

from __future__ import annotations

import hashlib
from importlib import import_module

import numpy as np
import pytest

from daemon.errors import BundleError, SettingsError
from daemon.model import Bundle, convert
from daemon.model.selftest import self_test
from tests.ticks import START

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]

FEATURES = ["field:open", "field:high", "field:low", "price", "log:field:volume"]
MEAN, SCALE = [1890.0, 1895.0, 1885.0, 1890.0, 5.0], [55.0, 56.0, 57.0, 55.0, 1.2]
SPEC = {
    "features": FEATURES,
    "scaler": {"mean": MEAN, "scale": SCALE},
    "output": [{"horizon": 1, "kind": "price", "scaler": "price"}],
}


def bars(count=60, seed=3):
    """Return bars of gold: a frame with a time index, as people have them."""
    pandas = import_module("pandas")
    rng = np.random.default_rng(seed)
    close = 1890 + np.cumsum(rng.normal(0, 3, count)).round(2)
    frame = {
        "open": close + rng.normal(0, 1, count).round(2),
        "high": close + 2.5,
        "low": close - 2.0,
        "price": close,
        "volume": rng.integers(50, 400, count).astype(float),
    }
    return pandas.DataFrame(frame, index=pandas.to_datetime(START + 10**10 * np.arange(count), utc=True))


def inputs(frame):
    """Scale the columns of a frame by hand."""
    columns = [frame[name].to_numpy() for name in ("open", "high", "low", "price")] + [
        np.log(frame["volume"].to_numpy())
    ]
    return ((np.stack(columns, axis=1) - MEAN) / SCALE).astype(np.float32)


@pytest.fixture(scope="module")
def keras2():
    return import_module("tf_keras")


@pytest.fixture(scope="module")
def gold(keras2, tmp_path_factory):
    """Return the case to serve first: nested stateful LSTMs of Keras 2 on windows (1, 10, 5), and its file."""
    keras2.utils.set_random_seed(1)
    core = keras2.Sequential(
        [keras2.layers.LSTM(12, return_sequences=True, stateful=True), keras2.layers.LSTM(6, stateful=True)],
        name="core",
    )
    model = keras2.Sequential(
        [keras2.layers.InputLayer(batch_input_shape=(1, 10, 5)), core, keras2.layers.Dense(1)], name="gold"
    )
    model(np.zeros((1, 10, 5), np.float32))
    for variable in model.trainable_variables:
        variable.assign(np.random.default_rng(variable.shape.num_elements()).normal(0, 0.4, variable.shape))
    file = tmp_path_factory.mktemp("gold") / "gold.h5"
    model.save(file)
    return model, file


def digest(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


# --- the gold predictor -----------------------------------------------------------------------------------------------


def test_a_gold_predictor_of_keras_2_forecasts_the_prices_it_always_did(gold, tmp_path):
    model, file = gold
    frame = bars()
    bundle = convert(file, SPEC, out=tmp_path / "bundle")
    assert (bundle.manifest.mode, bundle.manifest.steps) == ("window", 10)
    found = bundle.predict(frame)
    assert found.index.equals(frame.index)
    assert found["refused"].isna().all()
    x = inputs(frame)
    for tick in (9, 10, 31, 59):
        model.reset_states()
        for layer in model.get_layer("core").layers:
            layer.reset_states()
        y = float(model(x[np.newaxis, tick - 9 : tick + 1])[0, 0])
        assert found["mean_1"].iloc[tick] == pytest.approx(1890.0 + 55.0 * y, abs=1e-3)


def test_carried_it_forecasts_other_prices_which_are_those_of_its_own_carried_state(gold, tmp_path):
    model, file = gold
    frame = bars()
    x = inputs(frame)
    carried = convert(file, SPEC, tmp_path / "carried", mode="carried").predict(frame)
    window = convert(file, SPEC, tmp_path / "window").predict(frame)
    assert not np.allclose(carried["mean_1"].to_numpy()[10:], window["mean_1"].to_numpy()[10:], atol=0.1)
    for layer in model.get_layer("core").layers:
        layer.reset_states()
    for tick in range(9, 60, 10):
        y = float(model(x[np.newaxis, tick - 9 : tick + 1])[0, 0])
        assert carried["mean_1"].iloc[tick] == pytest.approx(1890.0 + 55.0 * y, abs=1e-3)


def test_dicts_give_what_the_daemon_publishes_and_a_frame_the_same_as_columns(gold, tmp_path):
    bundle = convert(gold[1], SPEC, tmp_path / "bundle")
    frame = bars(30)
    ticks = [
        {
            "instrument": "XAUUSD",
            "ts": START + 10**10 * row,
            "price": values["price"],
            "fields": {name: values[name] for name in ("open", "high", "low", "volume")},
        }
        for row, values in enumerate(frame.to_dict("records"))
    ]
    del ticks[7]["fields"]["low"]
    found = bundle.predict(ticks)
    assert found[7] == {
        "id": "frame-0-7",
        "reason": "missing_field",
        "detail": "the model reads fields.low, which the tick does not have",
    }
    assert found[8]["model"] == bundle.id
    assert (found[0]["reset"], found[8]["step"]) == ("first", 7)
    gaps = frame.copy()
    gaps.iloc[7, gaps.columns.get_loc("low")] = np.nan
    columns = bundle.predict(gaps)
    assert columns["refused"].iloc[7].startswith("missing_field: ")
    assert [row["mean"][0] for row in found if "mean" in row] == columns["mean_1"].dropna().tolist()


def test_a_missing_field_may_keep_its_last_value_or_be_a_number(gold, tmp_path):
    frame = bars(30)
    gaps, last, fixed = frame.copy(), frame.copy(), frame.copy()
    at = frame.columns.get_loc("low")
    gaps.iloc[12:15, at] = np.nan
    last.iloc[12:15, at] = frame["low"].iloc[11]
    fixed.iloc[12:15, at] = 1880.0
    for missing, whole in (("last", last), (1880.0, fixed)):
        bundle = convert(gold[1], {**SPEC, "missing": missing}, tmp_path / str(missing))
        assert bundle.predict(gaps).equals(bundle.predict(whole))
    first = frame.copy()
    first.iloc[0, at] = np.nan
    refused = convert(gold[1], {**SPEC, "missing": "last"}, tmp_path / "first").predict(first)["refused"]
    assert refused.notna().tolist() == [True] + [False] * 29


def test_a_frame_needs_times_with_a_zone(gold, tmp_path):
    bundle = convert(gold[1], SPEC, tmp_path / "bundle")
    frame = bars(12)
    with pytest.raises(SettingsError, match="the frame's times have no zone"):
        bundle.predict(frame.tz_localize(None))
    with pytest.raises(SettingsError, match="the frame has no times"):
        bundle.predict(frame.reset_index(drop=True))
    plain = frame.assign(ts=[START + 10**10 * row for row in range(12)], instrument="XAUUSD").reset_index(drop=True)
    renamed = plain.rename(columns={name: f"field:{name}" for name in ("open", "high", "low", "volume")})
    expected = bundle.predict(frame)["mean_1"].tolist()
    assert bundle.predict(plain)["mean_1"].tolist() == bundle.predict(renamed)["mean_1"].tolist() == expected


# --- the proof --------------------------------------------------------------------------------------------------------

SHAPES = {
    "welded batch and window": ((32, 10, 5), True, False),
    "welded batch, every tick": ((4, 10, 5), True, True),
    "one tick at a time": ((1, 1, 5), True, False),
    "stateful over any time": ((2, None, 5), True, True),
    "stateless window": ((None, 10, 5), False, False),
    "stateless over any time": ((None, None, 5), False, True),
    "stateless, last of any time": ((None, None, 5), False, False),
}


def shaped(layers, models, shape, stateful, sequences):
    import keras

    stack = [
        layers.GRU(6, return_sequences=True, stateful=stateful),
        layers.LSTM(5, return_sequences=sequences, stateful=stateful),
        layers.Dense(1),
    ]
    return models.randomised(keras.Sequential([keras.Input(batch_shape=shape), *stack]))


@pytest.mark.parametrize("mode", ["carried", "window"])
@pytest.mark.parametrize("name", SHAPES)
def test_models_of_every_shape_are_proven_in_both_modes(models, layers, name, mode):
    from daemon.model.conversion import prepare

    model = shaped(layers, models, *SHAPES[name])
    steps = {"steps": SHAPES[name][0][1] or 7} if mode == "window" else {}
    found = prepare(model, {**SPEC, **steps}, mode=mode)
    assert found.manifest.mode == mode
    assert found.proof.count >= 1000
    assert found.proof.answers >= (100 if mode == "carried" else 1000)
    assert found.proof.difference <= 1e-5


def test_a_proof_that_fails_writes_nothing(gold, tmp_path, monkeypatch):
    monkeypatch.setattr("daemon.model.proof.TOLERANCE", 0.0)
    for mode, what in (("window", "windows of 10 ticks"), ("carried", "carried steps")):
        with pytest.raises(BundleError, match=f"cannot stream: over 1,000 {what} the converted step differs by .*e-0"):
            convert(gold[1], SPEC, tmp_path / "bundle", mode=mode)
    assert list(tmp_path.iterdir()) == []


def test_the_proof_catches_what_the_golden_sequence_lets_through(models, layers, tmp_path, monkeypatch):
    from daemon.model import conversion
    from daemon.model.window_step import WindowStep

    class Off(WindowStep):
        def scan(self, x, start, waves):
            y, after, finite = super().scan(x, start, waves)
            return y + np.float32(1e-4), after, finite

    model = shaped(layers, models, *SHAPES["stateless window"])
    monkeypatch.setattr(conversion, "golden_difference", lambda *_: 0.0)
    monkeypatch.setattr(conversion, "in_mode", lambda step, manifest: Off(step, manifest.steps))
    with pytest.raises(BundleError, match="over 1,000 windows of 10 ticks the converted step differs by 1"):
        convert(model, SPEC, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_neither_conversion_nor_predicting_changes_a_weight(models, layers, tmp_path):
    from daemon.model.proof import weights_digest

    model = shaped(layers, models, *SHAPES["welded batch and window"])
    model(np.ones((32, 10, 5), np.float32))  # states of the user's own
    weights, states = weights_digest(model), [np.array(state) for layer in model.layers[:2] for state in layer.states]
    bundle = convert(model, SPEC, tmp_path / "bundle")
    assert weights_digest(model) == weights
    assert all(map(np.array_equal, states, [state for layer in model.layers[:2] for state in layer.states]))
    files, arrays = digest(bundle.path), [array.tobytes() for array in bundle.program.arrays().values()]
    first = bundle.predict(bars())
    assert first.equals(bundle.predict(bars()))
    assert [array.tobytes() for array in bundle.program.arrays().values()] == arrays
    assert digest(bundle.path) == files
    assert Bundle.load(bundle.path).id == bundle.id


# --- initial states and roll-outs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["carried", "window"])
@pytest.mark.parametrize("stateful", [True, False])
def test_states_start_from_the_vectors_of_the_spec(models, layers, tmp_path, mode, stateful):
    shape = (1, 4, 5) if stateful else (None, 4, 5)
    model = shaped(layers, models, shape, stateful, sequences=False)
    gru, lstm = (layer.name for layer in model.layers[:2])
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(0, 0.5, size).round(3).tolist() for name, size in ((f"{gru}.h", 6), (f"{lstm}.c", 5))}
    bundle = convert(model, {**SPEC, "initial_state": vectors}, tmp_path / "bundle", mode=mode)
    plain = convert(model, SPEC, tmp_path / "plain", mode=mode)
    assert bundle.id != plain.id
    self_test(bundle)
    frame = bars(8)
    if not stateful:
        model = shaped(layers, models, (1, 4, 5), True, sequences=False)
        twin = convert(model, {**SPEC, "initial_state": _renamed(vectors, model)}, tmp_path / "twin", mode=mode)
        assert bundle.predict(frame)["mean_1"].tolist() == twin.predict(frame)["mean_1"].tolist()
        return
    first, second = model.layers[:2]
    first.states[0].assign([vectors[f"{gru}.h"]])
    second.states[0].assign(np.zeros((1, 5)))
    second.states[1].assign([vectors[f"{lstm}.c"]])
    y = float(np.asarray(model(inputs(frame)[np.newaxis, :4]))[0, 0])
    assert bundle.predict(frame)["mean_1"].iloc[3] == pytest.approx(1890.0 + 55.0 * y, abs=1e-3)
    assert plain.predict(frame)["mean_1"].iloc[3] != pytest.approx(1890.0 + 55.0 * y, abs=1e-3)


def _renamed(vectors, model):
    names = [layer.name for layer in model.layers[:2]]
    return {
        f"{name}.{key.rpartition('.')[2]}": value for name, (key, value) in zip(names, vectors.items(), strict=True)
    }


def test_a_model_on_tensorflow_runs_windows_from_its_initial_state_too(models, layers, tmp_path):
    model = models.sequence(
        layers.RNN(models.LeakyCell(4), return_sequences=False, name="leaky"), layers.Dense(1), shape=(6, 5)
    )
    bundle = convert(model, {**SPEC, "initial_state": {"leaky.h": [0.5, -0.5, 1.0, 2.0]}}, tmp_path / "bundle")
    assert type(self_test(bundle).inner).__name__ == "TensorflowStep"
    x = inputs(bars(6))
    h = np.array([0.5, -0.5, 1.0, 2.0])
    for row in x:
        h = 0.9 * h + 0.1 * row @ np.asarray(model.layers[0].cell.kernel)
    y = float(h @ np.asarray(model.layers[1].kernel)[:, 0] + np.asarray(model.layers[1].bias)[0])
    assert bundle.predict(bars(6))["mean_1"].iloc[5] == pytest.approx(1890.0 + 55.0 * y, abs=1e-3)


def test_a_roll_out_is_the_model_fed_with_its_own_windows(models, layers, tmp_path):
    model = shaped(layers, models, *SHAPES["stateless window"])
    future = {"field:open": "output:0", "field:high": "hold", "field:low": 1888.0, "price": "output:0"}
    spec = {**SPEC, "future": {**future, "log:field:volume": "hold"}, "horizons": [1, 2, 5]}
    bundle = convert(model, spec, tmp_path / "bundle")
    assert bundle.spec.horizons == (1, 2, 5)
    frame = bars(30)
    found = bundle.predict(frame)
    window = inputs(frame)[20:30]
    for ahead in range(1, 6):
        price = 1890.0 + 55.0 * float(np.asarray(model(window[np.newaxis]))[0, 0])
        if ahead in (1, 2, 5):
            assert found[f"mean_{ahead}"].iloc[29] == pytest.approx(price, abs=2e-3)
        last = window[-1].copy()
        last[[0, 2, 3]] = (price - MEAN[0]) / SCALE[0], (1888.0 - MEAN[2]) / SCALE[2], (price - MEAN[3]) / SCALE[3]
        window = np.concatenate([window[1:], last[np.newaxis]])
    self_test(bundle)
    one = convert(model, SPEC, tmp_path / "one").predict(frame)["mean_1"]
    assert one.tolist() == found["mean_1"].tolist()
