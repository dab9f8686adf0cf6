"""Where a partition goes on: every line of the table in `daemon.resume`, and its edges."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import pytest

from daemon.core.marker import Marker
from daemon.errors import TopicError
from daemon.resume import Found, Plan, Terms, decide
from schemas import ResetCause

TERMS = Terms("desk", "ticks-1", "new-revision")
RESET = replace(TERMS, on_lost_ticks="reset")
#: Retained are the ticks 10 to 99.
FOUND = Found(partition=3, first=10, end=100, committed=None, marker=None)


def marker(next_offset: int, **facts: Any) -> Marker:
    """Return a marker of ours; its states began at 2, because they were lost."""
    return replace(Marker("desk", "ticks-1", "new-revision", next_offset, 2, 4, ResetCause.COLD), **facts)


def plan(terms: Terms = TERMS, **facts: Any) -> Plan:
    return decide(replace(FOUND, **facts), terms)


def assert_fresh(found: Plan, start: int, origin: ResetCause, *, replay_from: int | None = None) -> None:
    """The plan takes no snapshot, and owes the checkpoint that says where its states began."""
    begin = start if replay_from is None else replay_from
    expected = Marker("desk", "ticks-1", "new-revision", start, begin, start, origin)
    assert (found.start, found.replay_from, found.keep, found.owed) == (start, begin, False, True)
    assert found.marker == expected


def assert_kept(found: Plan, start: int, kept: Marker) -> None:
    """The plan goes on from the stored checkpoint, whose marker stays in force as it is."""
    assert (found.start, found.replay_from, found.keep, found.owed) == (start, kept.next_offset, True, False)
    assert found.marker == kept


# --- the lines of the table -------------------------------------------------------------------------------------------


def test_a_new_partition_begins_at_its_first_tick() -> None:
    found = plan()
    assert_fresh(found, 10, ResetCause.FIRST)
    assert (found.line, found.level) == ("is new", logging.INFO)


def test_an_empty_partition_begins_where_it_is() -> None:
    assert plan(first=0, end=0).start == 0
    assert plan(first=70, end=70).start == 70


def test_without_a_checkpoint_it_starts_cold_at_the_committed_offset() -> None:
    found = plan(committed=40)
    assert_fresh(found, 40, ResetCause.COLD)
    assert (found.line, found.level) == ("starts cold: there is no checkpoint", logging.WARNING)


def test_without_a_committed_offset_it_goes_on_at_the_checkpoint() -> None:
    found = plan(marker=marker(40))
    assert_kept(found, 40, marker(40))
    assert found.level == logging.WARNING
    assert "checkpoint at 40 but no committed offset: forecasts since then may repeat" in found.line


def test_a_group_that_was_set_back_starts_cold() -> None:
    found = plan(committed=39, marker=marker(40))
    assert_fresh(found, 39, ResetCause.COLD)
    assert (found.line, found.level) == ("starts cold: the group was set back from 40 to 39", logging.WARNING)


def test_ticks_from_the_checkpoint_to_the_committed_offset_are_replayed() -> None:
    found = plan(committed=60, marker=marker(40))
    assert_kept(found, 60, marker(40))
    assert (found.line, found.level) == ("goes on", logging.INFO)


def test_another_revision_is_warmed_up_from_where_the_oldest_state_began() -> None:
    found = plan(committed=60, marker=marker(40, revision="old-revision"), oldest_reset=25)
    assert_fresh(found, 60, ResetCause.REVISION, replay_from=25)
    assert found.line == "moves from revision old-revision to new-revision, replays 35 ticks to warm up"
    assert found.level == logging.WARNING


# --- edges ------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_at_the_committed_offset_leaves_nothing_to_replay() -> None:
    assert_kept(plan(committed=60, marker=marker(60)), 60, marker(60))


def test_the_first_retained_tick_is_retained() -> None:
    assert_fresh(plan(committed=10), 10, ResetCause.COLD)
    assert_kept(plan(committed=60, marker=marker(10)), 60, marker(10))
    assert_kept(plan(committed=10, marker=marker(10)), 10, marker(10))
    assert_kept(plan(marker=marker(10)), 10, marker(10))


def test_the_end_of_the_topic_is_not_beyond_it() -> None:
    assert_kept(plan(committed=100, marker=marker(100)), 100, marker(100))
    assert_fresh(plan(committed=100), 100, ResetCause.COLD)


@pytest.mark.parametrize("terms", [TERMS, RESET])
@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"committed": 101}, "committed offset at 101"),
        ({"committed": 101, "marker": marker(40)}, "committed offset at 101"),
        ({"marker": marker(101)}, "checkpoint at 101"),
        ({"committed": 40, "marker": marker(101)}, "checkpoint at 101"),
        ({"committed": 40, "marker": marker(101, revision="old-revision")}, "checkpoint at 101"),
    ],
)
def test_offsets_beyond_the_end_stop_with_the_remedy(facts: dict[str, Any], what: str, terms: Terms) -> None:
    with pytest.raises(
        TopicError, match=f"partition 3: the {what} is beyond the end 100 .* was created anew"
    ) as caught:
        plan(terms, **facts)
    assert "give kafka.group_id and [topics] state new names" in str(caught.value)


@pytest.mark.parametrize("committed", [None, 5, 39, 40, 60])
def test_another_groups_state_topic_stops_with_the_remedy(committed: int | None) -> None:
    with pytest.raises(TopicError, match="belongs to group 'other', we are 'desk'") as caught:
        plan(RESET, committed=committed, marker=marker(40, group_id="other"))
    assert "set [topics] state to a topic of our own" in str(caught.value)


@pytest.mark.parametrize("committed", [None, 5, 39, 40, 60, 500])
def test_another_topic_under_the_same_name_stops_with_the_remedy(committed: int | None) -> None:
    with pytest.raises(TopicError, match="created anew since the last checkpoint") as caught:
        plan(RESET, committed=committed, marker=marker(40, topic_id="ticks-2"))
    assert "give kafka.group_id and [topics] state new names" in str(caught.value)


def test_a_topic_that_somebody_else_writes_is_not_taken_for_ours() -> None:
    with pytest.raises(TopicError, match=r"holds records of somebody else.*name an empty one"):
        plan(unmarked=True)


@pytest.mark.parametrize(
    ("facts", "start", "lost"),
    [
        ({"committed": 4}, 10, "ticks 4 to 9 are no longer retained"),
        ({"committed": 4, "marker": marker(4)}, 10, "ticks 4 to 9 are no longer retained"),
        ({"committed": 4, "marker": marker(40)}, 10, "ticks 4 to 9 are no longer retained"),
        ({"committed": 4, "marker": marker(2, revision="old-revision")}, 10, "ticks 4 to 9 are no longer retained"),
        ({"committed": 60, "marker": marker(4)}, 60, "ticks 4 to 9, needed to rebuild states, are no longer retained"),
        ({"committed": 10, "marker": marker(9)}, 10, "ticks 9 to 9, needed to rebuild states, are no longer retained"),
        ({"marker": marker(4)}, 10, "ticks 4 to 9 are no longer retained"),
    ],
)
def test_lost_ticks_stop_with_the_remedy_or_start_cold_behind_them(
    facts: dict[str, Any], start: int, lost: str
) -> None:
    with pytest.raises(TopicError, match=f"partition 3: {lost}") as caught:
        plan(**facts)
    assert 'set pipeline.on_lost_ticks = "reset" to go on without them' in str(caught.value)
    found = plan(RESET, **facts)
    assert_fresh(found, start, ResetCause.COLD)
    assert (found.line, found.level) == (f"starts cold: {lost}", logging.ERROR)


@pytest.mark.parametrize(
    ("oldest", "most", "replay_from"),
    [
        (25, 100, 25),  # where the oldest state began
        (25, 35, 25),
        (25, 34, 26),  # no more than allowed
        (25, 0, 60),
        (5, 100, 10),  # no further back than retained
        (60, 100, 60),
        (75, 100, 60),  # never beyond where it goes on
        (None, 100, 60),  # no state, nothing to warm up
    ],
)
def test_the_warm_up_is_bounded(oldest: int | None, most: int, replay_from: int) -> None:
    terms = replace(TERMS, warmup_replay_ticks_max=most)
    found = plan(terms, committed=60, marker=marker(40, revision="old-revision"), oldest_reset=oldest)
    assert_fresh(found, 60, ResetCause.REVISION, replay_from=replay_from)


def test_another_revision_needs_no_tick_since_the_checkpoint() -> None:
    found = plan(committed=60, marker=marker(4, revision="old-revision"), oldest_reset=2)
    assert_fresh(found, 60, ResetCause.REVISION, replay_from=10)


def test_another_revision_of_a_group_that_was_set_back_starts_cold() -> None:
    found = plan(committed=39, marker=marker(40, revision="old-revision"), oldest_reset=25)
    assert_fresh(found, 39, ResetCause.COLD)


def test_another_revision_without_a_committed_offset_goes_on_at_the_checkpoint() -> None:
    found = plan(marker=marker(40, revision="old-revision"), oldest_reset=25)
    assert_fresh(found, 40, ResetCause.REVISION, replay_from=25)


def test_another_revision_never_goes_on_at_a_tick_that_is_not_retained() -> None:
    facts: dict[str, Any] = {"marker": marker(4, revision="old-revision"), "oldest_reset": 2}
    with pytest.raises(TopicError, match="ticks 4 to 9"):
        plan(**facts)
    assert_fresh(plan(RESET, **facts), 10, ResetCause.COLD)
