"""Tick files: every format gives the same ticks, and every defect one line that says where and what to do."""

import gzip
import itertools
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from daemon.errors import TickFileError
from daemon.tick_files import read_ticks

TS = 1_723_161_254_024_619_568
QUOTE = {"instrument": "A", "ts": TS, "bid": 99.5, "ask": 100.5, "bid_size": 3.0, "ask_size": 4.0, "seq": 1}
TRADE = {"instrument": "B", "ts": TS + 1, "price": 7.0, "size": 2.0, "aggressor": "buy", "session": "monday"}
FIELDS = {"instrument": "A", "ts": TS + 2, "price": 100.0, "fields": {"open": 99.0, "close": 100.0}}
TICKS = [QUOTE, TRADE, FIELDS]

CSV = f"""\
ts_ns,instrument,kind,price,size,aggressor,bid,bid_size,ask,ask_size,seq,session,field:open,field:close
{TS},A,quote,,,,99.5,3,100.5,4,1,,,
{TS + 1},B,trade,7,2,buy,,,,,,monday,,
{TS + 2},A,trade,100,,,,,,,,,99,100
"""


def read(*paths: Path, in_order: bool = True) -> list[dict]:
    return list(read_ticks(paths, in_order=in_order))


def complaint(*paths: Path, in_order: bool = True) -> str:
    with pytest.raises(TickFileError) as caught:
        read(*paths, in_order=in_order)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(path: Path, text: str | bytes) -> Path:
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def write_parquet(path: Path, columns: dict) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("name", ["ticks.csv", "ticks.csv.gz", "TICKS.CSV"])
def test_csv_gives_ticks_without_their_empty_cells(tmp_path, name):
    assert read(write(tmp_path / name, CSV)) == TICKS


@pytest.mark.parametrize("name", ["ticks.jsonl", "ticks.jsonl.gz", "ticks.ndjson"])
def test_json_lines_give_the_same_ticks_as_csv(tmp_path, name):
    lines = b"\n".join(
        orjson.dumps(tick | {"kind": "x", "unknown": [1], "bid_size": tick.get("bid_size")}) for tick in TICKS
    )
    assert read(write(tmp_path / name, lines + b"\n\n")) == TICKS


def test_parquet_gives_the_same_ticks_as_csv(tmp_path):
    columns = {name: [tick.get(name) for tick in TICKS] for name in ("instrument", "ts", *QUOTE, *TRADE)}
    columns |= {f"field:{name}": [tick.get("fields", {}).get(name) for tick in TICKS] for name in ("open", "close")}
    assert read(write_parquet(tmp_path / "ticks.parquet", columns)) == TICKS


def test_parquet_timestamps_keep_their_nanoseconds_and_need_a_zone(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    columns = {"instrument": ["A"], "ts": pyarrow.array([TS], pyarrow.timestamp("ns", "UTC")), "price": [1.0]}
    assert read(write_parquet(tmp_path / "aware.parquet", columns))[0]["ts"] == TS
    columns["ts"] = pyarrow.array([TS], pyarrow.timestamp("ns"))
    assert "without a zone" in complaint(write_parquet(tmp_path / "naive.parquet", columns))


def test_iso_times_are_read_to_the_nanosecond(tmp_path):
    text = "ts,instrument,price\n2024-08-08T23:54:14.024619568Z,A,1\n"
    seconds = int(datetime(2024, 8, 8, 23, 54, 14, tzinfo=UTC).timestamp())
    assert read(write(tmp_path / "iso.csv", text))[0]["ts"] == seconds * 10**9 + 24_619_568


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    assert read(write(tmp_path / "bom.csv", b"\xef\xbb\xbf" + CSV.encode())) == TICKS


def test_a_large_file_is_read_as_a_stream(tmp_path):
    path = write(tmp_path / "cut.csv", CSV + "spoilt\n")
    assert list(itertools.islice(read_ticks([path], in_order=True), 3)) == TICKS  # the bad line is not reached


def test_a_tick_back_in_time_is_refused_with_its_line_only_where_order_matters(tmp_path):
    path = write(tmp_path / "back.csv", f"instrument,ts,price\nA,{TS},1\nB,{TS - 5},1\nA,{TS},1\nA,{TS - 1},1\n")
    assert "line 5: ts of A goes back in time; sort the file" in complaint(path)
    assert [tick["ts"] - TS for tick in read(path, in_order=False)] == [0, -5, 0, -1]


def test_order_is_kept_across_files(tmp_path):
    early = write(tmp_path / "early.csv", f"instrument,ts,price\nA,{TS},1\n")
    late = write(tmp_path / "late.csv", f"instrument,ts,price\nA,{TS + 1},1\n")
    assert [tick["ts"] for tick in read(early, late)] == [TS, TS + 1]
    assert "early.csv, line 2: ts of A goes back" in complaint(late, early)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "column instrument is missing; found no columns"),
        ("a.csv", "ts;instrument;price\n", "column instrument is missing; found ts;instrument;price"),
        ("a.csv", "instrument,price\n", "column ts (or ts_ns) is missing"),
        ("a.csv", "instrument,ts,bid\n", "column price, or bid and ask is missing"),
        ("a.csv", f"instrument,ts,price\nA,{TS},1\nA,{TS},1o\n", "line 3, column price: '1o' is no number"),
        ("a.csv", f"instrument,ts,price\nA,{TS},nan\n", "line 2, column price: 'nan' is no finite number"),
        ("a.csv", f"instrument,ts,price,field:x\nA,{TS},1,inf\n", "column field:x: 'inf' is no finite number"),
        ("a.csv", f"instrument,ts,price,seq\nA,{TS},1,1.5\n", "column seq: '1.5' is no integer"),
        ("a.csv", f"instrument,ts,price,aggressor\nA,{TS},1,B\n", "column aggressor: 'B' is neither buy nor sell"),
        ("a.csv", "instrument,ts,price\nA,1723161254024,1\n", "column ts: '1723161254024' is no event time"),
        ("a.csv", "instrument,ts,price\nA,2024-08-08T10:00:00,1\n", "is no event time"),
        ("a.csv", f"instrument,ts,price\n,{TS},1\n", "line 2: instrument is missing"),
        ("a.csv", f"instrument,ts,price\nA,{TS}\n", "line 2: 2 values for 3 columns"),
        ("a.csv", f'instrument,ts,price\nA,{TS},"1\n', "line 2: is no CSV"),
        ("a.csv", b"instrument,ts,price\n\xff\xfe,1,1\n", "is not UTF-8 text"),
        (
            "a.csv",
            gzip.compress(CSV.encode()),
            "is not UTF-8 text; save it as UTF-8, or give a compressed file its ending .gz",
        ),
        ("a.jsonl", '{"instrument": "A"\n', "line 1: is no JSON"),
        ("a.jsonl", "[1]\n", "line 1: is no JSON object"),
        ("a.jsonl", '{"instrument": "A", "price": 1}\n', "line 1: ts is missing"),
        ("a.jsonl", f'{{"instrument": 5, "ts": {TS}}}\n', "column instrument: '5' is no text"),
        ("a.jsonl", f'{{"instrument": "A", "ts": {TS}, "price": true}}\n', "column price: 'True' is no finite number"),
        ("a.jsonl", f'{{"instrument": "A", "ts": {TS}, "fields": 3}}\n', "column fields: '3' is no object of numbers"),
        ("a.parquet", "no parquet at all", "is no Parquet file"),
        ("a.txt", CSV, "unknown kind of tick file"),
    ],
)
def test_a_defect_is_named_in_one_line(tmp_path, name, content, expected):
    message = complaint(write(tmp_path / name, content))
    assert message.startswith(str(tmp_path / name))
    assert expected in message


def test_a_gzip_file_that_is_cut_or_none_is_refused(tmp_path):
    whole = gzip.compress(CSV.encode())
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(whole[:-20])
    assert "cannot be read" in complaint(cut)
    plain = tmp_path / "plain.csv.gz"
    plain.write_text(CSV)
    assert "cannot be read" in complaint(plain)


def test_a_missing_file_and_an_unknown_ending_are_refused_before_anything_is_read(tmp_path):
    for path, words in ((tmp_path / "absent.csv", "no such file"), (tmp_path / "a.xlsx", "known endings are .csv")):
        with pytest.raises(TickFileError, match=words):
            read_ticks([path], in_order=True)


def test_parquet_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert 'pip install "tickcast[parquet]"' in complaint(write(tmp_path / "a.parquet", "x"))


@pytest.mark.parametrize("name", ["ticks.csv.gz", "ticks.jsonl.gz"])
def test_a_small_file_that_unpacks_to_one_line_without_end_is_refused_before_it_fills_memory(tmp_path, name):
    file = tmp_path / name
    with gzip.open(file, "wb") as packed:
        packed.write(b"instrument,ts,price\n" if "csv" in name else b"")
        for _ in range(64):
            packed.write(b" " * 2**20)
    assert file.stat().st_size < 2**17
    tracemalloc.start()
    try:
        with pytest.raises(TickFileError, match=r"line [12]: is longer than 1048576 characters"):
            list(read_ticks([file], in_order=False))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
