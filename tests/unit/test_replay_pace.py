"""Replay: the pace of ticks, and their partition."""

from daemon.dev.replay import paced, partition_of

SECOND = 10**9


class Clock:
    """A clock that only waiting and work move."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


def due_times(speed: float, *, work_seconds: float = 0.0) -> list[float]:
    clock, times = Clock(), []
    ticks = [{"ts": 7 * SECOND + second * SECOND} for second in (0, 1, 1, 4)]
    for _ in paced(ticks, speed, now=clock.now, wait=clock.wait):
        times.append(clock.seconds - 100.0)
        clock.wait(work_seconds)
    return times


def test_ticks_come_in_their_own_pace_or_a_multiple_of_it():
    assert due_times(1) == [0, 1, 1, 4]
    assert due_times(4) == [0, 0.25, 0.25, 1]


def test_speed_zero_never_waits():
    assert due_times(0) == [0, 0, 0, 0]


def test_time_lost_with_work_is_made_up_for():
    assert due_times(1, work_seconds=0.75) == [0, 1, 1.75, 4]


def test_the_pace_begins_with_the_first_tick_however_long_it_took_to_make():
    clock, times = Clock(), []

    def ticks():
        clock.wait(3)
        yield from ({"ts": second * SECOND} for second in (0, 1, 2))

    for _ in paced(ticks(), 1, now=clock.now, wait=clock.wait):
        times.append(clock.seconds - 100.0)
    assert times == [3, 4, 5]


def test_a_tick_back_in_time_does_not_wait():
    clock = Clock()
    ticks = [{"ts": 5 * SECOND}, {"ts": 3 * SECOND}]
    assert list(paced(ticks, 1, now=clock.now, wait=clock.wait)) == ticks
    assert clock.seconds == 100.0


def test_the_partition_follows_from_the_name_alone():
    assert partition_of("123456789", 1000) == 0xCBF43926 % 1000  # the check value of CRC-32
    assert {partition_of(f"I{number}", 4) for number in range(50)} == {0, 1, 2, 3}
