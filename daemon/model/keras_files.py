"""Model files, untrusted: what kind a file is, whether it is safe to unpack, and what it says of its model.

A `.keras` file is a zip of three members, an `.h5` file is HDF5. Both are looked at as a whole, sizes and description,
before Keras reads a byte of them; what else people save models as is refused with the way out.

Refusals are one line and do not name the file; `daemon.model.keras_model.load_keras` puts its name before them.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from daemon.errors import BundleError
from daemon.model.keras_description import CONFIG_BYTES_MAX, SAVE_AGAIN, Spec, parse
from daemon.model.keras_hdf5 import opened, text_of
from daemon.model.keras_rules import first_line

#: Bound on a model file and on what unpacks from it: files are not trusted to be reasonable.
FILE_BYTES_MAX = 1024**3

_METADATA, _CONFIG, _WEIGHTS = "metadata.json", "config.json", "model.weights.h5"
_PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".dill")


@dataclass(frozen=True)
class Header:
    """What a file says about its model."""

    keras_version: str
    #: True for a file of Keras 2 or 1.
    is_legacy: bool
    #: The description as in the file; nobody changes it.
    spec: Spec


def read_header(file: Path) -> Header:
    """Look at a whole `.keras` or `.h5` file and read its version and its description, both checked.

    Raises
    ------
    BundleError : if it is no model file, cut short, damaged, too large, or holds code
    """
    check_kind(file)
    if file.stat().st_size > FILE_BYTES_MAX:
        raise BundleError(f"it holds more than {FILE_BYTES_MAX} bytes; no model of ticks is that large")
    try:
        version, text = _read_zip(file) if file.suffix == ".keras" else _read_h5(file)
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"it is damaged ({first_line(error)}); copy it again") from error
    if not re.match(r"\d+(\.|$)", version):
        raise BundleError(f"its keras_version is {version[:40]!r}, no version; {SAVE_AGAIN}")
    legacy = int(version.partition(".")[0]) < 3
    if legacy and file.suffix == ".keras":
        raise BundleError(f"Keras {version[:40]} wrote it; save it as .h5 there, with model.save('model.h5')")
    return Header(version, legacy, parse(text, legacy=legacy))


def check_kind(file: Path) -> None:
    """Refuse what is no `.keras` or `.h5` file, with the way to make one.

    Raises
    ------
    BundleError : says how to save the model
    """
    if file.is_dir():
        kind = "a SavedModel folder" if (file / "saved_model.pb").exists() else "a folder"
        raise BundleError(
            f"it is {kind}; where it was made, load it with tf.keras.models.load_model and save it with "
            "model.save('model.h5')"
        )
    if file.suffix in _PICKLES:
        raise BundleError(
            "it is a pickle, which runs code when it is opened; save the Keras model itself with "
            "model.save('model.keras')"
        )
    if file.suffix not in (".keras", ".h5", ".hdf5"):
        raise BundleError("expected a .keras or .h5 model file")


def _read_h5(file: Path) -> tuple[str, str]:
    if zipfile.is_zipfile(file):
        raise BundleError("it is a zip, no HDF5 file; give it the ending .keras")
    with opened(file) as archive:
        if "model_config" not in archive.attrs:
            raise BundleError(f"no model_config in it: it holds weights without a model; {SAVE_AGAIN}")
        version = text_of(archive, "keras_version") if "keras_version" in archive.attrs else "2"
        return version, text_of(archive, "model_config")


def _read_zip(file: Path) -> tuple[str, bytes]:
    if not zipfile.is_zipfile(file):
        raise BundleError(f"it is no zip as .keras files are, cut short, damaged or of another format; {SAVE_AGAIN}")
    with zipfile.ZipFile(file) as archive:
        members = {member.filename: member for member in archive.infolist()}
        _check_members(archive)
        if members[_METADATA].file_size > CONFIG_BYTES_MAX or members[_CONFIG].file_size > CONFIG_BYTES_MAX:
            raise BundleError(
                f"its description is larger than {CONFIG_BYTES_MAX} bytes; no model of ticks is that large"
            )
        metadata = json.loads(archive.read(_METADATA))
        version = str(metadata.get("keras_version")) if isinstance(metadata, dict) else ""
        if _WEIGHTS in members:
            with opened(io.BytesIO(archive.read(_WEIGHTS))):
                pass
        return version, archive.read(_CONFIG)


def _check_members(archive: zipfile.ZipFile) -> None:
    """Allow the three members that Keras writes, once each; any other could lead out of the folder it unpacks to."""
    members = archive.infolist()
    names = [member.filename for member in members]
    for name in names:
        if name not in (_METADATA, _CONFIG, _WEIGHTS) or names.count(name) > 1:
            raise BundleError(f"member {name[:80]!r} in it is none that Keras writes for layers; {SAVE_AGAIN}")
    for name in (_METADATA, _CONFIG):
        if name not in names:
            raise BundleError(f"it has no {name}; {SAVE_AGAIN}")
    if sum(member.file_size for member in members) > FILE_BYTES_MAX:
        raise BundleError(f"it unpacks to more than {FILE_BYTES_MAX} bytes; no model of ticks is that large")
