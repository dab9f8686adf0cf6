"""Slots of the state table, and who is evicted."""

import numpy as np

from daemon.core.table import FIRST_CAPACITY, GROWTH_ROWS_MAX, Partition, StateTable
from schemas import ResetCause
from tests.ticks import newcomer, payloads, pipeline, raw, records

INITIAL = np.array([1, 2, 3], np.float32)


def test_every_slot_has_one_owner_and_starts_from_the_initial_state():
    table = StateTable(INITIAL)
    slots = [table.take() for _ in range(3 * FIRST_CAPACITY)]
    assert len(set(slots)) == len(slots) == table.used_count
    assert (table.gather(np.array(slots)) == INITIAL).all()


def test_growing_keeps_what_stands_in_the_rows():
    table = StateTable(INITIAL)
    slots = np.array([table.take() for _ in range(FIRST_CAPACITY)])
    states = np.arange(3 * FIRST_CAPACITY, dtype=np.float32).reshape(-1, 3)
    table.scatter(slots, states)
    table.take()
    assert (table.gather(slots) == states).all()
    assert table.used_count == FIRST_CAPACITY + 1


def test_a_large_table_grows_in_small_pieces_and_keeps_what_stands_in_the_rows():
    table, count = StateTable(INITIAL), 2 * GROWTH_ROWS_MAX + 1
    states = np.arange(3 * count, dtype=np.float32).reshape(-1, 3)
    slots = table.take_all(list(states))
    assert len(set(slots)) == count == table.used_count
    assert (table.gather(np.array(slots)) == states).all()
    assert len(table._rows) - count < GROWTH_ROWS_MAX  # not twice as many as are needed


def test_a_released_slot_comes_back_clean():
    table = StateTable(INITIAL)
    slot = table.take()
    table.scatter(np.array([slot]), np.full((1, 3), 9, np.float32))
    table.release([slot])
    assert table.used_count == 0
    assert table.take() == slot
    assert (table.gather(np.array([slot])) == INITIAL).all()


def test_gathered_rows_are_copies_and_minus_one_is_the_initial_state():
    table = StateTable(INITIAL)
    slots = np.array([table.take(), -1])
    table.scatter(slots[:1], np.full((1, 3), 9, np.float32))
    rows = table.gather(slots)
    assert rows.tolist() == [[9, 9, 9], [1, 2, 3]]
    rows[:] = 0
    assert table.gather(slots).tolist() == [[9, 9, 9], [1, 2, 3]]


def test_what_is_written_to_minus_one_goes_nowhere():
    table = StateTable(INITIAL)
    slots = np.array([table.take() for _ in range(FIRST_CAPACITY)])
    states = np.arange(9, dtype=np.float32).reshape(-1, 3)
    table.scatter(np.array([slots[1], -1, slots[0]]), states)
    assert table.gather(slots[:2]).tolist() == [states[2].tolist(), states[0].tolist()]
    assert (table.gather(slots[2:]) == INITIAL).all()


def test_the_least_recently_accepted_instrument_gives_way():
    partition = Partition(2, ResetCause.FIRST)
    a, b, c = (newcomer(name=name) for name in "ABC")
    assert [partition.touch(each) for each in (a, b, a)] == [None, None, None]
    assert partition.touch(c) is b
    assert partition.get("B") is None
    assert list(partition) == [a, c]
    assert len(partition) == 2


def test_who_looks_gets_the_most_recently_accepted_of_every_partition():
    made = pipeline(partitions=(0, 1))
    made.advance([*records([raw(n, each) for n, each in enumerate("ABCB")]), *records([raw(0, "D")], partition=1)])
    assert [each.name for each in made.instruments(1000)] == ["B", "C", "A", "D"]
    assert [each.name for each in made.instruments(3)] == ["B", "C", "D"]
    assert pipeline(partitions=()).instruments(3) == []


def test_an_evicted_instrument_starts_anew_and_its_slot_is_used_again():
    made = pipeline(instruments_per_partition_max=2)
    batch = made.advance(records([raw(n, instrument) for n, instrument in enumerate("ABACBA")]))
    told = [(each["instrument"], each["step"], each["reset"]) for each in payloads(batch)]
    assert told == [
        ("A", 0, "first"),
        ("B", 0, "first"),
        ("A", 1, None),
        ("C", 0, "first"),  # B gives way
        ("B", 0, "first"),  # A gives way
        ("A", 0, "first"),
    ]
    assert batch.evicted_count == 3
    assert made.instrument_count == 2
    assert made.state_bytes == 2 * 8 * 4  # two rows of 8 floats: nothing leaks


def test_a_dropped_partition_gives_its_rows_back_and_a_cold_one_says_so():
    made = pipeline(partitions=(0, 1))
    made.advance([*records([raw(0, "A"), raw(0, "B")]), *records([raw(0, "A")], partition=1)])
    assert made.partitions == (0, 1)
    assert made.instruments_in_two_partitions == 1
    made.drop(0)
    made.drop(0)
    assert made.partitions == (1,)
    assert made.instrument_count == 1
    assert made.instruments_in_two_partitions == 0
    made.assign(0, ResetCause.COLD)
    made.assign(1)
    assert made.state_bytes == 0
    batch = made.advance([*records([raw(1, "A"), raw(2, "A")]), *records([raw(1, "A")], partition=1)])
    assert [each["reset"] for each in payloads(batch)] == ["cold", None, "first"]
