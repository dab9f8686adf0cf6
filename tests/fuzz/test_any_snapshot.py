"""Whatever stands in the state topic, recovery ends: an instrument is as it was, or it starts anew; nothing crashes."""

import json
import logging
import struct
import zlib

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.checkpoints import checkpoint
from daemon.core import marker as markers
from daemon.core import snapshot as snapshots
from daemon.core.instrument import Instrument
from daemon.core.marker import Marker, MarkerError
from daemon.core.records import Message
from daemon.core.snapshot import Snapshot, SnapshotError
from daemon.errors import TopicError
from daemon.logs import log
from daemon.recovery import Recovery
from daemon.resume import Terms
from daemon.transport.memory import MemoryReader, MemorySource
from daemon.transport.memory_log import MemoryLog
from schemas import ResetCause
from tests.property.logs import remembered
from tests.ticks import at, payloads, pipeline, raw, records

REVISION = "0123456789ab"
MARKER = Marker("desk", "ticks-1", REVISION, 20, 0, 0, ResetCause.FIRST)
NAMES = ("A", "B", "é")
TICKS = records([raw(n, NAMES[n % 3], price=100 + n % 7) for n in range(40)])
#: Each example is a recovery.
fewer = settings(max_examples=settings.default.max_examples // 3)


@pytest.fixture(scope="module", autouse=True)
def silence():
    """A line for each damaged snapshot is a lot of lines."""
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    yield
    log.setLevel(level)


def run(end):
    made = pipeline()
    made.advance(TICKS[:end])
    return made


GOOD = checkpoint(run(20), 0, MARKER)
VALUES = [message.value for message in GOOD[:-1]]
HEAD = struct.Struct("<3sBI")


def checksummed(content, version=1):
    return HEAD.pack(snapshots.MAGIC, version, zlib.crc32(content)) + content


@st.composite
def damaged(draw, value):
    """A value with some bytes lost, put in or changed."""
    text = bytearray(value)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        text[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(text)


one = st.sampled_from(VALUES).flatmap(damaged)
#: As bytes come: any, damaged snapshots, and damaged ones whose checksum was made to fit.
values = st.binary(max_size=300) | one | one.map(lambda value: checksummed(value[HEAD.size :]))
keys = st.sampled_from([b"A", b"B", "é".encode(), b"", b"\xff", b"new", markers.KEY]) | st.binary(max_size=70)


@given(values)
@example(b"")
@example(VALUES[0])
def test_any_bytes_are_a_snapshot_or_say_why_not(value):
    try:
        found = snapshots.decode("A", value)
    except SnapshotError:
        return
    assert isinstance(found, Snapshot)
    state = found.state.tobytes()
    assert snapshots.encode(found.revision, found.next_offset, found.instrument, state)[:3] == snapshots.MAGIC


words = st.sampled_from(["desk", "ticks-1", REVISION, "first", "", 0, 20, -1, 2**63, 1.5, None, True, [], {}])
contents = st.dictionaries(
    st.sampled_from(
        ["format", "group_id", "topic_id", "revision", "next_offset", "replay_start", "live_from", "origin"]
    ),
    words,
)
written = st.just(json.loads(markers.encode(MARKER)))
marker_values = (
    st.binary(max_size=100)
    | damaged(markers.encode(MARKER))
    | st.tuples(written, contents).map(lambda pair: json.dumps(pair[0] | pair[1]).encode())
)


@given(marker_values)
@example(b"[" * 100_000)
@example(b"9" * 5000)
@example(b"\xff\xfe[\x00")
def test_any_bytes_are_a_marker_or_say_why_not(value):
    try:
        found = markers.decode(value)
    except MarkerError:
        return
    assert markers.decode(markers.encode(found)) == found


def recovered(messages):
    """Recover the partition from a good checkpoint and what was written behind it."""
    cluster = MemoryLog(1)
    cluster.now_ms = at(10_000) // 10**6
    for tick in TICKS:
        cluster.produce(0, tick.key, tick.value)
    claim = cluster.claim("writer")
    cluster.begin(claim)
    for message in (*GOOD, *messages):
        cluster.append(claim, "state", message)
    cluster.end(claim, committed=True)
    cluster.group("desk").offsets[0] = 25
    source = MemorySource(cluster, group_id="desk", instance_id="0")
    made = pipeline(partitions=())
    recovery = Recovery(source, MemoryReader(cluster), made, Terms("desk", "ticks-1", REVISION, on_lost_ticks="reset"))
    recovery.begin(source.poll(0, 0).assigned)
    (arrived,) = recovery.work(1000)
    return made, arrived


EXPECTED = {kept[1]["name"]: kept for kept in remembered(run(25))}


@fewer
@given(st.lists(st.tuples(keys.filter(lambda key: key != markers.KEY), values), max_size=4))
def test_any_records_reset_their_instruments_and_no_others(pairs):
    made, _ = recovered([Message(0, key, value) for key, value in pairs])
    kept = {each[1]["name"]: each for each in remembered(made)}
    touched = {key for key, _ in pairs}
    for name in NAMES:
        if name.encode() not in touched:
            assert kept[name] == EXPECTED[name]
    assert made.checkpoint(0, REVISION, 25)
    answered = payloads(made.advance(TICKS[25:]))
    assert len(answered) == 15
    first = {each["instrument"]: each["reset"] for each in reversed(answered)}
    assert {first[name] for name in NAMES if name.encode() not in touched} <= {None}
    assert made.checkpoint(0, REVISION, 40)


@fewer
@given(st.sampled_from(VALUES), st.integers(0, 40), st.integers(0, 8), st.sampled_from(NAMES))
def test_a_whole_snapshot_of_another_shape_resets_its_instrument(value, state_count, cell_count, name):
    """The revision should keep these out; the day that it does not, a state of the wrong shape must not be run."""
    strange = Instrument(name, -1, [1e-8] * cell_count, None)
    strange.last_offset = 19
    written = snapshots.encode(REVISION, 20, strange, b"\0\0\x80?" * state_count)
    right = snapshots.decode(name, value)
    made, _ = recovered([Message(0, name.encode(), written)])
    answered = [each for each in payloads(made.advance(TICKS[25:])) if each["instrument"] == name]
    fits = (cell_count, state_count) == (len(right.instrument.cells), len(right.state))
    assert (answered[0]["reset"] is None) == fits


@fewer
@given(marker_values)
def test_any_marker_is_taken_or_starts_the_partition_cold_or_stops_with_a_remedy(value):
    try:
        made, arrived = recovered([Message(0, markers.KEY, value)])
    except TopicError:
        return
    assert arrived.start >= 0
    assert len(payloads(made.advance(TICKS[arrived.start :]))) == 40 - arrived.start
