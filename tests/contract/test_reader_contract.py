"""What every `Reader` promises: the committed records of a partition, whoever has written them, and where they end."""

from __future__ import annotations

import time

import pytest

from daemon.core.records import Message, Record
from daemon.errors import TopicError
from daemon.transport.port import Readable, Reader
from tests.contract.members import PATIENCE_SECONDS, ticks
from tests.contract.worlds import World

#: Longer than an answer takes, shorter than a person notices.
SHORT_SECONDS = 0.2


def read_until(
    reader: Reader, topic: Readable, partition: int, offset: int, end: int, max_records: int = 1000
) -> tuple[list[bytes | None], int]:
    """Read on until `end` is reached; return the values and where to read on."""
    records: list[Record] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while offset < end:
        assert time.monotonic() < deadline, (offset, end)
        more, offset = reader.read(topic, partition, offset, SHORT_SECONDS, max_records)
        records += more
    assert [record.offset for record in records] == sorted({record.offset for record in records})
    return [record.value for record in records], offset


def await_end(reader: Reader, topic: Readable, partition: int, end: int) -> None:
    """Wait for the end of the log: a broker writes the markers of a transaction after it has answered the commit."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (found := reader.bounds(topic, partition)) != (0, end):
        assert time.monotonic() < deadline, found


def test_an_empty_partition_has_no_bounds_and_no_records(world: World) -> None:
    reader = world.reader()
    assert reader.bounds("state", 2) == (0, 0)
    records, offset = reader.read("state", 2, 0, SHORT_SECONDS, 10)
    assert (list(records), offset) == ([], 0)


def test_records_are_read_from_the_offset_given_to_the_end(world: World) -> None:
    world.produce(ticks(1, "a", "b", "c", "d"))
    assert read_until(world.reader(), "ticks", 1, 1, 4) == ([b"b", b"c", b"d"], 4)


def test_records_are_raw_bytes_as_they_stood(world: World) -> None:
    sent = [Message(0, b"\xff\x00key", b"\xfe not utf-8", (("name", b"\x00value"),)), Message(0, b"key", None)]
    world.begin("state", sent)(committed=True)
    records, _ = world.reader().read("state", 0, 0, PATIENCE_SECONDS, 10)
    for message, record in zip(sent, records, strict=True):
        assert (record.partition, record.key, record.value) == (0, message.key, message.value)
        assert [tuple(header) for header in record.headers] == list(message.headers)


def test_a_read_returns_at_most_max_records_and_the_next_goes_on(world: World) -> None:
    names = [str(n) for n in range(20)]
    world.produce(ticks(0, *names))
    reader, offset, sizes = world.reader(), 0, []
    values: list[bytes | None] = []
    while offset < 20:
        records, offset = reader.read("ticks", 0, offset, PATIENCE_SECONDS, 7)
        sizes.append(len(records))
        values += [record.value for record in records]
    assert max(sizes) == 7
    assert values == [name.encode() for name in names]


def test_a_read_waits_no_longer_than_its_time(world: World) -> None:
    reader = world.reader()
    reader.read("ticks", 0, 0, SHORT_SECONDS, 10)  # connects
    start = time.monotonic()
    records, offset = reader.read("ticks", 0, 0, SHORT_SECONDS, 10)
    assert (list(records), offset) == ([], 0)
    assert time.monotonic() - start < SHORT_SECONDS + 1


def test_aborted_records_never_appear_and_their_markers_are_stepped_over(world: World) -> None:
    world.begin("state", ticks(0, "one"))(committed=True)  # 0, marker 1
    world.begin("state", ticks(0, "never", "neither"))(committed=False)  # 2, 3, marker 4
    world.begin("state", ticks(0, "two"))(committed=True)  # 5, marker 6
    reader = world.reader()
    await_end(reader, "state", 0, 7)
    assert read_until(reader, "state", 0, 0, 7) == ([b"one", b"two"], 7)


def test_the_next_offset_grows_over_mere_markers(world: World) -> None:
    world.begin("state", ticks(0, "one"))(committed=True)
    world.begin("state", ticks(0, "never"))(committed=False)
    reader = world.reader()
    assert read_until(reader, "state", 0, 1, 4) == ([], 4)
    assert read_until(reader, "state", 0, 0, 4, max_records=1) == ([b"one"], 4)


def test_reading_stays_below_an_open_transaction_and_goes_on_when_it_has_ended(world: World) -> None:
    world.begin("state", ticks(0, "before"))(committed=True)  # 0, marker 1
    end = world.begin("state", ticks(0, "pending"))  # 2
    reader = world.reader()
    assert read_until(reader, "state", 0, 0, 2) == ([b"before"], 2)
    assert reader.read("state", 0, 2, SHORT_SECONDS, 10)[1] == 2
    end(committed=True)
    assert read_until(reader, "state", 0, 2, 4) == ([b"pending"], 4)


def test_the_bounds_reach_over_an_open_transaction(world: World) -> None:
    world.begin("state", ticks(0, "before"))(committed=True)
    end = world.begin("state", ticks(0, "pending", "too"))
    reader = world.reader()
    assert reader.bounds("state", 0) == (0, 4)
    end(committed=False)
    await_end(reader, "state", 0, 5)


def test_the_bounds_begin_at_the_first_record_retained(world: World) -> None:
    world.produce(ticks(3, *map(str, range(6))))
    world.trim(3, 4)
    reader = world.reader()
    assert reader.bounds("ticks", 3) == (4, 6)
    assert reader.bounds("ticks", 0) == (0, 0)


def test_going_to_and_fro_between_partitions_and_topics_loses_nothing(world: World) -> None:
    names = [str(n) for n in range(12)]
    for partition in (0, 1):
        world.produce(ticks(partition, *names))
        world.begin("state", ticks(partition, *names))(committed=True)
    reader = world.reader()
    places: dict[tuple[Readable, int], int] = {(topic, p): 0 for topic in ("ticks", "state") for p in (0, 1)}
    values: dict[tuple[Readable, int], list[bytes | None]] = {place: [] for place in places}
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(offset < 12 for offset in places.values()):
        assert time.monotonic() < deadline, places
        for (topic, partition), offset in places.items():
            records, places[topic, partition] = reader.read(topic, partition, offset, SHORT_SECONDS, 5)
            values[topic, partition] += [record.value for record in records]
            assert {record.partition for record in records} <= {partition}
    assert all(found == [name.encode() for name in names] for found in values.values())


def test_reading_again_from_an_earlier_offset_repeats(world: World) -> None:
    world.produce(ticks(0, "a", "b", "c"))
    reader = world.reader()
    assert read_until(reader, "ticks", 0, 0, 3)[0] == [b"a", b"b", b"c"]
    assert read_until(reader, "ticks", 0, 1, 3)[0] == [b"b", b"c"]


@pytest.mark.parametrize("offset", [1, 7])
def test_an_offset_outside_the_log_is_an_error_and_not_a_jump_and_reading_goes_on_elsewhere(
    world: World, offset: int
) -> None:
    world.produce(ticks(0, *map(str, range(6))))
    world.trim(0, 4)
    reader = world.reader()
    with pytest.raises(TopicError, match=rf"ticks-0 does not hold.* {offset}\b"):
        reader.read("ticks", 0, offset, PATIENCE_SECONDS, 10)
    assert read_until(reader, "ticks", 0, 4, 6) == ([b"4", b"5"], 6)


def test_an_offset_that_retention_takes_away_while_it_is_read_is_an_error(world: World) -> None:
    world.produce(ticks(0, *map(str, range(6))))
    reader = world.reader()
    reader.read("ticks", 0, 6, SHORT_SECONDS, 10)
    world.trim(0, 4)
    with pytest.raises(TopicError, match="does not hold"):
        reader.read("ticks", 0, 2, PATIENCE_SECONDS, 10)


def test_a_partition_that_is_not_there_is_an_error(world: World) -> None:
    reader = world.reader()
    with pytest.raises(TopicError, match="9"):
        reader.bounds("state", 9)
    with pytest.raises(TopicError, match="9"):
        reader.read("state", 9, 0, PATIENCE_SECONDS, 10)


def test_partitions_added_while_reading_are_read(world: World) -> None:
    reader = world.reader()
    assert reader.bounds("ticks", 0) == (0, 0)
    reader.read("ticks", 0, 0, SHORT_SECONDS, 10)
    world.grow(6)
    world.produce(ticks(5, "new"))
    assert read_until(reader, "ticks", 5, 0, 1) == ([b"new"], 1)


def test_a_closed_reader_connects_again(world: World) -> None:
    world.produce(ticks(0, "a", "b"))
    reader = world.reader()
    assert read_until(reader, "ticks", 0, 0, 1, max_records=1) == ([b"a"], 1)
    reader.close()
    reader.close()
    assert read_until(reader, "ticks", 0, 1, 2) == ([b"b"], 2)
