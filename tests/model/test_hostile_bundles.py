"""A bundle from a stranger: it is a model or one line that says why not, and reading it harms nobody.

Whoever writes a bundle can write the id that fits it, so the id protects nothing here: all of these carry a right one.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daemon.errors import BundleError
from daemon.model import folder
from daemon.model.bundle import Bundle, _identity, _parse_manifest
from daemon.model.program import parse_program
from daemon.model.selftest import self_test
from daemon.model.shelf import Shelf
from tests.bundles import tiny_bundle

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path).path


def reseal(path: Path) -> None:
    """Write the id that fits what stands there."""
    manifest = _parse_manifest(path, folder.read_json(path / "manifest.json"))
    program = parse_program(folder.read_json(path / "program.json"), folder.read_arrays(path / "weights.npz"))
    (path / "id").write_text(_identity(manifest, program) + "\n")


def change_manifest(path: Path, change: Change) -> None:
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    reseal(path)


def ticks() -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for n in range(200):
        bid = 100.0 + rng.normal()
        yield {"instrument": f"I{n % 3}", "ts": 1_767_225_600_000_000_000 + n * 10**9, "bid": bid, "ask": bid + 1.0}


def column(**keys: Any) -> Change:
    return lambda manifest: manifest["columns"][0].update(keys)


def output(**keys: Any) -> Change:
    return lambda manifest: manifest["outputs"][0].update(keys)


def top(**keys: Any) -> Change:
    return lambda manifest: manifest.update(keys)


REFUSED: dict[str, tuple[Change, str]] = {
    "a horizon beyond 64 bits": (output(horizon=10**30), "at most 1000000"),
    "a horizon that nobody lives to see": (output(horizon=2**31), "at most 1000000"),
    "a scale that is no number": (output(scale=float("inf")), "outputs.0.scale"),
    "a std whose square is 0": (column(std=1e-320), "std must be above 0"),
    "a std whose square is infinite": (column(std=1e308), "std must be above 0"),
    "a mean that is no number": (column(mean=float("nan")), "columns.0.mean"),
    "a prior whose square is infinite": (top(volatility_prior=1e308), "volatility_prior"),
    "an unknown feature": (column(feature="nothing"), "unknown feature 'nothing'"),
    "a feature that clears the screen": (column(feature="\x1b[2J\nreturn"), r"\\x1b\[2J\\nreturn' is no name"),
    "a feature as long as a book": (column(feature="field:" + "a" * 100_000), "is no name of a feature"),
    "transforms without end": (column(feature="log:" * 1000 + "field:x"), "is no name of a feature"),
    "more columns than any model": (lambda m: m.update(columns=m["columns"] * 200), "columns"),
    "a window of all memory": (top(mode="window", steps=10**12), "steps"),
    "golden steps without end": (top(golden_steps=10**12), "golden_steps"),
    "an initial state without end": (top(initial_state=[0.0] * (2**20 + 1)), "is larger than|initial_state"),
    "an initial state beyond float32": (top(initial_state=[1e308] * 16), "golden replay"),
    "a roll-out of a million runs": (top(horizons=[10**6], future=[]), "roll-out|horizons"),
    "an output that is not there": (top(unpublished=[10**30]), "unpublished names output"),
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("name", REFUSED)
def test_a_manifest_that_could_stop_or_fill_the_daemon_is_refused_in_one_line(bundle: Path, name: str) -> None:
    change, said = REFUSED[name]

    def load() -> None:
        change_manifest(bundle, change)
        self_test(Bundle.load(bundle))

    with pytest.raises(BundleError, match=said) as caught:
        load()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


HARMLESS: dict[str, Change] = {
    "forecasts beyond all numbers": output(mean=1e308),
    "a scale beyond all numbers": output(scale=1e308),
    "a scale below all numbers": output(scale=1e-320),
    "errors beyond all numbers": output(residual_variance=1e308, residual_quantiles=[[0.05, -1e308], [0.95, 1e308]]),
    "inputs beyond all numbers": column(mean=1e308, scale="frozen"),
    "no volatility": top(volatility_prior=5e-324),
    "no variance": top(validation_variance=1e-320),
    "notes within notes": top(trained_on=json.loads('{"a":' * 400 + "1" + "}" * 400)),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", HARMLESS)
def test_one_that_is_merely_absurd_gives_an_outcome_for_every_tick(bundle: Path, name: str) -> None:
    change_manifest(bundle, HARMLESS[name])
    found = Bundle.load(bundle).predict(ticks())
    assert len(found) == 200
    for each in found:
        assert each["reason"] == "non_finite" if "reason" in each else np.isfinite(each["mean"]).all()


# ---- files


def npz(file: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def npy(shape: str, descr: str = "<f4", content: bytes = b"") -> bytes:
    """Return an array's file whose header claims whatever it likes."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


ARCHIVES: dict[str, Callable[[Path], None]] = {
    "packed zeros": lambda file: npz(file, {"a.npy": npy("(1000000,)") + bytes(4 * 10**6)}, zipfile.ZIP_DEFLATED),
    "a claim of 4 TB": lambda file: npz(file, {"a.npy": npy(f"({2**40},)")}),
    "a claim beyond 64 bits": lambda file: npz(file, {"a.npy": npy(f"({2**40}, {2**40})")}),
    "a negative claim": lambda file: npz(file, {"a.npy": npy("(-1,)")}),
    "a shape that is a program": lambda file: npz(file, {"a.npy": npy("__import__('os').abort()")}),
    "a header without end": lambda file: npz(file, {"a.npy": npy("(" + "1," * 30_000 + ")")}),
    "objects": lambda file: npz(file, {"a.npy": npy("(1,)", "|O", b"cposix\nabort\n(tR.")}),
    "texts": lambda file: npz(file, {"a.npy": npy("(1,)", "<U1", b"abcd")}),
    "no array": lambda file: npz(file, {"a.txt": b"hello"}),
    "names that lead elsewhere": lambda file: npz(file, {"../../a.npy": npy("(1,)", content=b"abcd")}),
    "too many": lambda file: npz(file, {f"{n}.npy": b"" for n in range(9000)}),
    "a pipe": lambda file: os.mkfifo(file),
    "a device": lambda file: file.symlink_to("/dev/zero"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("what", ARCHIVES)
@pytest.mark.parametrize("name", ["weights.npz", "golden.npz"])
def test_arrays_that_claim_more_than_they_hold_or_are_none_are_refused(bundle: Path, name: str, what: str) -> None:
    (bundle / name).unlink()
    ARCHIVES[what](bundle / name)
    with pytest.raises(BundleError, match=name) as caught:
        Bundle.load(bundle)
    assert str(caught.value).isprintable()


def test_two_arrays_of_one_name_are_refused(bundle: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros(1, np.float32))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(bundle / "weights.npz", "a") as archive:
        archive.writestr(archive.namelist()[0], content.getvalue())
    with pytest.raises(BundleError, match="two arrays of one name"):
        Bundle.load(bundle)


@pytest.mark.parametrize("name", ["manifest.json", "program.json", "weights.npz", "golden.npz", "id"])
def test_a_file_that_leads_out_of_the_folder_is_refused_and_nothing_of_it_is_shown(bundle: Path, name: str) -> None:
    secret = bundle.parent / "secret"
    secret.write_text("secret-canary-0007")
    (bundle / name).unlink()
    (bundle / name).symlink_to(secret)
    with pytest.raises(BundleError, match=f"{name} leads out of the bundle's folder") as caught:
        Bundle.load(bundle)
    assert "canary" not in str(caught.value)


def test_links_within_the_folder_are_taken_as_kubernetes_makes_them(bundle: Path) -> None:
    (bundle / "..2026").mkdir()
    for name in ("manifest.json", "program.json", "weights.npz", "golden.npz", "id"):
        (bundle / name).rename(bundle / "..2026" / name)
        (bundle / name).symlink_to(Path("..2026") / name)
    assert self_test(Bundle.load(bundle)) is not None


def test_promoting_copies_a_bundle_and_nothing_that_lies_beside_it(bundle: Path, tmp_path: Path) -> None:
    (bundle / "keys").symlink_to("/etc")
    (bundle / "bomb").write_bytes(b"x")
    found = Shelf(bundle, tmp_path / "shelf").put(Bundle.load(bundle))
    assert sorted(each.name for each in found.iterdir()) == [
        "golden.npz", "id", "manifest.json", "program.json", "weights.npz",
    ]  # fmt: skip


def test_an_id_that_is_a_path_leads_to_no_bundle(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "shelf").mkdir()
    (bundle / "id").write_text("../bundle\n")
    found = Shelf(tmp_path / "none", tmp_path / "shelf").find("../bundle")
    with pytest.raises(BundleError, match="changed after the bundle was written"):
        Bundle.load(found)


def test_the_program_says_it_in_one_line_with_its_own_exit_code(bundle: Path, tmp_path: Path) -> None:
    (bundle / "id").write_text("\x1b]0;owned\x07")
    config = tmp_path / "tickcast.toml"
    config.write_text(f'[model]\nbundle = "{bundle}"\n[metrics]\nport = 0\n')
    command = [sys.executable, "-m", "daemon.cli.main", "run", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == BundleError.exit_code
    (line,) = done.stderr.splitlines()
    assert line.isprintable()
    assert "changed after the bundle was written" in line
