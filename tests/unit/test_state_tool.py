"""Looks at the state topic while somebody writes to it; exports; resets; and names for the numbers of a snapshot."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from daemon.core import marker as markers
from daemon.core.features import FeatureTable
from daemon.core.instrument import NEVER, Instrument
from daemon.core.marker import Marker
from daemon.core.records import Message, Record
from daemon.core.snapshot import Snapshot, decode, encode, encode_reset
from daemon.core.spec import Column
from daemon.errors import BrokerUnavailable, SettingsError
from daemon.stored import Stored
from daemon.tools.state_export import read_export, write_export
from daemon.tools.state_reset import Planner
from daemon.tools.state_topic import newest_marker, read_stored
from daemon.tools.state_view import cell_names, instrument_rows, iso_time, partition_row, snapshot_facts, snapshot_of
from daemon.transport.memory import MemoryReader
from daemon.transport.memory_log import Claim, MemoryLog
from daemon.transport.port import Readable
from schemas import ResetCause
from tests.ticks import START, record

REVISION = "revision-one"
MARKER = Marker("desk", "ticks-1", REVISION, 100, 0, 0, ResetCause.FIRST)


def snapshot(name: str, next_offset: int, **fields: object) -> Message:
    made = Instrument(name, -1, [0.5], None)
    made.last_offset = next_offset - 1
    for field, value in fields.items():
        setattr(made, field, value)
    return Message(0, name.encode(), encode(REVISION, next_offset, made, b"\0\0\x80?"))


def marker(next_offset: int) -> Message:
    return Message(0, markers.KEY, markers.encode(replace(MARKER, next_offset=next_offset)))


def reset(name: str, next_offset: int) -> Message:
    return Message(0, name.encode(), encode_reset(REVISION, next_offset, name, ResetCause.OPERATOR, 7))


def checkpoint(next_offset: int, *names: str) -> list[Message]:
    return [*(snapshot(name, next_offset) for name in names), marker(next_offset)]


def write(log: MemoryLog, messages: Iterable[Message], claim: Claim | None = None) -> Claim:
    """Write to the state topic and commit, unless in a transaction of somebody else."""
    ours = claim or log.claim("writer")
    log.begin(ours)
    for message in messages:
        log.append(ours, "state", message)
    if claim is None:
        log.end(ours, committed=True)
    return ours


def stored_of(messages: Iterable[Message]) -> Stored:
    made = Stored()
    made.add(record(m.value, at, key=m.key) for at, m in enumerate(messages))
    return made


class Ticking:
    """A clock that goes on by itself."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        self._now += 1.0
        return self._now


# --- looks at the topic -----------------------------------------------------------------------------------------------


def test_the_newest_checkpoint_and_later_resets_are_read() -> None:
    log = MemoryLog(1)
    write(log, checkpoint(10, "A", "B"))
    write(log, checkpoint(20, "A"))
    write(log, [reset("B", 25)])
    found = read_stored(MemoryReader(log), 0)
    read = {key: decode(key.decode(), value) for key, value in found.values.items()}
    assert found.marker() == replace(MARKER, next_offset=20)
    assert read[b"A"].next_offset == 20
    assert read[b"B"].is_reset


class CutReader(MemoryReader):
    """A reader whose end lies in the middle of what is there: a writer went on after it was asked."""

    def __init__(self, log: MemoryLog, end: int) -> None:
        super().__init__(log)
        self._end = end

    def bounds(self, topic: Readable, partition: int) -> tuple[int, int]:
        first, end = super().bounds(topic, partition)
        return first, min(end, self._end)

    def read(
        self, topic: Readable, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[Sequence[Record], int]:
        records, next_offset = super().read(topic, partition, offset, timeout_seconds, max_records)
        return [each for each in records if each.offset < self._end], min(next_offset, self._end)


@pytest.mark.parametrize("end", range(4, 7))
def test_a_look_that_ends_inside_a_checkpoint_shows_the_one_before(end: int) -> None:
    log = MemoryLog(1)
    write(log, checkpoint(10, "A", "B"))  # offsets 0 to 3, the end of the transaction among them
    write(log, checkpoint(20, "A", "B"))  # 4 to 6 and 7
    found = read_stored(CutReader(log, end), 0)
    assert found.marker() == replace(MARKER, next_offset=10)
    assert {decode(k.decode(), v).next_offset for k, v in found.values.items()} == {10}


def test_an_aborted_checkpoint_is_not_seen_and_an_open_one_is_waited_for() -> None:
    log = MemoryLog(1)
    write(log, checkpoint(10, "A"))
    aborted = write(log, checkpoint(20, "A"), log.claim("killed"))
    with pytest.raises(BrokerUnavailable, match="transaction"):
        read_stored(MemoryReader(log), 0, patience_seconds=5, monotonic=Ticking())
    log.end(aborted, committed=False)
    assert read_stored(MemoryReader(log), 0).marker() == replace(MARKER, next_offset=10)


class WritingReader(MemoryReader):
    """A reader during whose first read the log goes on and is compacted."""

    def __init__(self, log: MemoryLog, more: list[Message]) -> None:
        super().__init__(log)
        self._log_written, self._more = log, more

    def read(
        self, topic: Readable, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[Sequence[Record], int]:
        if self._more:
            write(self._log_written, self._more)
            self._more = []
            self._log_written.compact("state", 0)
        return super().read(topic, partition, offset, timeout_seconds, 1)


def test_what_is_compacted_away_during_the_look_is_found_behind_its_end() -> None:
    log = MemoryLog(1)
    write(log, checkpoint(10, "A", "B"))
    found = read_stored(WritingReader(log, checkpoint(20, "A")), 0)
    assert sorted(found.values) == [b"A", b"B"]
    assert found.marker() == replace(MARKER, next_offset=20)


@pytest.mark.parametrize("behind", [0, 5, 600])
def test_the_newest_marker_is_found_from_the_end(behind: int) -> None:
    log = MemoryLog(1)
    write(log, checkpoint(10, *(f"I{n}" for n in range(700))))
    write(log, checkpoint(20))
    write(log, [reset(f"I{n}", 20) for n in range(behind)])
    assert newest_marker(MemoryReader(log), 0) == replace(MARKER, next_offset=20)


def test_no_marker_is_none_and_an_open_transaction_hides_only_its_own() -> None:
    log = MemoryLog(1)
    assert newest_marker(MemoryReader(log), 0) is None
    write(log, checkpoint(10, "A"))
    write(log, checkpoint(20, "A"), log.claim("live"))
    assert newest_marker(MemoryReader(log), 0, monotonic=Ticking()) == replace(MARKER, next_offset=10)


# --- exports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["state.jsonl", "state.jsonl.gz"])
def test_an_export_comes_back_to_the_bit(tmp_path: Path, name: str) -> None:
    full = stored_of([*checkpoint(10, "A", "Ä/Ö"), reset("B", 12), Message(0, b"\xff\x00", b"\x00\xff")])
    count = write_export(tmp_path / name, "state", "desk", [0, 1, 2], [(0, full), (2, stored_of(checkpoint(5)))])
    export = read_export(tmp_path / name)
    assert (export.topic, export.group_id, sorted(export.partitions), count) == ("state", "desk", [0, 1, 2], 6)
    assert export.partitions[0].values == full.values
    assert list(export.partitions[0].values) == list(full.values)
    assert export.partitions[0].marker() == full.marker()
    assert export.partitions[1].marker() is None
    assert export.partitions[2].marker() == replace(MARKER, next_offset=5)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_same_state_gives_the_same_file(tmp_path: Path) -> None:
    files = [tmp_path / "one.gz", tmp_path / "two.gz"]
    for file in files:
        write_export(file, "state", "desk", [0], [(0, stored_of(checkpoint(10, "A", "B")))])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_any_changed_line_and_any_cut_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "state.jsonl"
    write_export(file, "state", "desk", [0], [(0, stored_of(checkpoint(10, "A", "B")))])
    whole = file.read_bytes()
    damaged = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
    for content in [*damaged, *(whole[:at] for at in range(0, len(whole) - 1, 11)), whole + whole, b"", b"[]\n"]:
        file.write_bytes(content)
        with pytest.raises(SettingsError, match=r"state\.jsonl"):
            read_export(file)
    file.write_bytes(whole)
    assert sorted(read_export(file).partitions[0].values) == [b"A", b"B"]


def test_a_file_that_is_no_export_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "short.gz").write_bytes(gzip.compress(b"{}")[:10])
    (tmp_path / "plain.gz").write_bytes(b"{}")
    for name in ("notes.txt", "short.gz", "plain.gz", "absent"):
        with pytest.raises(SettingsError, match=name):
            read_export(tmp_path / name)


def test_an_export_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "state.jsonl"
    write_export(file, "state", "desk", [0], [(0, stored_of(checkpoint(10, "A")))])
    before = file.read_bytes()

    def fails() -> Iterable[tuple[int, Stored]]:
        yield 0, stored_of(checkpoint(20, "A"))
        raise BrokerUnavailable("away")

    with pytest.raises(BrokerUnavailable):
        write_export(file, "state", "desk", [0], fails())
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["state.jsonl"]
    with pytest.raises(SettingsError, match="nowhere"):
        write_export(tmp_path / "nowhere" / "state.jsonl", "state", "desk", [0], [])


# --- resets -----------------------------------------------------------------------------------------------------------


def planned(names: list[str] | None, committed: int | None, *messages: Message) -> Planner:
    planner = Planner(names)
    planner.add(0, stored_of(messages), committed)
    return planner


def test_a_reset_stands_at_the_committed_offset_and_keeps_the_place() -> None:
    plan = planned(["B"], 120, *checkpoint(100, "A", "B")).plan()
    (found,) = plan.resets
    assert (found.instrument, found.partition, found.message.partition, found.message.key) == ("B", 0, 0, b"B")
    written = decode("B", found.message.value or b"")
    assert written.is_reset
    assert written.next_offset == 120
    assert written.revision == REVISION
    assert written.instrument.last_offset == 99
    assert written.instrument.pending_reset is ResetCause.OPERATOR


def test_all_resets_all_and_a_damaged_snapshot_too() -> None:
    broken = Message(0, b"C", b"TCS")
    plan = planned(None, 100, snapshot("A", 100), broken, reset("B", 100), marker(100)).plan()
    assert [each.instrument for each in plan.resets] == ["A", "C", "B"]
    assert all(decode("", each.message.value or b"").next_offset == 100 for each in plan.resets)


def test_without_a_committed_offset_the_reset_stands_at_the_checkpoint() -> None:
    (found,) = planned(["A"], None, *checkpoint(100, "A")).plan().resets
    assert decode("A", found.message.value or b"").next_offset == 100


def test_a_partition_that_starts_cold_anyway_needs_no_reset() -> None:
    back = planned(["A"], 90, *checkpoint(100, "A")).plan()
    none = planned(["A"], 90, snapshot("A", 80)).plan()
    assert back.resets == none.resets == ()
    assert "set back from 100 to 90" in back.notes[0]
    assert "no checkpoint" in none.notes[0]


def test_an_unknown_instrument_is_refused_with_close_names() -> None:
    with pytest.raises(SettingsError, match=r"no state of instrument 'BTC-UDS'; close are BTC-USD, .*list --instr"):
        planned(["BTC-UDS"], 100, *checkpoint(100, "BTC-USD", "ETH-USD", "BTC-EUR")).plan()
    with pytest.raises(SettingsError, match="close are BTC-USD"):
        planned(["btc-usd"], 100, *checkpoint(100, "BTC-USD", "ETH-USD")).plan()
    with pytest.raises(SettingsError, match=r"partition 0 did not end with a checkpoint"):
        planned(["NEW"], 120, *checkpoint(100, "A")).plan()
    with pytest.raises(SettingsError, match="there is none at all"):
        planned(["A"], 100).plan()


# --- for people -------------------------------------------------------------------------------------------------------


def test_rows_say_where_the_states_stand_and_what_cannot_be_used() -> None:
    held = stored_of(
        [
            snapshot("B", 100, step=7, price=101.5, last_ts=START, session="day", reset_offset=3),
            snapshot("A", 100, pending_reset=ResetCause.NON_FINITE),
            Message(0, b"C", b"damaged"),
            reset("D", 110),
            marker(100),
        ]
    )
    row = partition_row(0, held, 120)
    assert (row.revision, row.checkpoint, row.committed, row.instruments, row.origin) == (
        REVISION,
        100,
        120,
        4,
        "first",
    )
    a, b, c, d = instrument_rows(0, held, MARKER)
    assert (b.instrument, b.step, b.session, b.price, b.reset_offset, b.note) == ("B", 7, "day", 101.5, 3, None)
    assert b.last_event_time == "2024-01-02T15:00:00.000000000Z"
    assert b.bytes == len(held.values[b"B"])
    assert a.note == "next tick begins anew: non_finite"
    assert c.note is not None
    assert c.note.startswith("cannot be used")
    assert d.note == "will be reset: operator"


def test_a_partition_without_or_with_an_unreadable_marker_is_a_row_too() -> None:
    assert partition_row(0, stored_of([]), None).problem is None
    assert partition_row(0, stored_of([Message(0, markers.KEY, b"{}")]), 5).problem is not None


def test_the_facts_of_a_snapshot_are_exact() -> None:
    held = stored_of([snapshot("A", 100, price=0.1 + 0.2, bid=1e-300), marker(100)])
    found = snapshot_of(held, b"A", MARKER)
    assert isinstance(found, Snapshot)
    facts = snapshot_facts(found, MARKER, ["variance"])
    assert facts["price"] == 0.1 + 0.2
    assert facts["bid"] == 1e-300
    assert facts["cells"] == {"variance": 0.5}
    assert facts["state"] == [1.0]
    assert facts["last_ts"] is None
    assert facts["marker"]["origin"] == "first"
    assert snapshot_facts(found, MARKER, ["too", "many"])["cells"] == [0.5]


def test_every_cell_has_its_name() -> None:
    columns = (
        Column("return", "running", mean=3.0, std=2.0),
        Column("ema:20:diff:price", "running", mean=5.0, std=3.0),
        Column("imbalance"),
        Column("ema:20:diff:price"),
    )
    names, start = cell_names(columns), FeatureTable(columns, 1e-4).start
    cells = dict(zip(names, start, strict=True))
    assert len(cells) == len(names)
    assert cells["variance of one-tick log returns"] == 1e-4**2
    assert (cells["return: running mean"], cells["return: running variance"]) == (3.0, 4.0)
    assert (cells["ema:20:diff:price: running mean"], cells["ema:20:diff:price: running variance"]) == (5.0, 9.0)
    assert names[-1] == "ema:20:diff:price: memory 2 (2)"
    fields = (Column("diff:field:oi"), Column("field:oi"))
    assert len(cell_names(fields, "last")) == len(FeatureTable(fields, 1e-4, "last").start) == 1 + 4 + 2


def test_times_are_exact_to_the_nanosecond() -> None:
    assert iso_time(START + 1) == "2024-01-02T15:00:00.000000001Z"
    assert iso_time(-1) == "1969-12-31T23:59:59.999999999Z"
    assert iso_time(NEVER) is None
    assert iso_time(2**63 - 1) == "2262-04-11T23:47:16.854775807Z"
