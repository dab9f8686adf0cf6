"""Exports: what the state topic holds, as one file that can be carried away, kept, and audited from.

Text, one JSON object a line, compressed by gzip where the name ends in `.gz`:

    {"format": "tickcast state", "version": 1, "topic": "tickcast-state", "group_id": "tickcast", "partitions": [0, 1]}
    {"partition": 0, "key": "QQ==", "value": "VENTA..."}    a snapshot as in the topic; key and value in base64
    {"partition": 0, "key": "AG1hcmtlcg==", "value": "..."} the marker that they belong to, after them
    {"records": 2, "sha256": "9f86d0..."}                   the hash of all lines before this one

Invariants
----------
- Keys and values are those of the topic, to the bit.
- A file that is cut off or changed anywhere is refused.
- A file appears under its name only when it is whole.
"""

from __future__ import annotations

import gzip
import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import orjson

from daemon.core.records import InputRecord
from daemon.errors import SettingsError
from daemon.stored import Stored

FORMAT = "tickcast state"
VERSION = 1
#: States are nearly random numbers: higher levels cost time and save nothing to speak of.
GZIP_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Export:
    """A file's contents."""

    topic: str
    group_id: str
    #: Partition -> what it held; one that held nothing is there as well.
    partitions: dict[int, Stored] = field(default_factory=dict)


def write_export(
    path: Path, topic: str, group_id: str, partitions: Sequence[int], stored: Iterable[tuple[int, Stored]]
) -> int:
    """Write an export, replacing a file that is there.

    Parameters
    ----------
    partitions : all that the file speaks for
    stored : what each of them holds; taken one by one, so that only one has to be in memory

    Returns
    -------
    record_count : snapshots and markers

    Raises
    ------
    SettingsError : the file cannot be written
    """
    head = {
        "format": FORMAT,
        "version": VERSION,
        "topic": topic,
        "group_id": group_id,
        "partitions": list(partitions),
    }
    digest, count = hashlib.sha256(), 0
    with _whole(path) as file:
        _put(file, digest, head)
        for partition, held in stored:
            for key, value in held.records():
                line = {"partition": partition, "key": b64encode(key).decode(), "value": b64encode(value).decode()}
                _put(file, digest, line)
                count += 1
        file.write(orjson.dumps({"records": count, "sha256": digest.hexdigest()}) + b"\n")
    return count


def read_export(path: Path) -> Export:
    """Read an export back.

    Raises
    ------
    SettingsError : it is none, was cut off or changed, or is of another version
    """
    try:
        with _opened(path) as file:
            return _parse(file)
    except (OSError, EOFError) as error:
        raise SettingsError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} is no whole export: {error}; make it anew with `tickcast state export`") from error


def _parse(file: IO[bytes]) -> Export:
    digest = hashlib.sha256()
    lines = iter(file)
    first = next(lines, b"")
    head = orjson.loads(first)
    if head.get("format") != FORMAT or head["version"] != VERSION:
        raise ValueError(f"its first line is not that of an export of version {VERSION}")
    export = Export(head["topic"], head["group_id"], {int(p): Stored() for p in head["partitions"]})
    digest.update(first)
    for count, line in enumerate(lines):
        content: dict[str, Any] = orjson.loads(line)
        if "sha256" in content:
            if content != {"records": count, "sha256": digest.hexdigest()} or next(lines, b""):
                raise ValueError("the checksum does not fit")
            return export
        digest.update(line)
        key, value = b64decode(content["key"], validate=True), b64decode(content["value"], validate=True)
        partition = content["partition"]
        export.partitions[partition].add([InputRecord(export.topic, partition, count, -1, key, value)])
    raise ValueError("its end is missing")


def _put(file: IO[bytes], digest: Any, content: object) -> None:
    line = orjson.dumps(content) + b"\n"
    digest.update(line)
    file.write(line)


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside the path, and give it its name at the end; without one where anything failed."""
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            with part.open("wb") as plain:
                if path.suffix == ".gz":  # the same bytes for the same state: neither name nor time
                    with gzip.GzipFile("", "wb", GZIP_LEVEL, plain, mtime=0) as file:
                        yield file  # type: ignore[misc]
                else:
                    yield plain
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror or error}") from error
