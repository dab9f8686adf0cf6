"""What a service has published for the ticks of one partition, read back in the order in which it was written.

Forecasts and dead letters of a partition stand in the order of its ticks, so both topics can be walked beside the
ticks, a slice at a time, however long they are. What stands out of that order is still handed out, late.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from daemon.core.records import Headers, Message, Record
from daemon.transport.port import Readable, Reader
from schemas import HEADER_PREFIX, ResetCause

Kind = Literal["forecast", "dead_letter"]

#: One read; some 1 MB of forecasts.
READ_RECORDS = 2000
READ_SECONDS = 0.1
#: Reads in a row that may bring nothing while an outcome is awaited: some 30 s. A killed instance's transaction ends
#: after 10 s, plus up to 10 s until the broker looks.
FRUITLESS_READS_MAX = 300
#: The same where nothing is awaited and what is left may be of a transaction that is not committed yet: some 3 s.
QUIET_READS = 30
#: Beyond any offset.
NO_END = 2**63
#: `ForecastEncoder` writes the id first.
_ID = re.compile(rb'\{"id":"([^"]*)-(\d{1,19})-(\d{1,19})"')
#: Causes after which nothing that came before counts, running scales included. A quote in a session's label would be
#: escaped, so this cannot stand inside of one.
_START = re.compile(rb'"step":0,"reset":"(first|cold|operator)"')
#: It stands behind all that comes from the tick.
_MODEL = re.compile(rb'"model":"([^"\\]*)","schema_version":\d+\}$')


class Log(Protocol):
    """One topic, as `daemon.transport.port.Reader` sees it."""

    def bounds(self, partition: int) -> tuple[int, int]:
        """Return the first retained offset and the high watermark."""
        ...

    def read(
        self, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[Sequence[Record], int]:
        """Return committed records from `offset` on, and where to read on."""
        ...


class TopicLog:
    """One topic of a reader. Give each topic a reader of its own: one that switches loses what it fetched ahead."""

    def __init__(self, reader: Reader, topic: Readable) -> None:
        self._reader = reader
        self._topic = topic

    def bounds(self, partition: int) -> tuple[int, int]:
        """Do as `Log.bounds` says."""
        return self._reader.bounds(self._topic, partition)

    def read(
        self, partition: int, offset: int, timeout_seconds: float, max_records: int
    ) -> tuple[Sequence[Record], int]:
        """Do as `Log.read` says."""
        return self._reader.read(self._topic, partition, offset, timeout_seconds, max_records)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One published outcome of one tick, or the one that should have been."""

    kind: Kind
    #: Offset of its tick.
    offset: int
    #: Record or message; both have key, value and headers.
    content: Record | Message
    #: Offset in its own topic; -1 where it is in none.
    place: int = -1

    @property
    def start_cause(self) -> ResetCause | None:
        """Why the instrument began from nothing at this tick, if the forecast says that it did."""
        value = self.content.value
        if self.kind != "forecast" or value is None:
            return None
        found = _START.search(value)
        return None if found is None else ResetCause(found[1].decode())

    @property
    def model(self) -> str | None:
        """Id of the bundle that made it; a dead letter does not say."""
        value = self.content.value
        if self.kind != "forecast" or value is None:
            return None
        found = _MODEL.search(value)
        return None if found is None else found[1].decode()


def outcome_of(kind: Kind, content: Record | Message, topic: str) -> Outcome | None:
    """Return the outcome that a record holds, None where it belongs to no tick of that topic and partition."""
    tick = _forecast_tick(content.value) if kind == "forecast" else _letter_tick(content.headers)
    if tick is None or tick[:2] != (topic, content.partition):
        return None
    return Outcome(kind, tick[2], content, getattr(content, "offset", -1))


class Walk:
    """The outcomes in one partition of one topic, as far as it is written when the walk begins.

    Parameters
    ----------
    ticks_topic : outcomes of other topics are `astray`
    """

    def __init__(self, log: Log, kind: Kind, partition: int, ticks_topic: str) -> None:
        self._log = log
        self._kind = kind
        self._partition = partition
        self._ticks_topic = ticks_topic
        self._position, self._end = log.bounds(partition)
        self._trimmed = self._position > 0
        self._waiting: deque[Outcome] = deque()
        #: Outcomes of earlier ticks may have been deleted by retention; None until the first outcome is seen.
        self._retained_from: int | None = None
        #: The first record that is the outcome of no tick of ours, and how many there are.
        self.astray: Record | None = None
        self.astray_count = 0

    @property
    def ended(self) -> bool:
        """True when there is nothing more to come."""
        return self._position >= self._end and not self._waiting

    def retained(self, offset: int) -> bool:
        """Say whether the outcome of a tick would still be here."""
        return not self._trimmed or (self._retained_from is not None and offset >= self._retained_from)

    def reached(self, before: int) -> bool:
        """Say whether all outcomes of ticks before that offset have been taken, those out of order aside."""
        return bool(self._waiting and self._waiting[0].offset >= before) or self.ended

    def take(self, before: int) -> list[Outcome]:
        """Return the next outcomes up to the first of a tick at or after `before`, as far as they can be read now."""
        taken: list[Outcome] = []
        while not self.reached(before):
            if self._waiting:
                taken.append(self._waiting.popleft())
            elif not self._fetch():
                break
        return taken

    def pass_over(self, first: int) -> int:
        """Begin at the last outcome of the first tick at or after `first` that has one.

        Where a group was set back, outcomes from there on stand twice, and only the second ones are of the states that
        live. Reads the topic once to its end. Returns how many outcomes of such ticks are passed over.
        """
        begin, tick, seen, passed, quiet = self._position, None, 0, 0, 0
        while quiet < QUIET_READS and self._position < self._end:
            quiet = 0 if self._fetch() else quiet + 1
            for outcome in self._waiting:
                if outcome.offset >= first:
                    if tick is None or outcome.offset <= tick:
                        begin, tick, passed = outcome.place, outcome.offset, seen
                    seen += 1
            self._waiting.clear()
        self._position = begin
        self.astray, self.astray_count = None, 0
        return passed

    def _fetch(self) -> bool:
        """Read on; return whether that got anywhere."""
        if self._position >= self._end:
            return False
        records, position = self._log.read(self._partition, self._position, READ_SECONDS, READ_RECORDS)
        moved, self._position = position > self._position, position
        for record in records:
            if record.offset < self._end:
                self._add(record)
        return moved

    def _add(self, record: Record) -> None:
        outcome = outcome_of(self._kind, record, self._ticks_topic)
        if outcome is None:
            self.astray_count += 1
            self.astray = self.astray or record
            return
        if self._retained_from is None:
            self._retained_from = outcome.offset
        self._waiting.append(outcome)


class Published:
    """Forecasts and dead letters of one partition together.

    Parameters
    ----------
    set_back_to : see `Walk.pass_over`; None where that is not needed
    """

    def __init__(
        self,
        logs: Mapping[Kind, Log],
        partition: int,
        ticks_topic: str,
        *,
        set_back_to: int | None = None,
    ) -> None:
        self._walks = {kind: Walk(log, kind, partition, ticks_topic) for kind, log in logs.items()}
        #: Outcomes of states that were given up when the group was set back.
        self.passed_count = 0
        if set_back_to is not None:
            self.passed_count = sum(walk.pass_over(set_back_to) for walk in self._walks.values())

    def take(self, before: int, found: Callable[[Outcome], None], lacking: Callable[[], bool]) -> None:
        """Hand over the outcomes of ticks before an offset, topic after topic.

        Parameters
        ----------
        lacking : whether any outcome is still awaited; while it is, what an open transaction holds back is waited for
        """
        fruitless = 0
        while fruitless < FRUITLESS_READS_MAX:
            taken = self._hand_over(before, found)
            if all(walk.reached(before) for walk in self._walks.values()) or not lacking():
                return
            fruitless = 0 if taken else fruitless + 1

    def rest(self, found: Callable[[Outcome], None]) -> None:
        """Hand over all that is left and committed."""
        quiet = 0
        while quiet < QUIET_READS and not all(walk.ended for walk in self._walks.values()):
            quiet = 0 if self._hand_over(NO_END, found) else quiet + 1

    def _hand_over(self, before: int, found: Callable[[Outcome], None]) -> bool:
        taken = [outcome for walk in self._walks.values() for outcome in walk.take(before)]
        for outcome in taken:
            found(outcome)
        return bool(taken)

    def retained(self, kind: Kind | None, offset: int) -> bool:
        """Say whether the outcome of a tick would still be here; kind None: whatever it is."""
        return all(walk.retained(offset) for name, walk in self._walks.items() if kind in (None, name))

    @property
    def astray(self) -> tuple[Kind, Record] | None:
        """The first record that is the outcome of no tick of ours."""
        return next(((kind, walk.astray) for kind, walk in self._walks.items() if walk.astray is not None), None)

    @property
    def astray_count(self) -> int:
        """How many such records there are."""
        return sum(walk.astray_count for walk in self._walks.values())


def _forecast_tick(value: bytes | None) -> tuple[str, int, int] | None:
    found = None if value is None else _ID.match(value)
    return None if found is None else (found[1].decode("utf-8", "replace"), int(found[2]), int(found[3]))


def _letter_tick(headers: Headers) -> tuple[str, int, int] | None:
    facts = {name: value for name, value in headers if name.startswith(HEADER_PREFIX)}
    try:
        topic, partition, offset = (facts[HEADER_PREFIX + name] for name in ("topic", "partition", "offset"))
        return topic.decode("utf-8", "replace"), int(partition), int(offset)
    except (KeyError, ValueError, AttributeError, TypeError):
        return None
