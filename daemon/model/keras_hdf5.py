"""HDF5 files from strangers: opened to read only, and searched for what reaches outside or claims more than there is.

A link can lead to any file of this machine, a virtual or external dataset too; a dataset can claim a shape of any size
and store nothing. Keras writes none of these, so that a file with one is refused as a whole.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import h5py

from daemon.errors import BundleError
from daemon.model.keras_description import CONFIG_BYTES_MAX, SAVE_AGAIN
from daemon.model.keras_rules import first_line

#: Most groups, datasets and links in a file; a layer takes about ten.
LINKS_MAX = 20_000
#: Weights hardly compress: this leaves room for files packed again with gzip, and none for shapes without content.
EXPANSION_MAX = 8


@contextmanager
def opened(file: Path | IO[bytes]) -> Iterator[h5py.File]:
    """Open an HDF5 file whose every link and dataset has been looked at.

    Raises
    ------
    BundleError : if it is none, cut short, damaged, or holds what Keras does not write
    """
    if isinstance(file, Path) and not h5py.is_hdf5(file):
        raise BundleError(f"it is no HDF5 file, damaged or of another format; {SAVE_AGAIN}")
    try:
        archive = h5py.File(file, "r")
    except OSError as error:
        raise BundleError(f"the HDF5 file is cut short or damaged ({first_line(error)}); copy it again") from error
    with archive:
        _check(archive)
        yield archive


def text_of(group: h5py.Group, attribute: str) -> str:
    """Return an attribute as text; it takes no more memory than a description may."""
    if group.attrs.get_id(attribute).get_storage_size() > CONFIG_BYTES_MAX:
        raise BundleError(f"its {attribute} is larger than {CONFIG_BYTES_MAX} bytes; no model of ticks is that large")
    return _text(group.attrs[attribute])


def names_in(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names; Keras cuts one that is too long for HDF5 into numbered pieces."""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    pieces = itertools.takewhile(group.attrs.__contains__, (f"{attribute}{piece}" for piece in itertools.count()))
    return [_text(name) for piece in pieces for name in group.attrs[piece]]


def member(group: h5py.Group, path: str, kind: type) -> Any:
    """Return the group or dataset at a path."""
    found = group.get(path)
    if not isinstance(found, kind):
        raise BundleError(f"it has no {path}; {SAVE_AGAIN}")
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check(archive: h5py.File) -> None:
    size = archive.id.get_filesize()
    claimed = links = 0

    def refusal(name: str, link: Any) -> str | None:
        """Return what is wrong with a link or what it leads to; an error raised here would get lost in HDF5."""
        try:
            return look(name, link)
        except Exception as error:  # whatever h5py raises on damaged bytes
            return f"{name} in it is damaged ({first_line(error)}); copy it again"

    def look(name: str, link: Any) -> str | None:
        nonlocal claimed, links
        links += 1
        if links > LINKS_MAX:
            return f"the HDF5 file has more than {LINKS_MAX} parts; no model of ticks has so many"
        if not isinstance(link, h5py.HardLink):
            return f"{name} in it is only a link; {SAVE_AGAIN}"
        found = archive[name]
        if not isinstance(found, h5py.Dataset):
            return None
        if found.external or found.is_virtual or found.dtype.kind not in "biuf":
            return f"{name} in it is no plain array of numbers; {SAVE_AGAIN}"
        claimed += found.nbytes
        if claimed > EXPANSION_MAX * size:
            return f"{name} in it claims shape {found.shape}, more than the whole file holds; copy it again"
        return None

    try:
        what = archive.visititems_links(refusal)
    except Exception as error:  # likewise; a name that is no text raises inside h5py, which wraps it
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise BundleError(f"the HDF5 file is damaged ({first_line(cause)}); copy it again") from error
    if what is not None:
        raise BundleError(what)
