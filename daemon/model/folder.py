"""Files of a bundle: bounded, pickle-free reading, and writing that leaves a whole folder or none."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from daemon.errors import BundleError

#: Far above any recurrent model of ticks (2 x LSTM(64) has 0.2 MB), far below what hurts.
ARRAYS_BYTES_MAX = 512 * 1024**2
TEXT_BYTES_MAX = 4 * 1024**2
#: A layer has three or four.
ARRAYS_MAX = 8192


def read_text(file: Path) -> str:
    """Read a small UTF-8 file.

    Raises
    ------
    BundleError : if it is unreadable or too large
    """
    try:
        if file.stat().st_size > TEXT_BYTES_MAX:
            raise BundleError(f"{file} is larger than {TEXT_BYTES_MAX} bytes; this is no bundle of ours")
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"cannot read {file}: {error}") from error


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    BundleError : if it is unreadable, too large or no JSON
    """
    try:
        return json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{file} is no valid JSON: {error}") from error


def read_arrays(file: Path) -> dict[str, NDArray[Any]]:
    """Read an uncompressed `.npz` of number arrays, without pickle.

    Raises
    ------
    BundleError : if it is none, too large, compressed, or holds Python objects
    """
    try:
        if file.stat().st_size > ARRAYS_BYTES_MAX:
            raise BundleError(f"{file} has more than {ARRAYS_BYTES_MAX} bytes; this is no bundle of ours")
        with zipfile.ZipFile(file) as archive:
            _check_members(file, archive.infolist())
        with np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, NotImplementedError, zipfile.BadZipFile) as error:
        raise BundleError(f"cannot read arrays from {file}: {str(error).partition(chr(10))[0]}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise BundleError(f"{file}: {name} is no array of numbers")
    return arrays


def _check_members(file: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse what can unpack to more than it is, or says two things under one name; `np.savez` writes neither."""
    if len(members) > ARRAYS_MAX or sum(member.file_size for member in members) > ARRAYS_BYTES_MAX:
        raise BundleError(f"{file} holds more than {ARRAYS_BYTES_MAX} bytes or {ARRAYS_MAX} arrays; no bundle of ours")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise BundleError(f"{file} is compressed, which no bundle of ours is")
    if len({member.filename for member in members}) < len(members):
        raise BundleError(f"{file} holds two arrays of one name; this is no bundle of ours")


def write_json(file: Path, content: object) -> None:
    """Write JSON that a person can read and a diff can show."""
    file.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", "utf-8")


def write_arrays(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays as an uncompressed `.npz`."""
    np.savez(file, allow_pickle=False, **arrays)


def copy(source: Path, target: Path) -> None:
    """Copy a file's content, not its dates or rights."""
    shutil.copyfile(source, target)


@contextmanager
def replacing(out: Path, *, replace: bool) -> Iterator[Path]:
    """Give a draft folder beside `out` that becomes `out` when the block ends, and vanishes when it fails.

    Raises
    ------
    BundleError : if `out` exists and `replace` is false, or nothing can be written there
    """
    if out.exists() and not replace:
        raise BundleError(f"{out} exists; choose another folder or replace it with --force")
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise BundleError(f"cannot write a bundle at {out}: {error.strerror}") from error
    try:
        # mkdtemp gives 0o700; the daemon may run as another user than the one who trains.
        draft.chmod(0o755)
        yield draft
        _take_place(draft, out)
    except OSError as error:
        raise BundleError(f"cannot write a bundle at {out}: {error.strerror}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _take_place(draft: Path, out: Path) -> None:
    """Rename the draft to `out`; a folder cannot be renamed onto a full one, so an old bundle steps aside first."""
    if not out.exists():
        draft.rename(out)
        return
    aside = draft.with_name(draft.name + ".old")
    out.rename(aside)
    try:
        draft.rename(out)
    except OSError:
        aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)
