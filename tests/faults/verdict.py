"""Whether the faults changed anything: outcomes against ticks, and against those of an undisturbed run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from tests.e2e.world import origin, read_topics
from tests.faults.stage import Place, Stage


@dataclass(frozen=True)
class Outcome:
    """What was answered to a tick, without what may differ: the time of publishing and the place in the topic."""

    topic_role: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


Outcomes = Mapping[Place, Outcome]


def judge(stage: Stage, undisturbed: Outcomes) -> None:
    """Stop what still runs, and hold its outcomes against those of the undisturbed run."""
    stage.stop_all()
    found = read_outcomes(stage)
    missing, beyond = sorted(set(stage.sent) - set(found)), sorted(set(found) - set(stage.sent))
    assert not missing, f"{len(missing)} ticks without outcome, the first is {missing[0]}; {stage.report()}"
    assert not beyond, f"{len(beyond)} outcomes of no tick, the first is of {beyond[0]}; {stage.report()}"
    different = sorted(place for place in found if found[place] != undisturbed[place])
    assert not different, (
        f"{len(different)} of {len(found)} outcomes differ, the first is of {different[0]}:\n"
        f"  disturbed:   {found[different[0]]}\n  undisturbed: {undisturbed[different[0]]}\n{stage.report()}"
    )
    cold = [place for place, outcome in found.items() if b'"reset":"cold"' in (outcome.value or b"")]
    assert not cold, f"cold starts at {cold[:5]}; {stage.report()}"
    letters = sum(outcome.topic_role == "dead_letters" for outcome in found.values())
    stage.tell(
        f"judged: {len(found)} outcomes of {stage.ground.source} ticks, {letters} of them dead letters, are those of "
        f"the undisturbed run; {stage.summary()}"
    )


def read_outcomes(stage: Stage) -> dict[Place, Outcome]:
    """Read all outcomes; fail where a tick has two, or where forecasts of an instrument stand in another order."""
    found: dict[Place, Outcome] = {}
    last: dict[bytes | None, int] = {}
    counts: Counter[Place] = Counter()
    for record in stage.outcomes():
        place = origin(record)
        counts[place] += 1
        role = "forecasts" if record.topic == stage.topics.forecasts else "dead_letters"
        found[place] = Outcome(role, record.key, record.value, tuple(record.headers))
        if role == "forecasts":
            assert last.get(record.key, -1) <= place[1], f"{record.key!r} goes back at {place}; {stage.report()}"
            last[record.key] = place[1]
    twice = sorted(place for place, count in counts.items() if count > 1)
    assert not twice, f"{len(twice)} ticks have two outcomes, the first is {twice[0]}; {stage.report()}"
    return found


def read_places(bootstrap: str, topic: str) -> list[Place]:
    """Return the place of every committed record of a topic."""
    found = read_topics(bootstrap, topic)
    return sorted((record.partition, record.offset) for record in found)
