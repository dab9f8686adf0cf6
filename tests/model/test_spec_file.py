"""The spec file: what it says becomes the manifest, and what it cannot mean is refused in one line."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
import tomllib

import numpy as np
import pytest

from daemon.core.spec import Column, Output
from daemon.errors import SettingsError, TickcastError
from daemon.model.facts import Facts, StateTensor, decide_mode, explain
from daemon.model.spec_file import read_spec
from daemon.model.spec_manifest import manifest_of
from daemon.model.template import template

GOLD = Facts(
    name="gold",
    inputs=(("bars", 5),),
    n_outputs=1,
    batch=1,
    steps=10,
    stateful=("lstm", "lstm_1"),
    recurrent_count=2,
    state=(StateTensor("lstm.h", 3), StateTensor("lstm.c", 3), StateTensor("lstm_1.h", 2), StateTensor("lstm_1.c", 2)),
)
FREE = dataclasses.replace(GOLD, name="free", batch=None, steps=None, stateful=())
SPEC = {
    "features": ["field:open", "field:high", "field:low", "price", "log:field:volume"],
    "scaler": {"mean": [1890.0, 1895.0, 1885.0, 1890.0, 5.0], "scale": [55.0, 56.0, 57.0, 55.0, 1.2]},
    "output": [{"horizon": 1, "kind": "price", "scaler": "price"}],
}


def manifest(facts=GOLD, mode="window", **change):
    return manifest_of(read_spec({**SPEC, **change}), facts, mode)


def test_columns_scales_and_outputs_are_those_of_the_spec():
    found = manifest()
    assert (found.mode, found.steps) == ("window", 10)
    assert found.columns[1] == Column("field:high", "frozen", 1895.0, 56.0)
    assert found.outputs == (Output(1, "price", mean=1890.0, scale=55.0),)
    assert found.missing == "dead_letter"
    assert found.initial_state == ()


def test_a_file_says_the_same_as_a_dict(tmp_path):
    (tmp_path / "gold.toml").write_text(
        """
        features = ["field:open", "field:high", "field:low", "price", "log:field:volume"]
        [scaler]
        mean = [1890.0, 1895.0, 1885.0, 1890.0, 5.0]
        scale = [55.0, 56.0, 57.0, 55.0, 1.2]
        [[output]]
        horizon = 1
        kind = "price"
        scaler = "price"
        """
    )
    assert read_spec(tmp_path / "gold.toml") == read_spec(SPEC)


# --- scalers ----------------------------------------------------------------------------------------------------------


def test_a_minmax_scaler_gives_what_the_formula_gives():
    low, high, least, most = -1.0, 1.0, [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 9.0, 5.0, 8.0]
    scaler = {"kind": "minmax", "min": least, "max": most, "feature_range": [low, high]}
    x = np.array([1.3, 3.0, 2.0, 6.0, 5.0])
    expected = (x - least) / (np.array(most) - least) * (high - low) + low
    found = [
        (value - column.mean) / column.std for value, column in zip(x, manifest(scaler=scaler).columns, strict=True)
    ]
    assert found == pytest.approx(expected.tolist(), rel=1e-14)


@pytest.mark.parametrize("ending", ["json", "npz"])
@pytest.mark.parametrize("names", ["ours", "scikit-learn's"])
@pytest.mark.parametrize("kind", ["standard", "minmax"])
def test_a_scaler_file_is_read_from_beside_the_spec(tmp_path, ending, names, kind):
    tail = "_" if names != "ours" else ""
    numbers = {"mean": [1.0, 2, 3, 4, 5], "scale": [2.0, 2, 2, 2, 4]}
    content = {f"{name}{tail}": values for name, values in numbers.items()}
    expected = {"scaler": numbers}
    if kind == "minmax":
        numbers = {"min": [1.0, 2, 3, 4, 5], "max": [2.0, 3, 4, 5, 9]}
        head = "data_" if tail else ""
        content = {f"{head}{name}{tail}": values for name, values in numbers.items()}
        content |= {"feature_range": [0.0, 2.0]} | ({"scale_": [1.0] * 5} if tail else {})
        expected = {"scaler": {"kind": "minmax", "feature_range": [0.0, 2.0], **numbers}}
    folder = tmp_path / "models"
    folder.mkdir()
    if ending == "json":
        (folder / "scaler.json").write_text(json.dumps(content))
    else:
        np.savez(folder / "scaler.npz", **content)
    toml = f'scaler = "scaler.{ending}"\nfeatures = {json.dumps(SPEC["features"])}\n'
    (folder / "spec.toml").write_text(toml + '[[output]]\nhorizon = 1\nkind = "price"\n')
    found = manifest_of(read_spec(folder / "spec.toml"), GOLD, "window")
    assert found.columns == manifest(**expected).columns


@pytest.mark.parametrize("with_mean", [True, False])
def test_a_pickle_is_refused_with_the_line_that_exports_it(tmp_path, with_mean):
    module = tmp_path / "fake_sklearn.py"
    module.write_text(
        "import numpy as np\n"
        "class FakeScaler:\n"
        f"    with_mean = {with_mean}\n"
        "    def __init__(self):\n"
        "        self.mean_, self.scale_, self.var_ = np.arange(5.0), np.arange(1.0, 6.0), np.ones(5)\n"
    )
    file = tmp_path / "scaler.pkl"
    make = "import pickle, fake_sklearn; pickle.dump(fake_sklearn.FakeScaler(), open('scaler.pkl', 'wb'))"
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True)
    spec = {**SPEC, "scaler": str(file)}
    with pytest.raises(
        SettingsError, match="is a pickle, and reading one runs code; export it once with python"
    ) as caught:
        read_spec(spec)
    assert "\n" not in str(caught.value)
    command = shlex.split(str(caught.value).partition("export it once with ")[2])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    columns = manifest(scaler=str(file.with_suffix(".json"))).columns
    assert [column.std for column in columns] == [1, 2, 3, 4, 5]
    assert [column.mean for column in columns] == ([0, 1, 2, 3, 4] if with_mean else [0.0] * 5)


def test_a_pickle_by_another_name_is_refused_too(tmp_path):
    (tmp_path / "scaler.json").write_bytes(b"\x80\x04.")
    with pytest.raises(SettingsError, match="is a pickle"):
        read_spec({**SPEC, "scaler": str(tmp_path / "scaler.json")})


def test_a_feature_may_follow_its_own_running_scale():
    found = manifest(scaler={**SPEC["scaler"], "running": ["field:low"]})
    assert found.columns[2] == Column("field:low", "running", 1885.0, 57.0)
    assert found.columns[1].scale == "frozen"


# --- states and roll-outs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['"lstm_1.h" = [0.25, -1]', "lstm_1.h = [0.25, -1]", "lstm_1 = { h = [0.25, -1] }"])
def test_initial_states_stand_in_the_place_of_their_tensor(text):
    table = tomllib.loads(f"[initial_state]\n{text}")["initial_state"]
    assert manifest(initial_state=table).initial_state == (0, 0, 0, 0, 0, 0, 0.25, -1, 0, 0)


def test_a_roll_out_names_the_future_of_every_feature():
    future = dict.fromkeys(SPEC["features"], "hold") | {"price": "output:0", "field:open": 1900}
    output = [{"kind": "price", "scaler": "price"}]
    found = manifest(future=future, horizons=[1, 5], output=output)
    assert found.future == (1900.0, "hold", "hold", "output:0", "hold")
    assert found.spec("m").horizons == (1, 5)


# --- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "wanted", "given", "mode"),
    [
        (10, None, None, "window"),
        (1, None, None, "carried"),
        (None, None, None, "carried"),
        (None, None, 20, "window"),
        (10, "carried", None, "carried"),
        (None, "window", None, "window"),
    ],
)
def test_the_shape_decides_the_mode_and_the_user_overrides(steps, wanted, given, mode):
    assert decide_mode(dataclasses.replace(GOLD, steps=steps), wanted, given).mode == mode


def test_the_sentence_on_the_mode_says_why_and_what_windows_do_to_a_stateful_model():
    sentence = explain(decide_mode(GOLD, None), GOLD, 10)
    assert "its input has a fixed time of 10 ticks" in sentence
    assert "overlapping windows without resets count each tick many times over" in sentence
    assert "many times over" not in explain(decide_mode(FREE, "window"), FREE, 10)
    assert "its input fixes no time" in explain(decide_mode(FREE, None), FREE, 1)


# --- what is refused --------------------------------------------------------------------------------------------------

REFUSED = {
    "unknown key": ({"stepz": 10}, "unknown key stepz; did you mean steps?"),
    "unknown key of a table": (
        {"output": [{"horizn": 1, "kind": "price"}]},
        r"unknown key output\.0\.horizn; did you mean horizon\?",
    ),
    "unknown key of the scaler": ({"scaler": {"means": [1.0]}}, r"unknown key scaler\.means; did you mean mean\?"),
    "unknown kind": ({"output": [{"horizon": 1, "kind": "level"}]}, r"output\.0\.kind = 'level'"),
    "no output": ({"output": []}, "output = "),
    "unknown mode": ({"mode": "stateful"}, "mode = 'stateful'"),
    "missing": ({"missing": "zero"}, "missing"),
    "no name": ({"features": ["price", "", "price", "price", "price"]}, "features: column 1 has no name yet"),
    "unknown feature": ({"features": ["prise"] * 5}, "unknown feature 'prise'.*did you mean price"),
    "columns": ({"features": ["price"]}, "features names 1 columns, the model gold reads 5"),
    "outputs": ({"output": SPEC["output"] * 2}, r"there are 2 \[\[output\]\] tables, the model gold has 1 outputs"),
    "window": ({"steps": 20}, "steps = 20, but the model gold reads windows of 10 ticks"),
    "length of the scaler": ({"scaler": {"mean": [1.0, 2.0]}}, "mean has 2 numbers, features names 5 columns"),
    "scale of a column": (
        {"scaler": {"scale": [1.0, 0.0, 1.0, 1.0, 1.0]}},
        "scale of field:high is 0, and must be above 0; a constant column has scale 1",
    ),
    "range of a column": (
        {"scaler": {"kind": "minmax", "min": [1.0] * 5, "max": [2.0, 2.0, 0.0, 2.0, 2.0]}},
        "max of field:low is 0, and must be above its min 1",
    ),
    "half a minmax": ({"scaler": {"kind": "minmax", "min": [0.0]}}, "a minmax scaler needs min and max"),
    "mixed scaler": ({"scaler": {"mean": [0.0] * 5, "max": [1.0] * 5}}, "max is no number of a standard scaler"),
    "two scales": ({"output": [{"horizon": 1, "kind": "price", "scaler": "price", "mean": 2.0}]}, "keep one"),
    "scale of no feature": (
        {"output": [{"horizon": 1, "kind": "price", "scaler": "field:opn"}]},
        "scaler names 'field:opn', none of the features; did you mean field:open",
    ),
    "no horizon": ({"output": [{"kind": "price"}]}, "output 0: horizon is missing"),
    "running": (
        {"scaler": {"running": ["field:lo"]}},
        "scaler.running: 'field:lo' is none of the features; did you mean",
    ),
    "unknown state": ({"initial_state": {"lstm.k": [1.0]}}, "the model has no state lstm.k; did you mean lstm.h"),
    "length of a state": (
        {"initial_state": {"lstm.h": [1.0]}},
        r"initial_state.lstm.h has 1 numbers, the model's has 3",
    ),
    "no state": ({"initial_state": {"lstm.h": "ones"}}, "initial_state.lstm.h is no list of numbers"),
    "future of nothing": ({"future": {"close": "hold"}, "horizons": [2]}, "future: 'close' is none of the features"),
    "future of some": (
        {"future": {"price": "hold"}, "horizons": [2]},
        'future: input field:open is missing; give it "output:K", "hold" or a number',
    ),
    "no future": ({"horizons": [2]}, "a roll-out needs both future and horizons"),
    "scaler file": ({"scaler": "nowhere.json"}, "no file at nowhere.json; its path is relative to the spec's folder"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(name):
    change, message = REFUSED[name]
    with pytest.raises(SettingsError, match=message) as caught:
        manifest(**change)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("the spec: ")


def test_two_outputs_of_one_horizon_are_refused():
    two = dataclasses.replace(GOLD, n_outputs=2)
    with pytest.raises(SettingsError, match="output 1: another output says the mean at horizon 1 already"):
        manifest(two, output=SPEC["output"] * 2)
    hidden = [SPEC["output"][0], {"horizon": 1, "kind": "difference", "publish": False}]
    assert manifest(two, output=hidden).published == (0,)


@pytest.mark.parametrize("content", [b"features = [", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused(tmp_path, content):
    (tmp_path / "bad.toml").write_bytes(content)
    with pytest.raises(TickcastError, match=r"bad\.toml"):
        read_spec(tmp_path / "bad.toml")


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(SettingsError, match=r"no spec at .*gone\.toml; `tickcast convert MODEL --init --spec"):
        read_spec(tmp_path / "gone.toml")


@pytest.mark.parametrize("facts", [GOLD, FREE, dataclasses.replace(FREE, n_outputs=3, inputs=(("a", 2), ("b", 3)))])
def test_the_template_is_a_valid_spec_once_the_features_have_names(tmp_path, facts):
    decision = decide_mode(facts, None)
    file = tmp_path / "spec.toml"
    file.write_text(template(facts, decision, "gold.h5"))
    with pytest.raises(SettingsError, match="features: column 0 has no name yet"):
        manifest_of(read_spec(file), facts, decision.mode)
    file.write_text(file.read_text().replace('    "",', '    "price",'))
    found = manifest_of(read_spec(file), facts, decision.mode)
    assert len(found.columns) == 5
    assert [output.horizon for output in found.outputs] == [1, 2, 3][: facts.n_outputs]
    assert found.steps == (10 if facts is GOLD else 1)
