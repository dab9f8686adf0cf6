"""Tick files: CSV, JSON lines (both also gzipped) and Parquet, read as a stream of ticks that JSON can hold.

Columns carry the names of the `Tick` message; `ts_ns` is another name of `ts`, `field:NAME` fills `fields`, an empty
cell is an absent value, other columns are ignored. A file is judged by its form only, the numbers and times in it;
whether a tick makes sense (a crossed quote, a price of zero) is judged by the same code as in the daemon.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import orjson

from daemon.errors import TickFileError
from schemas.tick import event_time_ns

#: Where a row stands, for error messages ("line 7"), and its raw values by column.
Row = tuple[str, Mapping[str, object]]

FIELD_PREFIX = "field:"
#: Far above any tick; a small compressed file can hold one line without end.
LINE_CHARACTERS_MAX = 1024**2
REMEDY_ORDER = "sort the file by ts, and give several files in the order of their time"


class BadRow(TickFileError):
    """One row that cannot be read as a tick; others of its file may be."""

    def __init__(self, path: Path, place: str, column: str, value: object, problem: str) -> None:
        self.column, self.value, self.problem = column, value, problem
        found = "" if value is None else f"{str(value)[:40]!r} is "
        super().__init__(f"{path}, {place}{f', column {column}' if found else ''}: {found}{problem}")


def read_ticks(paths: Sequence[Path], *, in_order: bool) -> Iterator[dict[str, Any]]:
    """Read the ticks of files, one after the other.

    Parameters
    ----------
    paths : the endings name the formats
    in_order : refuse a tick whose `ts` is before the one before it of the same instrument

    Returns
    -------
    Iterator of dicts with the keys of `Tick`; `ts` is integer nanoseconds, absent values are absent keys

    Raises
    ------
    TickFileError : at once for a file that is missing or of unknown format, later for one with a bad row
    """
    sources = [(path, _rows_of(path)) for path in paths]
    return _ticks(sources, in_order)


def _ticks(sources: Iterable[tuple[Path, Iterator[Row]]], in_order: bool) -> Iterator[dict[str, Any]]:
    latest: dict[str, int] = {}
    for path, rows in sources:
        for place, row in rows:
            tick = _tick(path, place, row)
            if in_order:
                instrument, ts = tick["instrument"], tick["ts"]
                if ts < latest.get(instrument, ts):
                    raise TickFileError(f"{path}, {place}: ts of {instrument} goes back in time; {REMEDY_ORDER}")
                latest[instrument] = ts
            yield tick


def read_every_row(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    """Read the rows of files in whatever order they stand, bad ones included; what is no table at all still raises.

    Returns
    -------
    Iterator of the place of each row, and its tick as from `read_ticks` or what is wrong with it

    Raises
    ------
    TickFileError : a file is missing, of unknown format or without the columns of ticks
    """
    sources = [(path, _rows_of(path)) for path in paths]
    return _every_row(sources, several=len(paths) > 1)


def _every_row(
    sources: Iterable[tuple[Path, Iterator[Row]]], *, several: bool
) -> Iterator[tuple[str, dict[str, Any] | BadRow]]:
    for path, rows in sources:
        for place, row in rows:
            try:
                found: dict[str, Any] | BadRow = _tick(path, place, row)
            except BadRow as error:
                found = error
            yield (f"{path.name}, {place}" if several else place), found


def _tick(path: Path, place: str, row: Mapping[str, object]) -> dict[str, Any]:
    """Turn the raw values of a row into a tick."""
    tick: dict[str, Any] = {}
    fields: dict[str, float] = {}
    for column, value in row.items():
        if value is None or value == "":
            continue
        try:
            if column in _READERS:
                name, read = _READERS[column]
                tick[name] = read(value)
            elif column.startswith(FIELD_PREFIX):
                fields[column.removeprefix(FIELD_PREFIX)] = _number(value)
        except ValueError as error:
            raise BadRow(path, place, column, value, str(error)) from None
    for name in ("instrument", "ts"):
        if name not in tick:
            raise BadRow(path, place, name, None, f"{name} is missing; every tick needs one")
    if fields:
        tick["fields"] = {**tick.get("fields", {}), **fields}
    return tick


# ---- values: each reader takes what any of the formats brings, and says in ValueError what is wrong with it


def _number(value: object) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise ValueError("no number; leave it empty where there is none") from None
    if not math.isfinite(number):
        raise ValueError("no finite number; leave it empty where there is none")
    return number


def _integer(value: object) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
        if isinstance(number, float) and number.is_integer():  # a Parquet column with gaps holds floats
            number = int(number)
    except ValueError:
        number = None
    if type(number) is not int:
        raise ValueError("no integer")
    return number


def _time(value: object) -> int:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    try:
        return event_time_ns(value)
    except ValueError:
        raise ValueError("no event time: integer nanoseconds since the epoch, or ISO 8601 with an offset") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")  # noqa: TRY004 - one kind of error for all that can be wrong with a value
    return value


def _side(value: object) -> str:
    if value not in ("buy", "sell"):
        raise ValueError("neither buy nor sell")
    return str(value)


def _named_numbers(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError("no object of numbers")  # noqa: TRY004 - as above
    return {str(name): _number(number) for name, number in value.items() if number is not None}


#: Column -> key of the tick, and how its value is read.
_READERS: dict[str, tuple[str, Callable[[object], Any]]] = {
    "instrument": ("instrument", _text),
    "ts": ("ts", _time),
    "ts_ns": ("ts", _time),
    "price": ("price", _number),
    "size": ("size", _number),
    "aggressor": ("aggressor", _side),
    "bid": ("bid", _number),
    "ask": ("ask", _number),
    "bid_size": ("bid_size", _number),
    "ask_size": ("ask_size", _number),
    "seq": ("seq", _integer),
    "session": ("session", _text),
    "fields": ("fields", _named_numbers),
}


# ---- formats


def _rows_of(path: Path) -> Iterator[Row]:
    name = path.name.lower().removesuffix(".gz")
    formats = {".csv": _csv_rows, ".jsonl": _json_rows, ".ndjson": _json_rows, ".parquet": _parquet_rows}
    rows = next((rows for ending, rows in formats.items() if name.endswith(ending)), None)
    if rows is None:
        raise TickFileError(
            f"{path}: unknown kind of tick file; known endings are .csv, .jsonl, .ndjson (also with .gz) and .parquet"
        )
    if not path.is_file():
        raise TickFileError(f"{path}: no such file; check the path")
    return rows(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say in one line why a file cannot be read."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        raise TickFileError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}); is the file whole?"
        ) from error
    except UnicodeDecodeError as error:
        raise TickFileError(
            f"{path}: is not UTF-8 text; save it as UTF-8, or give a compressed file its ending .gz"
        ) from error


def _open_text(path: Path) -> TextIO:
    # utf-8-sig: spreadsheets put a byte order mark before the first column's name
    if path.name.lower().endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _bounded(path: Path, lines: TextIO) -> Iterator[str]:
    """Yield lines of a bounded length."""
    number = 0
    while line := lines.readline(LINE_CHARACTERS_MAX):
        number += 1
        if len(line) == LINE_CHARACTERS_MAX:
            raise TickFileError(f"{path}, line {number}: is longer than {LINE_CHARACTERS_MAX} characters; no tick is")
        yield line


def _csv_rows(path: Path) -> Iterator[Row]:
    with _readable(path), _open_text(path) as lines:
        reader = csv.reader(_bounded(path, lines), strict=True)
        try:
            header = next(reader, [])
            _check_columns(path, header)
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise TickFileError(
                        f"{path}, line {reader.line_num}: {len(cells)} values for {len(header)} columns"
                    )
                if cells:
                    yield f"line {reader.line_num}", dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise TickFileError(f"{path}, line {reader.line_num}: is no CSV ({error})") from error


def _json_rows(path: Path) -> Iterator[Row]:
    with _readable(path), _open_text(path) as lines:
        for number, line in enumerate(_bounded(path, lines), start=1):
            if not line.strip():
                continue
            try:
                row = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                raise TickFileError(
                    f"{path}, line {number}: is no JSON ({error}); one object a line is wanted"
                ) from error
            if not isinstance(row, dict):
                raise TickFileError(f"{path}, line {number}: is no JSON object")
            yield f"line {number}", row


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise TickFileError(f'{path}: reading Parquet needs pyarrow; pip install "tickcast[parquet]"') from error
    count = 0
    with _readable(path):
        try:
            with pq.ParquetFile(path) as file:
                _check_columns(path, file.schema_arrow.names)
                for batch in file.iter_batches(batch_size=8192):
                    for row in _integer_times(path, batch, pa).to_pylist():
                        count += 1
                        yield f"row {count}", row
        except pa.ArrowException as error:
            raise TickFileError(f"{path}: is no Parquet file ({str(error).splitlines()[0]})") from error


def _integer_times(path: Path, batch: Any, pa: Any) -> Any:
    """Replace a timestamp column by its nanoseconds; Python's own datetime would cut them to microseconds."""
    for name in ("ts", "ts_ns"):
        index = batch.schema.get_field_index(name)
        if index < 0 or not pa.types.is_timestamp(batch.schema.field(index).type):
            continue
        if batch.schema.field(index).type.tz is None:
            raise TickFileError(
                f"{path}, column {name}: times without a zone; store them as UTC, or as integer nanoseconds"
            )
        times = batch.column(index).cast(pa.timestamp("ns", "UTC")).cast(pa.int64())
        batch = batch.set_column(index, name, times)
    return batch


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    """Refuse a table that cannot hold ticks."""
    found = set(columns)
    if "instrument" not in found:
        missing = "instrument"
    elif not found & {"ts", "ts_ns"}:
        missing = "ts (or ts_ns)"
    elif "price" not in found and not {"bid", "ask"} <= found:
        missing = "price, or bid and ask"
    else:
        return
    raise TickFileError(f"{path}: column {missing} is missing; found {', '.join(columns)[:200] or 'no columns'}")
