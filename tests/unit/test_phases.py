"""The life of a partition: every transition of the table, and no other."""

from __future__ import annotations

import itertools
import re

import pytest

from daemon import phases
from daemon.phases import TRANSITIONS, IllegalTransition, Phase, Phases

#: The shortest way to each phase.
WAYS = {
    Phase.UNKNOWN: (),
    Phase.ASSIGNED: (Phase.ASSIGNED,),
    Phase.RESTORING: (Phase.ASSIGNED, Phase.RESTORING),
    Phase.CATCHING_UP: (Phase.ASSIGNED, Phase.RESTORING, Phase.CATCHING_UP),
    Phase.RUNNING: (Phase.ASSIGNED, Phase.RESTORING, Phase.CATCHING_UP, Phase.RUNNING),
}
#: As drawn: forwards step by step; from any phase back to the start, or out.
DRAWN = {
    *itertools.pairwise((Phase.UNKNOWN, *WAYS[Phase.RUNNING])),
    *((phase, Phase.ASSIGNED) for phase in Phase),
    *((phase, Phase.UNKNOWN) for phase in Phase if phase is not Phase.UNKNOWN),
}


def having_gone(way: tuple[Phase, ...], partition: int = 7) -> Phases:
    made = Phases()
    for phase in way:
        made.move(partition, phase)
    return made


def test_the_table_is_what_is_drawn() -> None:
    assert {(start, to) for start, ends in TRANSITIONS.items() for to in ends} == DRAWN


@pytest.mark.parametrize("to", Phase)
@pytest.mark.parametrize("start", Phase)
def test_a_partition_moves_where_the_table_says_and_an_illegal_move_changes_nothing(start: Phase, to: Phase) -> None:
    made = having_gone(WAYS[start])
    made.move(8, Phase.ASSIGNED)
    if (start, to) in DRAWN:
        made.move(7, to)
        assert made.of(7) is to
    else:
        with pytest.raises(IllegalTransition, match=f"partition 7: {start} -> {to}"):
            made.move(7, to)
        assert made.of(7) is start
    assert made.of(8) is Phase.ASSIGNED


def test_a_partition_that_was_given_up_is_unknown_again() -> None:
    made = having_gone((Phase.ASSIGNED, Phase.RESTORING), partition=3)
    made.move(3, Phase.UNKNOWN)
    assert made.of(3) is Phase.UNKNOWN


def test_the_drawing_names_every_phase_and_no_other() -> None:
    drawing = phases.__doc__ or ""
    assert [phase.name for phase in Phase if phase.name not in drawing.upper()] == []
    shouted = set(re.findall(r"\b[A-Z_]{2,}\b", drawing))
    assert shouted == {phase.name for phase in Phase} - {"UNKNOWN"}  # the drawing puts it in small letters
