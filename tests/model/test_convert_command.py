"""`tickcast convert` as users call it: a spec to fill in, a bundle, and one line for everything that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from daemon.cli import main
from daemon.model import Bundle

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning"),
]


@pytest.fixture
def tickcast(monkeypatch, capfd):
    """Run the program in this process; return its exit code and what it printed and complained."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tickcast", *map(str, arguments)])
        capfd.readouterr()
        code = main._exit_code()
        out, err = capfd.readouterr()
        return code, out, "\n".join(line for line in err.splitlines() if line.startswith("tickcast:"))

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a model of windows (10, 3) in it."""
    from keras import Input, Sequential, layers

    from tests.model.models import randomised

    home = tmp_path_factory.mktemp("command")
    stack = [layers.LSTM(6, stateful=True), layers.Dense(1)]
    randomised(Sequential([Input(batch_shape=(1, 10, 3)), *stack], name="own")).save(home / "own.h5")
    return home


SPEC = 'features = ["return", "spread", "wait"]\n[[output]]\nhorizon = 5\nkind = "log_return"\nscale = 1e-5\n'


def test_from_a_model_to_a_spec_to_a_bundle(folder, tickcast, tmp_path):
    spec, out = tmp_path / "own.toml", tmp_path / "bundle"
    code, printed, _ = tickcast("convert", folder / "own.h5", "--init", "--spec", spec)
    assert (code, printed) == (0, f"wrote {spec}; fill in its features, scaler and outputs\n")
    assert tickcast("convert", folder / "own.h5", "--init")[1] == spec.read_text()
    code, _, complaint = tickcast("convert", folder / "own.h5", "--spec", spec, "--out", out)
    assert (code, complaint.endswith("lists what it can be")) == (2, True)
    text = spec.read_text()
    for name in ("return", "spread", "wait"):
        text = text.replace('    "",', f'    "{name}",', 1)
    spec.write_text(text)
    code, printed, complaint = tickcast("convert", folder / "own.h5", "--spec", spec, "--out", out)
    assert (code, complaint) == (0, "")
    first, sentence, *_, proof, last = printed.splitlines()
    assert first == "model own: 3 columns, 1 output, runs on numpy"
    assert sentence.startswith("mode window: every tick runs the model over the instrument's last 10 ticks")
    assert "overlapping windows without resets count each tick many times over" in sentence
    assert proof.startswith("proof: 1,000 windows of 10 ticks against the original model, largest difference ")
    assert last == f"wrote {out}, bundle {Bundle.load(out).id}"


def test_as_json_with_how_far_the_modes_differ(folder, tickcast, tmp_path):
    rng = np.random.default_rng(0)
    mid = 100 * np.exp(np.cumsum(rng.normal(0, 1e-4, 300)))
    lines = [
        json.dumps(
            {"instrument": "AB"[row % 2], "ts": 1_704_207_600 * 10**9 + row * 10**8, "bid": p - 0.01, "ask": p + 0.01}
        )
        for row, p in enumerate(mid)
    ]
    (tmp_path / "ticks.jsonl").write_text("\n".join(lines))
    (tmp_path / "own.toml").write_text(SPEC)
    arguments = ("--spec", tmp_path / "own.toml", "--out", tmp_path / "bundle", "--data", tmp_path / "ticks.jsonl")
    code, printed, _ = tickcast("convert", folder / "own.h5", *arguments, "--mode", "carried", "--json")
    assert code == 0
    found = json.loads(printed)
    assert (found["mode"], found["steps"], found["why"]) == (
        "carried",
        1,
        "as asked; its input has a fixed time of 10 ticks",
    )
    assert found["proof"]["difference"] <= 1e-5
    assert found["id"] == Bundle.load(tmp_path / "bundle").id
    modes = found["modes"]
    assert (modes["ticks"], modes["instruments"], modes["steps"]) == (300, 2, 10)
    assert modes["difference"] > 0
    assert set(modes["r2"]["5"]) == {"window", "carried"}
    code, printed, _ = tickcast("convert", folder / "own.h5", *arguments, "--force")
    assert "modes on 300 ticks of 2 instruments: window of 10 and carried differ by " in printed
    assert "  R² against no change in 5 ticks: window " in printed


WRONG = {
    "no spec": (("--out", "bundle"), None, 2, "convert needs --spec and --out; `tickcast convert"),
    "no out": (("--spec", "spec.toml"), SPEC, 2, "convert needs --spec and --out"),
    "no such mode": (("--mode", "both"), SPEC, 2, "Invalid value for '--mode'"),
    "unknown key": (
        ("--spec", "spec.toml", "--out", "bundle"),
        "stepz = 1\n" + SPEC,
        2,
        "unknown key stepz; did you mean",
    ),
    "columns": (
        ("--spec", "spec.toml", "--out", "bundle"),
        SPEC.replace(', "wait"', ""),
        2,
        "spec.toml: features names 2 columns, the model own reads 3",
    ),
    "exists": (
        ("--spec", "spec.toml", "--out", "."),
        SPEC,
        2,
        ". exists; choose another path, or replace it with --force",
    ),
    "parent": (("--spec", "spec.toml", "--out", "no/bundle"), SPEC, 2, "no/bundle: its parent folder does not exist"),
    "data": (
        ("--spec", "spec.toml", "--out", "bundle", "--data", "gone.csv"),
        SPEC,
        8,
        "gone.csv: no such file",
    ),
    "init over a spec": (("--init", "--spec", "spec.toml"), SPEC, 2, "spec.toml exists; choose another path"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(folder, tickcast, tmp_path, monkeypatch, name):
    arguments, spec, expected, message = WRONG[name]
    monkeypatch.chdir(tmp_path)
    if spec is not None:
        (tmp_path / "spec.toml").write_text(spec)
    code, printed, complaint = tickcast("convert", folder / "own.h5", *arguments)
    assert (code, printed) == (expected, "")
    assert message in complaint
    assert complaint.count("\n") == 0
    assert [file.name for file in tmp_path.iterdir()] == ([] if spec is None else ["spec.toml"])


def test_a_lambda_in_the_file_is_refused_by_name(tickcast, tmp_path):
    keras2 = import_module("tf_keras")
    model = keras2.Sequential(
        [
            keras2.layers.LSTM(4, input_shape=(10, 3)),
            keras2.layers.Lambda(lambda x: 2 * x, name="twice"),
            keras2.layers.Dense(1),
        ]
    )
    model.save(tmp_path / "old.h5")
    (tmp_path / "spec.toml").write_text(SPEC)
    code, _, complaint = tickcast(
        "convert", tmp_path / "old.h5", "--spec", tmp_path / "spec.toml", "--out", tmp_path / "bundle"
    )
    assert code == 3
    assert "layer twice (Lambda) is a Lambda: it runs code from the file" in complaint
    assert not (tmp_path / "bundle").exists()


def test_without_tensorflow_one_line_says_what_to_install(folder, tmp_path):
    (tmp_path / "spec.toml").write_text(SPEC)
    script = "import sys; sys.modules['keras'] = None; from daemon.cli.main import main; main()"
    arguments = ["convert", folder / "own.h5", "--spec", tmp_path / "spec.toml", "--out", tmp_path / "bundle"]
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == (
        "tickcast: error: conversion needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`\n"
    )
