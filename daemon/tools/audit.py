"""Re-runs ticks through the pipeline and holds what was published against what comes out, byte for byte.

    ticks      ----------> pipeline --> expected outcomes --+
                                                            +--> equal, different, missing, twice
    forecasts, dead letters  ---------> published outcomes -+

One partition after the other, a slice of ticks at a time. By the pipeline's first promise neither the slices nor the
crashes and rebalances that the daemon went through change a bit, so any difference is a fault: of the daemon, of this
machine, or of the log.

What does not follow from the log are resets by an operator and states that were lost (`cold`). Where a published
forecast says so, the re-run takes the reset over, counts it, and goes on comparing.

Invariants
----------
- A tick is judged only where its instrument stands as the daemon's did; but each tick needs exactly one outcome.
- Ticks whose outcome may not be committed yet are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from daemon.core.instrument import Instrument
from daemon.core.pipeline import Pipeline
from daemon.core.records import Record
from daemon.core.snapshot import Snapshot
from daemon.errors import BrokerUnavailable
from daemon.tools.audit_start import Setting, Start, start_of
from daemon.tools.published import NO_END, Kind, Log, Outcome, Published, outcome_of
from daemon.tools.verdict import Fault, Findings, same
from schemas import Rejected, ResetCause, TickDecoder

#: Ticks of one slice: enough for the step to work on many rows at once, and a few MB.
SLICE_TICKS = 2000
READ_SECONDS = 0.1
#: Reads in a row that may bring no tick: some 30 s. All of them are committed, so only the broker can be in the way.
FRUITLESS_READS_MAX = 300


@dataclass(frozen=True, slots=True)
class Window:
    """The ticks whose outcomes are compared; the re-run begins where states begin all the same.

    Times are the records' own, milliseconds: the first tick that is not before `from_ms` opens the window, and the
    first that is not before `to_ms` closes it.
    """

    from_offset: int = 0
    to_offset: int = NO_END
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Logs:
    """The topics that an audit reads."""

    ticks: Log
    outcomes: Mapping[Kind, Log]
    #: As outcomes name it.
    ticks_topic: str


def audit_partition(
    pipeline: Pipeline,
    decoder: TickDecoder,
    setting: Setting,
    logs: Logs,
    window: Window,
    progress: Callable[[int], None] = lambda ticks: None,
) -> Findings:
    """Judge one partition as far as it can be judged; see `PartitionAudit`.

    Raises
    ------
    BrokerUnavailable, TopicError, AccessDenied : something cannot be read
    """
    start = start_of(setting)
    if isinstance(start, str):
        return Findings(setting.partition, f"nothing is judged: {start}")
    published = Published(logs.outcomes, setting.partition, logs.ticks_topic, set_back_to=start.set_back_to)
    audit = PartitionAudit(
        pipeline,
        decoder,
        start,
        logs.ticks,
        published,
        partition=setting.partition,
        window=window,
        progress=progress,
    )
    return audit.run()


class PartitionAudit:
    """The audit of one partition.

    Parameters
    ----------
    pipeline : does not hold the partition, and does not afterwards
    decoder : tells whose a dead letter is, where not all instruments can be judged
    progress : called with the number of ticks that were run since the last call
    """

    def __init__(
        self,
        pipeline: Pipeline,
        decoder: TickDecoder,
        start: Start,
        ticks: Log,
        published: Published,
        *,
        partition: int,
        window: Window,
        progress: Callable[[int], None] = lambda ticks: None,
    ) -> None:
        self._pipeline = pipeline
        self._decoder = decoder
        self._start = start
        self._ticks = ticks
        self._published = published
        self._partition = partition
        self._window = window
        self._progress = progress
        self.findings = Findings(partition, start.line)
        self._trust = _Trust(start)
        #: The ticks that are compared; set as the window opens and closes.
        self._low = NO_END if window.from_ms is not None else max(window.from_offset, start.live_from)
        self._high = min(window.to_offset, start.until)
        #: Ticks that wait to be run together, with what was published for them.
        self._batch: list[tuple[Record, Sequence[Outcome]]] = []
        self._warm = False

    def run(self) -> Findings:
        """Judge the partition."""
        self._begin()
        offset, fruitless = self._start.offset, 0
        while offset < self._high:
            records, next_offset = self._ticks.read(self._partition, offset, READ_SECONDS, SLICE_TICKS)
            fruitless = 0 if next_offset > offset else fruitless + 1
            if fruitless > FRUITLESS_READS_MAX:
                raise BrokerUnavailable(f"partition {self._partition}: tick {offset} could not be read; try again")
            if records:
                self._slice(offset, records, next_offset)
            offset = next_offset
        self._end(offset)
        return self.findings

    # --- the slices ---------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._pipeline.assign(self._partition, self._start.origin)
        fit = []
        for snapshot in self._start.snapshots:
            if self._pipeline.fits(snapshot):
                fit.append(snapshot)
            else:
                self._trust.doubt(snapshot.instrument.name)
                fit.append(_nothing(snapshot.instrument.name, ResetCause.COLD, self._start.offset))
        self._pipeline.put_back(self._partition, fit)
        self._pipeline.settle(self._partition)
        self._resets = dict(sorted(self._start.resets.items()))

    def _slice(self, offset: int, records: Sequence[Record], next_offset: int) -> None:
        for record in records:
            self._turn_window(record)
        records = [record for record in records if record.offset < self._high]
        found: dict[int, list[Outcome]] = {record.offset: [] for record in records}
        before = min(next_offset, self._high)

        def place(outcome: Outcome) -> None:
            if outcome.offset in found:
                found[outcome.offset].append(outcome)
            elif outcome.offset < offset:
                self._behind(outcome)
            elif self._compares(outcome.offset):
                self.findings.astray(outcome)

        def lacking() -> bool:
            return any(not outcomes and self._compares(offset) for offset, outcomes in found.items())

        self._published.take(before, place, lacking)
        for record in records:
            self._feed(record, found[record.offset])
        self._flush()
        self._progress(len(records))

    def _turn_window(self, record: Record) -> None:
        window = self._window
        if window.from_ms is not None and self._low == NO_END and record.timestamp >= window.from_ms:
            self._low = max(record.offset, window.from_offset, self._start.live_from)
        if window.to_ms is not None and record.timestamp >= window.to_ms:
            self._high = min(self._high, record.offset)

    def _compares(self, offset: int) -> bool:
        return self._low <= offset < self._high

    def _end(self, offset: int) -> None:
        findings, published = self.findings, self._published
        published.rest(lambda outcome: self._behind(outcome) if outcome.offset < offset else None)
        findings.astray_count += published.astray_count
        if published.astray is not None:
            findings.fault(Fault.of_record(self._partition, *published.astray))
        findings.earlier = published.passed_count
        findings.instruments_not_judged = self._trust.unsure_count
        self._pipeline.drop(self._partition)

    def _behind(self, outcome: Outcome) -> None:
        """Take an outcome whose tick has been judged already."""
        if self._compares(outcome.offset):
            self.findings.twice += 1
            self.findings.fault(Fault("twice", self._partition, outcome.offset, published=[outcome]))

    # --- the re-run ---------------------------------------------------------------------------------------------------

    def _feed(self, record: Record, published: Sequence[Outcome]) -> None:
        """Let a tick be run, after what happened to states at its offset."""
        offset = record.offset
        while self._resets and next(iter(self._resets)) <= offset:
            self._reset_exported(next(iter(self._resets)))
        if self._start.ended and published and offset < self._high:
            self._end_with_model(offset, published[0].model)
        if offset >= self._start.live_from:
            self._warm_up()
            if published:
                self._take_over(published[0])
        if self._batch and self._compares(self._batch[-1][0].offset) != self._compares(offset):
            self._flush()
        self._batch.append((record, published))

    def _flush(self) -> None:
        """Run the ticks that wait, and judge them by what is trusted so far."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        records = [record for record, _ in batch]
        if not self._compares(records[0].offset):
            self._pipeline.replay(records)
            return
        done = self._pipeline.advance(records)
        outcomes = [outcome_of("forecast", message, records[0].topic) for message in done.forecasts]
        outcomes += [outcome_of("dead_letter", message, records[0].topic) for message in done.dead_letters]
        expected = {outcome.offset: outcome for outcome in outcomes if outcome is not None}
        for record, published in batch:
            self._judge(record, expected[record.offset], published)

    def _end_with_model(self, offset: int, model: str | None) -> None:
        """Judge nothing from the first forecast of another model on: our states had been given up by then."""
        if model is not None and model != self._pipeline.model:
            self._high = offset
            self.findings.line += f"; from tick {offset} on they are of bundle {model}"

    def _warm_up(self) -> None:
        """Do once, before the first live tick, what the daemon did when a revision took over."""
        if self._warm:
            return
        self._warm = True
        if self._start.origin is ResetCause.REVISION and self._start.offset < self._start.live_from:
            self._flush()
            self._pipeline.warmed_up(self._partition, ResetCause.REVISION)

    def _reset_exported(self, offset: int) -> None:
        self._flush()
        for name, cause in self._resets.pop(offset):
            self._pipeline.reset(self._partition, name, cause)
            self._trust.add(name)

    def _take_over(self, outcome: Outcome) -> None:
        """Begin an instrument anew where the published forecast says that it began from nothing and we would not."""
        cause, key = outcome.start_cause, outcome.content.key
        if cause is None or key is None:
            return
        name = key.decode("utf-8", "replace")
        sure = self._trust.sure(name)
        if cause is ResetCause.FIRST and sure and self._start.whole:
            return  # new or evicted: both follow from the log
        self._flush()
        held = self._held(name)
        own = self._start.origin if held is None else held.pending_reset
        if own is not cause:
            if held is None:
                self._pipeline.put_back(self._partition, [_nothing(name, cause, outcome.offset)])
            else:
                self._pipeline.reset(self._partition, name, cause)
            if sure and self._compares(outcome.offset):
                self.findings.resets_taken_over += 1
        self._trust.add(name)

    def _held(self, name: str) -> Instrument | None:
        return self._pipeline.held(self._partition, name)

    # --- the verdict --------------------------------------------------------------------------------------------------

    def _judge(self, record: Record, expected: Outcome, published: Sequence[Outcome]) -> None:
        findings = self.findings
        findings.ticks += 1
        if len(published) > 1:
            findings.twice += len(published) - 1
            self._fault("twice", record, expected, published)
        if not published:
            self._judge_absence(record, expected)
        elif not self._trusts(record, expected, published[0]):
            findings.not_judged += 1
        elif same(record, expected, published[0]):
            findings.equal[expected.kind] += 1
        else:
            findings.different[expected.kind] += 1
            self._fault("different", record, expected, published)

    def _judge_absence(self, record: Record, expected: Outcome) -> None:
        sure = self._trusts(record, expected, None)
        if self._published.retained(expected.kind if sure else None, record.offset):
            self.findings.missing += 1
            self._fault("missing", record, expected if sure else None, ())
        else:
            self.findings.not_retained += 1

    def _trusts(self, record: Record, expected: Outcome, published: Outcome | None) -> bool:
        """Say whether the re-run's outcome of a tick has to be the daemon's."""
        if self._trust.all:
            return True
        for outcome in (expected, published):
            if outcome is not None and outcome.kind == "forecast" and outcome.content.key is not None:
                return self._trust.judged(outcome.content.key.decode("utf-8", "replace"))
        try:
            return self._trust.judged(self._decoder.decode(record.value).instrument)
        except Rejected:
            return True  # no state has a say in it

    def _fault(self, kind: str, record: Record, expected: Outcome | None, published: Sequence[Outcome]) -> None:
        self.findings.fault(Fault(kind, self._partition, record.offset, record, expected, list(published)))


@dataclass(slots=True)
class _Trust:
    """Which instruments stand as the daemon's did."""

    start: Start
    #: Those that stand otherwise than `start.whole` says of all.
    _others: set[str] = field(default_factory=set)
    #: Those that were met while they could not be judged.
    _met: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._others.update(self.start.unsure)

    @property
    def all(self) -> bool:
        """True where every instrument can be judged."""
        return self.start.whole and not self._others

    @property
    def unsure_count(self) -> int:
        """Instruments of which some ticks could not be judged."""
        return len(self._met)

    def sure(self, name: str) -> bool:
        """Say whether an instrument stands as the daemon's did."""
        return self.start.whole != (name in self._others)

    def judged(self, name: str) -> bool:
        """As `sure`, and remember it where it does not."""
        if self.sure(name):
            return True
        self._met.add(name)
        return False

    def doubt(self, name: str) -> None:
        """Note that an instrument of an export does not stand as the daemon's did."""
        self._others.add(name)

    def add(self, name: str) -> None:
        """Note that from here on the instrument stands as the daemon's did."""
        if self.start.whole:
            self._others.discard(name)
        else:
            self._others.add(name)


def _nothing(name: str, cause: ResetCause, offset: int) -> Snapshot:
    """Return an instrument that begins at a tick, for a cause that the re-run does not know of."""
    return Snapshot("", offset, Instrument(name, -1, [], cause), np.empty(0, np.float32))
