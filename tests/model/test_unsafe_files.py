"""Model files from strangers: nothing in them runs, reads or takes memory; one line says what is wrong."""

from __future__ import annotations

import io
import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from daemon.errors import BundleError

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
    pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning"),
]
CONFIG, WEIGHTS = "config.json", "model.weights.h5"


@pytest.fixture(scope="module")
def load():
    from daemon.model.keras_model import load_keras

    return load_keras


@pytest.fixture(scope="module")
def good(tmp_path_factory, models, layers):
    """Return the members of a good `.keras` file."""
    file = tmp_path_factory.mktemp("good") / "good.keras"
    models.sequence(layers.LSTM(4, name="lstm"), layers.Dense(2, name="head")).save(file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(file, members, **more):
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*members.items(), *more.items()]:
            archive.writestr(name, content)
    return file


def changed(members, change):
    spec = json.loads(members[CONFIG])
    return members | {CONFIG: json.dumps(change(spec) or spec)}


def refused(load, file):
    with pytest.raises(BundleError) as caught:
        load(file)
    line = str(caught.value)
    assert line.startswith(f"cannot load {file}: ")
    assert "\n" not in line
    assert len(line) < 400
    return line


def test_the_untouched_file_loads(tmp_path, load, good):
    assert load(packed(tmp_path / "model.keras", good)).name


@pytest.mark.parametrize("ending", ["pkl", "pickle", "joblib", "pt", "pth"])
def test_pickle_is_refused_and_never_opened(tmp_path, load, ending):
    class Bomb:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    file = tmp_path / f"model.{ending}"
    file.write_bytes(pickle.dumps(Bomb()))
    assert "it is a pickle, which runs code when it is opened; save the Keras model itself with" in refused(load, file)
    assert not (tmp_path / "ran").exists()


def test_folders_and_wrong_endings_are_refused_with_the_way_out(tmp_path, load, good):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/saved_model.pb").write_bytes(b"")
    line = refused(load, tmp_path / "saved")
    assert "SavedModel folder; where it was made, load it with tf.keras.models.load_model and save it with" in line
    (tmp_path / "model.onnx").write_bytes(b"")
    assert "expected a .keras or .h5 model file" in refused(load, tmp_path / "model.onnx")
    assert "give it the ending .keras" in refused(load, packed(tmp_path / "model.h5", good))
    (tmp_path / "model.keras").write_bytes(good[WEIGHTS])
    assert "no zip as .keras files are" in refused(load, tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "assets/vocabulary.txt", "C:\\evil", CONFIG])
def test_members_that_keras_does_not_write_are_refused(tmp_path, load, good, name):
    assert f"member {name!r} in it is none that Keras writes" in refused(
        load, packed(tmp_path / "model.keras", good, **{name: b"{}"})
    )
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_bombs_are_refused_by_what_they_claim(tmp_path, load, good, monkeypatch):
    file = tmp_path / "model.keras"
    config = good | {CONFIG: b" " * 2 * 1024**2}
    assert "description is larger than 1048576 bytes" in refused(load, packed(file, config))
    assert file.stat().st_size < 20_000
    monkeypatch.setattr("daemon.model.keras_files.FILE_BYTES_MAX", 100_000)
    weights = good | {WEIGHTS: b"\0" * 200_000}
    assert "unpacks to more than 100000 bytes" in refused(load, packed(file, weights))


def weights_with(good, change):
    content = io.BytesIO(good[WEIGHTS])
    with h5py.File(content, "r+") as archive:
        change(archive)
    return good | {WEIGHTS: content.getvalue()}


def test_weights_that_claim_more_than_the_file_or_lead_out_of_it_are_refused(tmp_path, load, good, monkeypatch):
    file = tmp_path / "model.keras"
    (tmp_path / "secret").write_bytes(b"\0" * 1000)

    def found(change):
        return refused(load, packed(file, weights_with(good, change)))

    def shape(archive):
        archive.create_dataset("huge", (10**6, 10**6), np.float32, chunks=(100, 100))

    def outside(archive):
        archive.create_dataset("far", (5,), np.float32, external=[(str(tmp_path / "secret"), 0, 20)])

    def virtual(archive):
        layout = h5py.VirtualLayout((5,), np.float32)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (5,))
        archive.create_virtual_dataset("far", layout)

    def soft(archive):
        archive["near"] = h5py.SoftLink("/layers")

    def external(archive):
        archive["far"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")

    def words(archive):
        archive["words"] = ["a", "b"]

    assert "huge in it claims shape (1000000, 1000000), more than the whole file holds" in found(shape)
    for change in (outside, virtual, words):
        assert "is no plain array of numbers" in found(change)
    for change in (soft, external):
        assert "in it is only a link" in found(change)
    monkeypatch.setattr("daemon.model.keras_hdf5.LINKS_MAX", 5)
    assert "has more than 5 parts" in refused(load, packed(file, good))


def test_descriptions_too_deep_too_many_or_too_large_are_refused(tmp_path, load, good):
    file = tmp_path / "model.keras"

    def found(change):
        return refused(load, packed(file, changed(good, change)))

    def deep(spec):
        for _ in range(40):
            spec = {"class_name": "Sequential", "config": {"name": "s", "layers": [spec]}}
        return spec

    def many(spec):
        spec["config"]["layers"] += [spec["config"]["layers"][-1]] * 300

    def wide(spec):
        spec["config"]["layers"][1]["config"]["units"] = 10**6

    def nothing(spec):
        spec["config"]["layers"][1]["config"]["units"] = -1

    def batch(spec):
        spec["config"]["layers"][0]["config"]["batch_shape"] = [10**8, 10, 3]

    assert "layer s (Sequential) is nested deeper than 64 levels" in found(deep)
    assert "more than 256 layers" in found(many)
    assert "layer lstm (LSTM) claims more than 1073741824 bytes of weights" in found(wide)
    assert "layer lstm (LSTM) has a size that is no whole number above zero" in found(nothing)
    assert "has input shape [100000000, 10, 3]; sizes from 1 to 16384 are allowed" in found(batch)
    assert "is damaged" in refused(load, packed(file, good | {CONFIG: "[" * 100_000}))
    assert "describes no model" in refused(load, packed(file, good | {CONFIG: "[]"}))
    assert "no version" in refused(load, packed(file, good | {"metadata.json": "[]"}))


FOREIGN = {
    "Lambda": {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "odd", "function": "x"}},
    "lambda": {"module": "builtins", "class_name": "__lambda__", "config": {"value": "x"}},
    "saved model": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"name": "odd", "filepath": "."}},
    "torch": {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"name": "odd", "module": "x"}},
    "jax": {"module": "keras.layers", "class_name": "JaxLayer", "config": {"name": "odd"}},
    "file reader": {
        "module": "keras.layers", "class_name": "StringLookup",
        "config": {"name": "odd", "vocabulary": "/etc/hostname"},
    },
    "module": {"module": "tickcast_gadget", "class_name": "Gadget", "config": {"name": "odd"}},
    "package": {"module": "keras_hub.models", "class_name": "Gadget", "config": {"name": "odd"}},
    "registered": {
        "module": "tickcast_gadget", "class_name": "Gadget", "registered_name": "a>Gadget", "config": {"name": "odd"},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("place", ["layer", "activation", "kernel_initializer"])
def test_code_is_refused_wherever_it_stands(tmp_path, load, good, monkeypatch, name, place):
    (tmp_path / "tickcast_gadget.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)

    def forge(spec):
        layers = spec["config"]["layers"]
        if place == "layer":
            layers[2] = FOREIGN[name]
        else:
            layers[2]["config"][place] = FOREIGN[name]

    line = refused(load, packed(tmp_path / "model.keras", changed(good, forge)))
    if name != "lambda" or place != "layer":
        assert "layer odd (" in line or "layer head (Dense)" in line


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_damage_gives_one_of_our_errors_or_a_model(tmp_path, models, layers, load, ending):
    """Cut files and flipped bits, a few seeds: never another exception, never a crash."""
    lines = []
    file, broken = tmp_path / f"good.{ending}", tmp_path / f"broken.{ending}"
    models.sequence(layers.LSTM(4), layers.Dense(2)).save(file)
    content = np.frombuffer(file.read_bytes(), np.uint8)
    rng = np.random.default_rng(11)
    for seed in range(30):
        damaged = content.copy()
        if seed % 3 == 0:
            damaged = damaged[: rng.integers(len(damaged))]
        else:
            damaged[rng.integers(len(damaged), size=1 + seed)] ^= np.uint8(1 << rng.integers(8))
        broken.write_bytes(damaged.tobytes())
        try:
            load(broken)  # a hit among weights or padding goes unseen
        except BundleError as error:
            lines.append(str(error))
    assert lines
    for line in lines:
        assert "\n" not in line
        assert "cyfunction" not in line
