"""What an audit found, and how a published outcome is held against the one that should have been."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from daemon.core.records import Message, Record
from daemon.tools.published import Kind, Outcome
from schemas import HEADER_PREFIX

#: Of a dead letter: why, and where its tick stood. Its detail is for people, its attempt the tick's own matter.
LETTER_FACTS = tuple(HEADER_PREFIX + name for name in ("reason", "topic", "partition", "offset", "timestamp"))
TRUNCATED = HEADER_PREFIX + "truncated"
#: A value longer than this is cut where it is shown.
SHOWN_BYTES_MAX = 2000


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that must not be."""

    #: different, missing, twice or astray.
    kind: str
    partition: int
    #: Of the tick; of the record itself where it is the outcome of no tick.
    offset: int
    tick: Record | None = None
    expected: Outcome | None = None
    published: list[Outcome] = field(default_factory=list)

    @classmethod
    def of_record(cls, partition: int, kind: Kind, record: Record) -> Fault:
        """Make the fault of a record that is no outcome of a tick of ours."""
        return cls("astray", partition, record.offset, published=[Outcome(kind, -1, record, record.offset)])

    def lines(self) -> list[str]:
        """Say it in lines: what, the tick, and both payloads, one under the other."""
        subject = f"an outcome of no tick, at its offset {self.offset}" if self.kind == "astray" else self._of_tick()
        lines = [f"partition {self.partition}, {subject}"]
        if self.tick is not None:
            lines.append(f"  tick       key {_text(self.tick.key)} value {_text(self.tick.value)}")
        lines += [f"  published  {_shown(outcome)}" for outcome in self.published]
        if self.expected is not None:
            lines.append(f"  expected   {_shown(self.expected)}")
        return lines

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "kind": self.kind,
            "partition": self.partition,
            "offset": self.offset,
            "tick": None if self.tick is None else {"key": _text(self.tick.key), "value": _text(self.tick.value)},
            "published": [_shown(outcome) for outcome in self.published],
            "expected": None if self.expected is None else _shown(self.expected),
        }

    def _of_tick(self) -> str:
        words = {"different": "another outcome than expected", "missing": "no outcome"}
        return f"tick {self.offset}: {words.get(self.kind, 'more than one outcome, or one out of order')}"


@dataclass(slots=True)
class Findings:
    """What was found in one partition, or in all of them."""

    partition: int | None
    #: From where, or why nothing was judged.
    line: str
    #: Ticks whose outcomes were compared.
    ticks: int = 0
    equal: Counter[Kind] = field(default_factory=Counter)
    different: Counter[Kind] = field(default_factory=Counter)
    missing: int = 0
    #: Outcomes beyond the first of a tick.
    twice: int = 0
    #: Records in the topics of outcomes that belong to no tick.
    astray_count: int = 0
    #: Outcomes of instruments whose state is not known.
    not_judged: int = 0
    instruments_not_judged: int = 0
    #: Ticks whose outcome has been deleted by retention.
    not_retained: int = 0
    #: Outcomes of states that were given up when the group was set back.
    earlier: int = 0
    resets_taken_over: int = 0
    first_fault: Fault | None = None

    @property
    def judged(self) -> int:
        """Outcomes that were compared."""
        return sum(self.equal.values()) + sum(self.different.values())

    @property
    def fault_count(self) -> int:
        """How many things must not be."""
        return sum(self.different.values()) + self.missing + self.twice + self.astray_count

    @property
    def passed(self) -> bool:
        """True where something was judged and nothing is wrong."""
        return self.judged > 0 and not self.fault_count

    def fault(self, fault: Fault) -> None:
        """Keep the first one."""
        self.first_fault = self.first_fault or fault

    def astray(self, outcome: Outcome) -> None:
        """Take an outcome at whose offset there is no tick."""
        self.astray_count += 1
        self.fault(Fault("astray", outcome.content.partition, outcome.place, published=[outcome]))

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "partition": self.partition,
            "line": self.line,
            "ticks": self.ticks,
            "forecasts": {"equal": self.equal["forecast"], "different": self.different["forecast"]},
            "dead_letters": {"equal": self.equal["dead_letter"], "different": self.different["dead_letter"]},
            "missing": self.missing,
            "twice": self.twice,
            "astray": self.astray_count,
            "not_judged": {"outcomes": self.not_judged, "instruments": self.instruments_not_judged},
            "not_retained": self.not_retained,
            "of_earlier_states": self.earlier,
            "resets_taken_over": self.resets_taken_over,
            "first_fault": None if self.first_fault is None else self.first_fault.as_json(),
        }


def total(each: list[Findings]) -> Findings:
    """Add up."""
    names = (
        "ticks", "missing", "twice", "astray_count", "not_judged", "instruments_not_judged", "not_retained", "earlier",
        "resets_taken_over",
    )  # fmt: skip
    made = Findings(None, "all partitions", **{name: sum(getattr(one, name) for one in each) for name in names})
    for one in each:
        made.equal += one.equal
        made.different += one.different
    made.first_fault = next((one.first_fault for one in each if one.first_fault is not None), None)
    return made


def same(tick: Record, expected: Outcome, published: Outcome) -> bool:
    """Say whether a published outcome is the expected one: a forecast by its bytes, a dead letter by what it says.

    A dead letter keeps its tick's key and value; how much of a long value fits is the topic's matter, not the tick's.
    """
    if expected.kind != published.kind or expected.content.key != published.content.key:
        return False
    if expected.kind == "forecast":
        return expected.content.value == published.content.value
    wanted, found = dict(expected.content.headers), dict(published.content.headers)
    if any(wanted[name] != found.get(name) for name in LETTER_FACTS):
        return False
    value = published.content.value
    if TRUNCATED in found and tick.value is not None and value is not None:
        return tick.value.startswith(value)
    return value == tick.value


def _shown(outcome: Outcome) -> str:
    content: Record | Message = outcome.content
    if outcome.kind == "forecast":
        return _text(content.value)
    facts = dict(content.headers)
    said = " ".join(
        f"{name.removeprefix(HEADER_PREFIX)}={_text(facts.get(name))}"
        for name in (*LETTER_FACTS, HEADER_PREFIX + "detail")
    )
    return f"dead letter {said} key={_text(content.key)} value={_text(content.value)}"


def _text(value: bytes | None) -> str:
    if value is None:
        return "null"
    text = value[:SHOWN_BYTES_MAX].decode("utf-8", "backslashreplace")
    return text if len(value) <= SHOWN_BYTES_MAX else f"{text}... ({len(value)} bytes)"
