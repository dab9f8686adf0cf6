"""The pipeline: records in, a batch of forecasts and dead letters out. No Kafka, no clock, no file.

    decode -> order -> session -> features      tick by tick, `intake`
    -> waves -> step                            the whole batch at once, `runner`
    -> scores                                   tick by tick, `scores`
    -> forecast -> messages                     the whole batch at once, `forecast`

Invariants
----------
- Every record has exactly one outcome, a forecast or a dead letter, on its own partition.
- Payloads depend on the instrument's accepted ticks in its partition alone: on no cut of the batches, no neighbour.
- A rejected tick changes no state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

from daemon.core.canary import Canary, Probe
from daemon.core.features import FeatureTable
from daemon.core.forecast import Forecaster
from daemon.core.instrument import FLOAT_BYTES, Instrument
from daemon.core.intake import Intake, OrderLimits, Row
from daemon.core.kept_scores import Pending, horizon_count
from daemon.core.letters import dead_letter
from daemon.core.records import Message, Record
from daemon.core.runner import Ran, Runner
from daemon.core.scores import Scored, published
from daemon.core.sessions import Rules
from daemon.core.snapshot import Snapshot, encode
from daemon.core.spec import ModelSpec
from daemon.core.step import F32, Step
from daemon.core.table import Partition, StateTable
from schemas import (
    SCORE_VERSION,
    ForecastEncoder,
    Reason,
    Rejected,
    ResetCause,
    Tick,
    TickDecoder,
    encode_score,
    number_texts,
    row_texts,
)

#: Fits the default limit of a topic.
DEAD_LETTER_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """The settings that shape payloads; all of them are part of the revision."""

    limits: OrderLimits
    warmup_ticks: int = 50
    coverage: float = 0.9
    instruments_per_partition_max: int = 100_000


@dataclass(slots=True)
class Batch:
    """What one call of `Pipeline.advance` made of its records."""

    forecasts: list[Message] = field(default_factory=list)
    dead_letters: list[Message] = field(default_factory=list)
    #: Kafka timestamp of each forecast's tick, ms, in the order of `forecasts`.
    timestamps: list[int] = field(default_factory=list)
    #: Instrument of each forecast, in the order of `forecasts`.
    instruments: list[str] = field(default_factory=list)
    #: What the model saw, float32, shape (forecasts, columns), in the order of `forecasts`.
    inputs: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    #: The model's own outputs that say a mean, float32, shape (forecasts, horizons), in the order of `forecasts`.
    outputs: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    reasons: Counter[Reason] = field(default_factory=Counter)
    resets: Counter[ResetCause] = field(default_factory=Counter)
    evicted_count: int = 0
    #: Earlier forecasts whose truth came in this batch, in log order: the tick that is it, the column of the horizon.
    scored: list[tuple[Row, int, Pending]] = field(default_factory=list)
    #: The same as messages, where they are wanted.
    scores: list[Message] = field(default_factory=list)
    #: A run of the canary that ended in this batch.
    probe: Probe | None = None


class Pipeline:
    """Holds the states of the partitions it was given and advances them batch by batch.

    Parameters
    ----------
    spec, step : the model, and the step that runs it
    rules : the session rules
    options : the settings that shape payloads
    decoder : reads values; its own for topics whose JSON is not ours
    canary_ticks : JSON values of the canary's sequence; empty for none
    scores : write scored forecasts as messages, too
    """

    def __init__(
        self,
        spec: ModelSpec,
        step: Step,
        rules: Rules,
        options: PipelineOptions,
        *,
        decoder: TickDecoder | None = None,
        canary_ticks: Sequence[bytes] = (),
        scores: bool = False,
    ) -> None:
        self._spec = spec
        self._write_score_messages = scores
        self._options = options
        #: Largest key and value of a dead letter together; the cluster says how large, after we were built.
        self.dead_letter_bytes_max = DEAD_LETTER_BYTES_MAX
        self._decoder = decoder or TickDecoder()
        self._rules = rules
        self._features = FeatureTable(spec.columns, spec.volatility_prior, spec.missing)
        self._intake = Intake(self._features, rules, options.limits, prices_may_be_negative=spec.prices_may_be_negative)
        self._table = StateTable(step.initial_state)
        self._forecaster = Forecaster(spec, options.coverage)
        self._encoder = ForecastEncoder(spec.horizons, spec.model_id)
        self._runner = Runner(step, self._table, self._features, self._forecaster)
        self._partitions: dict[int, Partition] = {}
        #: Instrument -> number of partitions it has been seen in; more than one means producers key differently.
        self._homes: Counter[str] = Counter()
        #: How many of them stand at more than one; kept, since counting anew would stop the loop with many instruments.
        self._two_homes_count = 0
        self._canary = Canary(canary_ticks, spec, step, self._table.take()) if canary_ticks else None

    # --- partitions ---------------------------------------------------------------------------------------------------

    def assign(self, partition: int, origin: ResetCause = ResetCause.FIRST, *, saved_to: int = 0) -> None:
        """Take a partition on, without states; see `Partition` for what the arguments mean."""
        self.drop(partition)
        maximum = self._options.instruments_per_partition_max
        self._partitions[partition] = Partition(maximum, origin, saved_to)

    def fits(self, snapshot: Snapshot) -> bool:
        """Say whether a snapshot has the shape of our states; resets have none."""
        packed = snapshot.instrument.packed_scores
        shape = (len(snapshot.instrument.packed_cells) // FLOAT_BYTES, snapshot.state.nbytes)
        scored = not packed or horizon_count(packed) == len(self._spec.horizons)
        return snapshot.is_reset or (scored and shape == (len(self._features.start), self._table.row_bytes))

    def put_back(self, partition: int, snapshots: Sequence[Snapshot]) -> None:
        """Take instruments from their snapshots, in any order and any number of calls; `settle` ends them."""
        initial, start = self._table.initial, self._features.start
        slots = self._table.take_all([initial if each.is_reset else each.state for each in snapshots])
        instruments = [snapshot.instrument for snapshot in snapshots]
        for instrument, slot in zip(instruments, slots, strict=True):
            instrument.slot = slot
            if not instrument.packed_cells:
                instrument.cells = start
            self._count_home(instrument.name)
        self._partitions[partition].put_back(instruments)

    def settle(self, partition: int) -> None:
        """Put the instruments that were put back in the order in which they will be evicted."""
        self._partitions[partition].sort()

    def mark_stale(self, partition: int, keys: Iterable[bytes]) -> None:
        """Note keys of the state topic that hold something else than what is here, for the next checkpoint."""
        self._partitions[partition].mark_stale(keys)

    def reset(self, partition: int, name: str, cause: ResetCause) -> None:
        """Forget all of an instrument but its place; its next forecast says `cause`. One that is unknown stays so."""
        held = self._partitions[partition]
        instrument = held.get(name)
        if instrument is None:
            return
        slot, last_offset = instrument.slot, instrument.last_offset
        instrument.__init__(name, slot, self._features.start, cause)  # type: ignore[misc]
        instrument.last_offset = last_offset
        held.mark_stale([name.encode()])

    def warmed_up(self, partition: int, cause: ResetCause) -> None:
        """Let the next forecast of every instrument say `cause`: what they said so far was not published."""
        for instrument in self._partitions[partition]:
            instrument.untold_reset = cause

    def drop(self, partition: int) -> None:
        """Forget a partition and its states; unknown ones are no error."""
        for instrument in self._partitions.pop(partition, ()):
            self._forget(instrument)
            self._table.release([instrument.slot])

    def checkpoint(self, partition: int, revision: str, next_offset: int) -> list[Message]:
        """Return snapshots and tombstones that bring the state topic up to the tick before `next_offset`."""
        touched, gone = self._partitions[partition].unsaved()
        rows = self._table.gather(np.array([instrument.slot for instrument in touched], np.intp))
        width = self._table.row_bytes
        states = rows.tobytes()
        return [
            *(
                Message(
                    partition,
                    instrument.name.encode(),
                    encode(revision, next_offset, instrument, states[at * width : (at + 1) * width]),
                )
                for at, instrument in enumerate(touched)
            ),
            *(Message(partition, key, None) for key in gone),
        ]

    def checkpointed(self, partition: int, next_offset: int) -> None:
        """Note that the checkpoint at `next_offset` was committed; no tick may have been accepted since."""
        self._partitions[partition].saved(next_offset)

    @property
    def model(self) -> str:
        """Id of the bundle that runs in it."""
        return self._spec.model_id

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions held, sorted."""
        return tuple(sorted(self._partitions))

    def held(self, partition: int, name: str) -> Instrument | None:
        """Return an instrument, or None where nothing of it is kept."""
        return self._partitions[partition].get(name)

    def instruments(self, most: int) -> list[Instrument]:
        """Return about `most` instruments, as many of each partition, the most recently accepted first.

        Another thread may ask: copying the values of a dict is one step of the interpreter; with a million instruments
        it is one of 80 ms, hence the bound. Of what it gets, only what is replaced and never changed in place means
        anything to it: numbers, and `cells` as a whole.
        """
        partitions = list(self._partitions.values())
        return [each for partition in partitions for each in partition.newest(-(-most // len(partitions)))]

    def holds(self, name: str) -> bool:
        """Say whether an instrument has state in any partition; any thread may ask."""
        return name in self._homes

    @property
    def instrument_count(self) -> int:
        """States held now, over all partitions."""
        return sum(map(len, self._partitions.values()))

    @property
    def instruments_in_two_partitions(self) -> int:
        """Instruments whose ticks came in more than one of our partitions."""
        return self._two_homes_count

    @property
    def framed_count(self) -> int:
        """Ticks so far that came in Confluent's framing."""
        return self._decoder.framed_count

    @property
    def beyond_calendar_count(self) -> int:
        """Ticks so far outside the span of their calendar."""
        return self._rules.beyond_count

    @property
    def state_bytes(self) -> int:
        """Bytes of recurrent state in use."""
        return self._table.used_count * self._table.row_bytes

    # --- the batch ----------------------------------------------------------------------------------------------------

    def advance(self, records: Iterable[Record]) -> Batch:
        """Make one batch of the records; their partitions must have been assigned.

        Parameters
        ----------
        records : in offset order within each partition, any interleaving of partitions
        """
        batch = Batch()
        accepted: list[Record | None] = []
        rows: list[Row] = []
        evicted: list[Instrument] = []
        for record in records:
            try:
                rows.append(self._accept(record, evicted))
                accepted.append(record)
            except Rejected as rejected:
                self._refuse(batch, record, rejected.reason, rejected.detail)
        if rows:
            self._forecast(batch, accepted, rows)
        self._table.release(instrument.slot for instrument in evicted)
        batch.evicted_count = len(evicted)
        return batch

    def replay(self, records: Iterable[Record]) -> int:
        """Move the states over records whose outcomes are published already; as `advance`, but nothing is written.

        Returns
        -------
        accepted_count : how many of them were no dead letters
        """
        rows: list[Row] = []
        evicted: list[Instrument] = []
        for record in records:
            try:
                rows.append(self._accept(record, evicted))
            except Rejected:
                continue
        if rows:
            self._runner.run(rows)
        self._table.release(instrument.slot for instrument in evicted)
        return len(rows)

    def _accept(self, record: Record, evicted: list[Instrument]) -> Row:
        tick = self._decode(record)
        partition = self._partitions[record.partition]
        known = partition.get(tick.instrument)
        if known is None:
            row, instrument = self._admit(record, tick, partition)
        else:
            row = self._intake.accept(tick, known, offset=record.offset, timestamp=record.timestamp)
            instrument = known
        gone = partition.touch(instrument)
        if gone is not None:
            self._forget(gone)
            evicted.append(gone)
        return row

    def _decode(self, record: Record) -> Tick:
        key = record.key
        if key is not None and not key.isascii():
            try:
                key.decode("utf-8")
            except UnicodeDecodeError as error:
                raise Rejected(Reason.KEY_NOT_UTF8, f"the key is not UTF-8: {error.reason} at {error.start}") from None
        return self._decoder.decode(record.value)

    def _admit(self, record: Record, tick: Tick, partition: Partition) -> tuple[Row, Instrument]:
        """Accept the first tick of an instrument without state; a refused one leaves no trace."""
        newcomer = Instrument(tick.instrument, -1, self._features.start, partition.origin)
        row = self._intake.accept(tick, newcomer, offset=record.offset, timestamp=record.timestamp)
        newcomer.slot = self._table.take()
        self._count_home(newcomer.name)
        return row, newcomer

    def _count_home(self, name: str) -> None:
        self._homes[name] += 1
        self._two_homes_count += self._homes[name] == 2

    def _forget(self, instrument: Instrument) -> None:
        self._homes[instrument.name] -= 1
        self._two_homes_count -= self._homes[instrument.name] == 1
        if not self._homes[instrument.name]:
            del self._homes[instrument.name]

    def _refuse(self, batch: Batch, record: Record, reason: Reason, detail: str) -> None:
        batch.reasons[reason] += 1
        batch.dead_letters.append(dead_letter(record, reason, detail, self.dead_letter_bytes_max))

    def _forecast(self, batch: Batch, records: list[Record | None], rows: list[Row]) -> None:
        """Run the accepted rows, and the canary among them, through the step and write their outcomes."""
        if self._canary is not None:
            place = self._canary.place(len(rows))
            rows.insert(place, self._canary.next_row())
            records.insert(place, None)
        ran = self._runner.run(rows)
        if self._canary is not None:
            batch.probe = self._canary.observe(ran.outputs[place])
        written = self._write(batch, records, rows, ran)
        batch.inputs = ran.inputs[written]
        batch.outputs = ran.outputs[written][:, self._forecaster.means]
        self._write_scores(batch, records, rows, ran.scored)

    def _write(self, batch: Batch, records: list[Record | None], rows: list[Row], ran: Ran) -> list[int]:
        """Write the outcome of each accepted tick, in log order; return the rows that became forecasts."""
        levels, broken = ran.levels, ran.broken
        mean, *rest = map(np.ascontiguousarray, (levels.mean, levels.lower, levels.upper, levels.variance))
        numbers = list(zip(number_texts(levels.price), row_texts(mean), strict=True))
        ends = list(zip(*map(row_texts, rest), strict=True))
        known, warmup_ticks, encode = levels.known.tolist(), self._options.warmup_ticks, self._encoder.encode
        written = []
        for index, (record, row) in enumerate(zip(records, rows, strict=True)):
            if record is None:  # the canary
                continue
            if index in broken:
                self._refuse(batch, record, Reason.NON_FINITE, "the model's state or output is not finite")
                continue
            name = row.instrument.name
            reset = row.untold or row.reset
            value = encode(
                (record.topic.encode(), record.partition, record.offset),
                name,
                row.ts,
                row.session,
                row.step,
                reset,
                row.step >= warmup_ticks,
                numbers[index],
                ends[index] if known[index] else None,
            )
            if reset is not None:
                batch.resets[reset] += 1
            batch.forecasts.append(Message(record.partition, name.encode(), value))
            batch.timestamps.append(record.timestamp)
            batch.instruments.append(name)
            written.append(index)
        return written

    def _write_scores(
        self, batch: Batch, records: list[Record | None], rows: list[Row], found: Sequence[Scored]
    ) -> None:
        """Hand on the scored forecasts of all but the canary, as messages too where they are wanted."""
        batch.scored = [(rows[index], column, each) for index, column, each in found if records[index] is not None]
        if not (self._write_score_messages and batch.scored):
            return
        truths = [record for record in (records[index] for index, *_ in found) if record is not None]
        ends = published(self._forecaster, [(column, forecast) for _, column, forecast in batch.scored])
        for record, (row, column, forecast), lower, upper in zip(truths, batch.scored, *ends, strict=True):
            known, name, outcome = forecast.low != -inf, row.instrument.name, row.price
            payload = {
                "id": f"{record.topic}-{record.partition}-{forecast.offset}",
                "outcome_id": f"{record.topic}-{record.partition}-{record.offset}",
                "instrument": name,
                "ts": forecast.ts,
                "outcome_ts": row.ts,
                "horizon": self._spec.horizons[column],
                "price": forecast.price,
                "mean": forecast.mean,
                "lower": lower if known else None,
                "upper": upper if known else None,
                "outcome": outcome,
                "below": outcome < lower if known else None,
                "above": outcome > upper if known else None,
                "model": self._spec.model_id,
                "schema_version": SCORE_VERSION,
            }
            batch.scores.append(Message(record.partition, name.encode(), encode_score(payload)))
