"""The bundle on disk: known by its id, refused in one line when anything is wrong, written whole or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.core.spec import Column, Output
from daemon.errors import BundleError
from daemon.model.bundle import Bundle, write_bundle
from daemon.model.manifest import Manifest
from daemon.model.selftest import self_test
from daemon.model.window_step import WindowStep
from daemon.revision import _engine
from tests.bundles import COLUMNS, OUTPUTS, reference_outputs, tiny_bundle, tiny_program
from tests.steps import RandomStep


@pytest.fixture
def bundle(tmp_path):
    return tiny_bundle(tmp_path)


def edit_manifest(bundle: Bundle, **changes: object) -> None:
    file = bundle.path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_load_gives_what_was_written(bundle):
    again = Bundle.load(bundle.path)
    assert again.id == bundle.id
    assert again.manifest == bundle.manifest
    assert again.spec.model_id == bundle.id
    assert again.spec.columns == COLUMNS
    assert again.spec.outputs == OUTPUTS
    assert again.golden_inputs.dtype == again.golden_outputs.dtype == np.float32
    for name, weights in bundle.program.arrays().items():
        assert again.program.arrays()[name].tobytes() == weights.tobytes()


def test_id_is_short_hexadecimal_and_stays_the_same_for_the_same_model(tmp_path, bundle):
    assert len(bundle.id) == 16
    assert int(bundle.id, 16)
    assert tiny_bundle(tmp_path, name="again").id == bundle.id


def test_id_changes_with_weights_architecture_and_manifest(tmp_path, bundle):
    others = [
        tiny_bundle(tmp_path, name="weights", seed=1),
        tiny_bundle(tmp_path, name="units", units=9),
        tiny_bundle(tmp_path, name="layers", layers=2),
        tiny_bundle(tmp_path, name="columns", columns=(Column("wait"), *COLUMNS[1:])),
        tiny_bundle(tmp_path, name="outputs", outputs=(Output(2), OUTPUTS[1])),
        tiny_bundle(tmp_path, name="window", mode="window", steps=5),
        tiny_bundle(tmp_path, name="longer window", mode="window", steps=6),
        tiny_bundle(tmp_path, name="missing", missing="last"),
        tiny_bundle(tmp_path, name="unpublished", unpublished=(1,)),
    ]
    assert len({bundle.id, *(other.id for other in others)}) == 10


def test_notes_on_training_do_not_reach_the_id(bundle):
    edit_manifest(bundle, trained_on={"span": "2024-08-08"})
    assert Bundle.load(bundle.path).id == bundle.id


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"no bundle folder at .*nowhere; set \[model\] bundle"):
        Bundle.load(tmp_path / "nowhere")


def test_folder_without_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match="holds no bundle"):
        Bundle.load(tmp_path)


@pytest.mark.parametrize("name", ["manifest.json", "program.json", "weights.npz", "golden.npz", "id"])
def test_missing_file_is_named(bundle, name):
    (bundle.path / name).unlink()
    with pytest.raises(BundleError, match=f"{name} missing; write the bundle again"):
        Bundle.load(bundle.path)


def test_newer_format_asks_for_an_upgrade(bundle):
    edit_manifest(bundle, format=3, something_new=True)
    with pytest.raises(BundleError, match="has format 3, this version reads up to 2; upgrade tickcast"):
        Bundle.load(bundle.path)


def test_older_format_asks_for_a_new_bundle(bundle):
    edit_manifest(bundle, format=1)
    with pytest.raises(
        BundleError, match="has format 1, an older one than 2, which is read; write the bundle again with"
    ):
        Bundle.load(bundle.path)


def test_flipped_bit_in_the_weights_is_caught(bundle):
    file = bundle.path / "weights.npz"
    with np.load(file) as content:
        arrays = {name: content[name].copy() for name in content.files}
    arrays["0.recurrent"].view(np.uint32)[0, 0, 0] ^= 1
    np.savez(file, **arrays)
    with pytest.raises(BundleError, match="changed after the bundle was written"):
        Bundle.load(bundle.path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("volatility_prior", 0.5), ("columns", [{"feature": "wait"}, {"feature": "spread"}, {"feature": "imbalance"}])],
)
def test_changed_manifest_is_caught(bundle, key, value):
    edit_manifest(bundle, **{key: value})
    with pytest.raises(BundleError, match="changed after the bundle was written"):
        Bundle.load(bundle.path)


def test_changed_architecture_is_caught(bundle):
    file = bundle.path / "program.json"
    file.write_text(file.read_text().replace('"tanh"', '"relu"'))
    with pytest.raises(BundleError, match="changed after the bundle was written"):
        Bundle.load(bundle.path)


def test_bundle_of_a_foreign_id_is_caught(tmp_path, bundle):
    other = tiny_bundle(tmp_path, name="other", seed=1)
    shutil.copy(other.path / "id", bundle.path / "id")
    with pytest.raises(BundleError, match=f"id '{other.id}', contents '{bundle.id}'"):
        Bundle.load(bundle.path)


def test_pickled_arrays_are_refused(bundle):
    np.savez(bundle.path / "weights.npz", **{"0.kernel": np.array([{"code": print}], object)})
    with pytest.raises(BundleError, match="cannot read arrays"):
        Bundle.load(bundle.path)


@pytest.mark.parametrize("name", ["weights.npz", "golden.npz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"\x93NUMPY"])
def test_broken_array_files_are_refused(bundle, name, content):
    (bundle.path / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"cannot read arrays from .*{name}"):
        Bundle.load(bundle.path)


@pytest.mark.parametrize("name", ["manifest.json", "program.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[" * 100_000, "null", "[]", '{"engine": "numpy"}', '{"engine": "abacus"}']
)
def test_broken_json_is_refused(bundle, name, content):
    (bundle.path / name).write_text(content)
    with pytest.raises(BundleError, match=name):
        Bundle.load(bundle.path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = st.sampled_from(
    [(), ("engine",), ("n_features",), ("nodes",), ("nodes", 0), ("nodes", 0, "op"), ("nodes", 1, "inputs"),
     ("nodes", 0, "settings"), ("nodes", 0, "settings", "activation"), ("nodes", 1, "inputs", 0)]
)  # fmt: skip


@given(place=PLACES, value=JSON)
def test_any_program_gives_a_bundle_or_our_error(tmp_path_factory, place, value):
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    bundle = Bundle.load(path) if (path / "id").exists() else tiny_bundle(path.parent, name="fuzzed")
    content = {"top": bundle.program.describe()}
    *above, last = ("top", *place)
    spot = content
    for key in above:
        spot = spot[key]
    spot[last] = value
    original = (path / "program.json").read_text()
    (path / "program.json").write_text(json.dumps(content["top"]))
    try:
        with suppress(BundleError):  # any other error fails
            assert Bundle.load(path).id == bundle.id
    finally:
        (path / "program.json").write_text(original)


def test_weights_of_no_dimension_are_refused(bundle):
    with np.load(bundle.path / "weights.npz") as content:
        arrays = {name: np.float32(1) if name == "1.bias" else content[name] for name in content.files}
    np.savez(bundle.path / "weights.npz", **arrays)
    with pytest.raises(BundleError, match="do not fit together"):
        Bundle.load(bundle.path)


def test_archive_that_unpacks_beyond_the_bound_is_refused(bundle, monkeypatch):
    monkeypatch.setattr("daemon.model.folder.ARRAYS_BYTES_MAX", 1000)
    with pytest.raises(BundleError, match="more than 1000 bytes"):
        Bundle.load(bundle.path)


def test_absurd_width_is_refused(bundle):
    file = bundle.path / "program.json"
    description = json.loads(file.read_text())
    description["n_features"] = 10**12
    file.write_text(json.dumps(description))
    with pytest.raises(BundleError, match="do not fit together"):
        Bundle.load(bundle.path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": ()}, "columns"),
        ({"columns": (Column("a", std=0.0),)}, "column a: std must be above 0"),
        ({"outputs": (Output(0),)}, "horizon must be at least 1"),
        ({"outputs": (Output(1, scale=0.0),)}, "a scale of 0"),
        ({"outputs": (Output(1, residual_quantiles=((0.9, 1.0), (0.1, 2.0))),)}, "must increase"),
        ({"outputs": (Output(1, residual_quantiles=((0.0, 1.0),)),)}, "between 0 and 1"),
        ({"volatility_prior": float("nan")}, "volatility_prior"),
        ({"surprise": 1}, "surprise"),
        ({"steps": 5}, "steps = 5 needs mode = 'window'"),
        ({"mode": "window", "steps": 2000}, "steps"),
        ({"mode": "window", "steps": 1024, "columns": COLUMNS * 6}, "a window of 18432 numbers for each instrument"),
        ({"missing": "zero"}, "missing"),
        ({"unpublished": (0, 1)}, "no output is published"),
        ({"unpublished": (2,)}, "unpublished names output 2, the model has 2"),
        ({"outputs": (Output(1, of="log_variance"),)}, "no output says a mean"),
        ({"outputs": (Output(1), Output(1, of=1.5))}, "the level of a quantile lies between 0 and 1, found 1.5"),
    ],
)
def test_manifest_refuses_what_makes_no_sense(change, message):
    with pytest.raises(ValueError, match=message):
        Manifest(**({"columns": COLUMNS, "outputs": OUTPUTS} | change))


def test_a_bundle_in_window_mode_tells_the_core_and_passes_its_self_test(tmp_path):
    made = tiny_bundle(tmp_path, mode="window", steps=5, missing=0.5)
    assert (made.spec.mode, made.spec.steps, made.spec.missing) == ("window", 5, 0.5)
    step = self_test(Bundle.load(made.path))
    assert (type(step).__name__, step.steps) == ("WindowStep", 5)


def test_the_engine_in_a_window_counts_for_the_revision(tmp_path):
    made = tiny_bundle(tmp_path, mode="window", steps=5).step()
    names = {_engine(step) for step in (made, made.inner, WindowStep(RandomStep(3, 2), 5))}
    assert names == {"NumpyStep", "WindowStep(NumpyStep)", "WindowStep(RandomStep)"}


def test_an_initial_state_of_the_wrong_length_is_refused(tmp_path):
    with pytest.raises(BundleError, match="has a state of 16 numbers, its initial_state has 3"):
        tiny_bundle(tmp_path, initial_state=(1.0, 2.0, 3.0))


def parts(**changes):
    program = tiny_program(3, 2)
    inputs = np.zeros((64, 3), np.float32)
    given = {"manifest": Manifest(columns=COLUMNS, outputs=OUTPUTS, golden_steps=64), "program": program}
    return given | {"golden_inputs": inputs, "golden_outputs": reference_outputs(program, inputs)} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"program": tiny_program(4, 2)}, "reads 4 columns, the manifest names 3"),
        ({"program": tiny_program(3, 5)}, "has 5 outputs, the manifest names 2"),
        ({"golden_inputs": np.zeros((63, 3), np.float32)}, "golden vectors have shapes"),
    ],
)
def test_nothing_is_written_when_parts_do_not_fit(tmp_path, changes, message):
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "out", **parts(**changes))
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused(tmp_path):
    program = tiny_program(3, 2)
    program.arrays()["0.bias"][0, 0] = np.nan
    with pytest.raises(BundleError, match="NaN or infinite"):
        write_bundle(tmp_path / "out", **parts(program=program))


def test_failure_while_writing_leaves_the_old_bundle_and_no_scraps(tmp_path, bundle, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("daemon.model.folder.write_arrays", fail)
    with pytest.raises(BundleError, match=r"cannot write a bundle at .*: No space left on device"):
        write_bundle(bundle.path, **parts(), replace=True)
    assert list(tmp_path.iterdir()) == [bundle.path]
    assert Bundle.load(bundle.path).id == bundle.id


def test_existing_bundle_is_replaced_only_on_demand(tmp_path, bundle):
    given = parts(program=tiny_program(3, 2, seed=5))
    given["golden_outputs"] = reference_outputs(given["program"], given["golden_inputs"])
    with pytest.raises(BundleError, match="exists; choose another folder or replace it with --force"):
        write_bundle(bundle.path, **given)
    assert Bundle.load(bundle.path).id == bundle.id
    replaced = write_bundle(bundle.path, **given, replace=True)
    assert Bundle.load(bundle.path).id == replaced.id != bundle.id
    assert list(tmp_path.iterdir()) == [bundle.path]


def test_missing_parent_folder_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"cannot write a bundle at .*gone.*: No such file"):
        write_bundle(tmp_path / "gone" / "out", **parts())


def test_canary_ticks_are_the_same_every_time_and_carry_the_fields_the_columns_read(tmp_path):
    columns = (Column("return"), Column("field:close"), Column("log:field:volume"))
    bundle = tiny_bundle(tmp_path, columns=columns)
    assert bundle.canary_ticks == Bundle.load(bundle.path).canary_ticks
    ticks = [orjson.loads(value) for value in bundle.canary_ticks]
    assert len(ticks) == 24
    assert [tick["ts"] for tick in ticks] == sorted({tick["ts"] for tick in ticks})
    assert {frozenset(tick["fields"]) for tick in ticks} == {frozenset({"close", "volume"})}
    assert any("bid" in tick for tick in ticks)
    assert any("price" in tick for tick in ticks)
    assert all(tick["ask"] > tick["bid"] for tick in ticks if "bid" in tick)


def test_serving_imports_neither_tensorflow_nor_keras(bundle):
    script = (
        "import sys; from pathlib import Path; from daemon.model.bundle import Bundle; "
        "from daemon.model.selftest import self_test; self_test(Bundle.load(Path(sys.argv[1]))); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'h5py')))"
    )
    subprocess.run([sys.executable, "-c", script, str(bundle.path)], check=True)
