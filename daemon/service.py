"""The loop: poll, advance, commit. One thread owns consumer, pipeline and producer.

    records = source.poll()                      one poll = one batch = one transaction
    batch   = pipeline.advance(records)          pure
    sink.commit(batch, offsets, group_metadata)  forecasts, dead letters, a due checkpoint, offsets: all or nothing
    recovery.work()                              a slice for the partitions that do not run yet
    switching.work()                             a slice for a model that is to take over

Any failure between begin and commit takes the recovery path: drop the states of all our partitions and recover them
from their last checkpoints. There is no undo.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from daemon.checkpoints import Checkpoints
from daemon.core.pipeline import Batch, Pipeline
from daemon.core.records import Message, Record
from daemon.errors import BrokerUnavailable, TooManyDeadLetters, TransactionFailed
from daemon.health import Health
from daemon.logs import facts, log
from daemon.metrics import Metrics
from daemon.recovery import Recovery
from daemon.switching import Model, Switching
from daemon.transport.port import Outgoing, Polled, Role, Sink, Source
from daemon.warming import Warming

#: A poll returns at latest after this, so that a signal is seen and /livez stays true on a quiet topic.
POLL_SECONDS = 0.2
#: How often gauges that cost something to read are set.
GAUGES_SECONDS = 1.0
#: A slice of recovery between two polls.
RECOVERY_SECONDS = 0.05
#: A slice of a warm-up takes as long as the live part of its turn, within these bounds. A tick is replayed sooner than
#: answered, so the new states catch up with the live ones however much there is to answer.
WARM_UP_SECONDS = (0.05, 0.5)
#: A recovery that somebody else holds up asks again after this.
HELD_UP_SECONDS = 0.02
#: Its bounded questions to a cluster that does not answer may take so long.
RECOVERY_WAIT_SECONDS = 60.0
#: How often the cluster is asked whether we are still who we think we are: some 5 ms.
LOOK_SECONDS = 10.0
#: The bounds inside `Sink.commit` together: transaction 10 s, abort 3 s, letting go of the producer 5 s.
COMMIT_SECONDS = 20.0
#: The bounds inside `Sink.open` together, beyond the wait for a broker: letting go 5 s, the claim 10 s, two questions.
OPEN_SECONDS = 105.0
#: Pause after a failed transaction, doubled up to the bound while failures follow each other.
RETRY_SECONDS = (0.1, 5.0)
#: Outcomes that `dead_letter_ratio_max` looks back on.
RATIO_WINDOW = 1000


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """The settings of the loop itself; none of them reaches a payload."""

    max_batch_ticks: int = 2000
    min_batch_ms: float = 0.0
    dead_letter_ratio_max: float = 0.5
    #: How long failed transactions may follow each other before the process ends.
    broker_timeout_seconds: float = 60.0


class Clock(Protocol):
    """The time that the loop looks at; tests have their own."""

    def time(self) -> float:
        """Unix time, seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since some start."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...


class Service:
    """Runs the loop until it is asked to stop."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        pipeline: Pipeline,
        recovery: Recovery,
        checkpoints: Checkpoints,
        metrics: Metrics,
        health: Health,
        options: LoopOptions,
        clock: Clock = time,
        switching: Switching | None = None,
    ) -> None:
        self._clock = clock
        self._source = source
        self._sink = sink
        self._pipeline = pipeline
        self._recovery = recovery
        self._checkpoints = checkpoints
        self._metrics = metrics
        self._health = health
        self._options = options
        #: None where the model never changes.
        self._switching = switching
        self._ratio = DeadLetterRatio(options.dead_letter_ratio_max)
        self._failing_since: float | None = None
        self._pause = RETRY_SECONDS[0]
        self._last_turn = 0.0
        self._gauges_due = 0.0
        self._look_due = clock.monotonic() + LOOK_SECONDS
        #: When the last transaction was committed, on the monotonic clock.
        self._committed_at = clock.monotonic()
        #: Our membership, as it was right after the last poll.
        self._metadata: object = None
        #: The loop ends after the batch in work.
        self.stopping = False
        #: Next offset per partition, as committed by this process.
        self.committed: dict[int, int] = {}

    def run(self) -> None:
        """Turn until `stopping`.

        Raises
        ------
        TickcastError : what ends the process; nothing of the batch in work is visible
        """
        with self._health.allowing(self._options.broker_timeout_seconds + OPEN_SECONDS, "a producer"):
            self._sink.open()
        self._health.waiting_for = "partitions"
        log.info("loop starts")
        while not self.stopping:
            self.turn()
        self._save_all()

    def stop(self) -> None:
        """End after the batch in work; safe to call from a signal handler."""
        self.stopping = True

    def turn(self) -> None:
        """Poll once, make one batch of what came, and give recovery its slice."""
        self._wait_for_batch()
        began = self._clock.monotonic()
        polled = self._source.poll(self._patience(), self._options.max_batch_ticks)
        self._metadata = self._source.group_metadata()
        records = self._reassign(polled)
        due = self._checkpoints.due(self._source.positions())
        if records or due is not None:
            self._process(records, due)
        if self._recovery.busy:
            self._recover()
        if self._switching is not None:
            self._switch(self._switching, self._clock.monotonic() - began)
        self._health.turned()
        self._set_gauges()
        self._look_around()

    def _patience(self) -> float:
        """Return how long a poll may wait for ticks: not while a recovery or a warm-up could get on."""
        if self._recovery.busy:
            return HELD_UP_SECONDS if self._recovery.held_up else 0.0
        if self._switching is not None and self._switching.warms:
            return 0.0
        return POLL_SECONDS

    def _wait_for_batch(self) -> None:
        """Keep `min_batch_ms` between batches, while the client goes on fetching."""
        if self._options.min_batch_ms:
            remaining = self._last_turn + self._options.min_batch_ms / 1000 - self._clock.monotonic()
            if remaining > 0:
                self._clock.sleep(remaining)
            self._last_turn = self._clock.monotonic()

    def _reassign(self, polled: Polled) -> Sequence[Record]:
        """Follow the changes of assignment; return the records of partitions that stayed ours throughout."""
        if not (polled.assigned or polled.revoked or polled.lost):
            return polled.records
        for kind in ("revoked", "lost", "assigned"):
            partitions = getattr(polled, kind)
            if partitions:
                self._metrics.rebalanced(kind)
                log.info(f"partitions {kind}", extra=facts(partitions=list(partitions)))
        if self._switching is not None:
            self._switching.abandon()
        gone = [*polled.revoked, *polled.lost]
        self._recovery.drop(gone)
        for partition in gone:
            self._checkpoints.drop(partition)
            self.committed.pop(partition, None)
        self._recovery.begin(polled.assigned)
        changed = {*gone, *polled.assigned}
        return [record for record in polled.records if record.partition not in changed]

    def _process(self, records: Sequence[Record], due: int | None) -> None:
        """Answer the records, and write the checkpoint of the partition whose turn it is."""
        batch = self._pipeline.advance(records)
        self._ratio.check(batch)
        positions = self._source.positions()
        partitions = {record.partition for record in records} | ({due} if due is not None else set())
        offsets = {partition: positions[partition] for partition in sorted(partitions)}
        state = [] if due is None else self._checkpoints.messages(due, positions[due])
        if not self._commit(batch, state, offsets):
            return
        if self._switching is not None:
            self._switching.committed(records, state)
        if due is not None:
            self._checkpoints.committed(due, positions[due])
        self._metrics.committed(batch, self._clock.time())

    def _recover(self) -> None:
        """Give recovery its slice; what has arrived runs, once the checkpoint that it owes is written."""
        with self._health.allowing(RECOVERY_WAIT_SECONDS, "an answer of the cluster"):
            arrived = self._recovery.work(RECOVERY_SECONDS)
        for each in arrived:
            if each.owed:
                state = self._checkpoints.of(each.partition, each.marker)
                if not self._commit(Batch(), state, {each.partition: each.start}):
                    return  # all our partitions start over, these too
                self._pipeline.checkpointed(each.partition, each.start)
            self._checkpoints.begin(each.partition, each.marker)
            self._recovery.run(each)
            self._metrics.restore_seconds.observe(each.seconds)

    def _switch(self, switching: Switching, turn_seconds: float) -> None:
        """Follow the pin, and give the model that is to take over its slice, until it stands where we do."""
        switching.notice(self._recovery.pin)
        switching.turn()
        self._checkpoints.sign(switching.running, switching.pin)
        self._metrics.bundles_refused(switching.refused_count)
        positions = self._source.positions()
        if not switching.warms or self._recovery.busy or tuple(sorted(positions)) != self._source.assignment():
            return
        with self._health.allowing(RECOVERY_WAIT_SECONDS, "an answer of the cluster"):
            least, most = WARM_UP_SECONDS
            warmed = switching.work(self._recovery, positions, min(max(turn_seconds, least), most))
        if warmed is not None:
            self._take_over(switching, *warmed)

    def _take_over(self, switching: Switching, model: Model, warming: Warming) -> None:
        """Let another model answer from here on: between two batches, with a checkpoint of all that is ours."""
        markers = warming.finish()
        model.pipeline.dead_letter_bytes_max = self._pipeline.dead_letter_bytes_max
        self._pipeline = model.pipeline
        self._recovery.adopt(warming.restore)
        self._checkpoints.adopt(model.pipeline)
        self._ratio = DeadLetterRatio(self._options.dead_letter_ratio_max)
        self._metrics.follow(model.id, model.revision, model.watch)
        self._metrics.switched()
        switching.taken_over()
        self._checkpoints.sign(model.id, switching.pin)
        log.info(
            "another model takes over",
            extra=facts(model=model.id, revision=model.revision, ticks_replayed=warming.restore.replayed_count),
        )
        state = [
            message for partition, marker in markers.items() for message in self._checkpoints.of(partition, marker)
        ]
        if markers and not self._commit(Batch(), state, {p: marker.next_offset for p, marker in markers.items()}):
            return  # all our partitions start over, under the new model
        for partition, marker in markers.items():
            self._pipeline.checkpointed(partition, marker.next_offset)
            self._checkpoints.begin(partition, marker)

    def _save_all(self) -> None:
        """Write what is unsaved, so that a planned restart replays nothing; who fails here only replays a little."""
        positions = self._source.positions()
        for partition in self._checkpoints.unsaved(positions):
            offset = positions[partition]
            state = Outgoing({"state": self._checkpoints.messages(partition, offset)})
            try:
                with self._health.allowing(COMMIT_SECONDS, "a commit"):
                    self._sink.commit(state, {partition: offset}, self._metadata)
            except TransactionFailed as error:
                log.warning("the last checkpoint was not written", extra=facts(partition=partition, error=str(error)))
                return
            self._checkpoints.committed(partition, offset)

    def _commit(self, batch: Batch, state: Sequence[Message], offsets: Mapping[int, int]) -> bool:
        """Write one transaction; start over and return False where it failed."""
        messages: dict[Role, Sequence[Message]] = {
            "forecasts": batch.forecasts,
            "dead_letters": batch.dead_letters,
            "state": state,
        }
        if batch.scores:
            messages["scores"] = batch.scores
        outgoing = Outgoing(messages)
        started = self._clock.monotonic()
        try:
            with self._health.allowing(COMMIT_SECONDS, "a commit"):
                self._sink.commit(outgoing, offsets, self._metadata)
        except TransactionFailed as error:
            self._start_over(error)
            return False
        now = self._clock.monotonic()
        self._metrics.transaction(now - started, snapshots=len(state))
        self._health.progressed()
        self.committed |= offsets
        self._committed_at = now
        self._failing_since = None
        self._pause = RETRY_SECONDS[0]
        return True

    def _start_over(self, error: TransactionFailed) -> None:
        """Take the recovery path with all our partitions; give up when failures go on for too long."""
        self._metrics.transaction_failed()
        now = self._clock.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        log.error("transaction failed, starting over from the last checkpoints", extra=facts(error=str(error)))
        if self._switching is not None:
            self._switching.abandon()
        if now - self._failing_since > self._options.broker_timeout_seconds:
            raise BrokerUnavailable(
                f"no transaction succeeded for {now - self._failing_since:.0f} s, the last failed with: {error}; "
                "check the brokers, then start again: nothing is lost"
            ) from error
        for partition in self._source.assignment():
            self._source.stop(partition)
        for partition in self._pipeline.partitions:
            self._checkpoints.drop(partition)
        if self.stopping:
            return  # the next start recovers them
        with self._health.allowing(2 * self._options.broker_timeout_seconds + OPEN_SECONDS, "a new producer"):
            self._confirm()
            self._clock.sleep(self._pause)
            self._sink.open()
        self._pause = min(self._pause * 2, RETRY_SECONDS[1])
        self._recovery.begin(self._source.assignment())

    def _confirm(self) -> None:
        """Ask whether our place is still ours, for as long as an absent broker is waited for."""
        deadline = self._clock.monotonic() + self._options.broker_timeout_seconds
        while True:
            try:
                self._source.confirm()
                return
            except BrokerUnavailable:
                if self.stopping or self._clock.monotonic() >= deadline:
                    raise
                self._clock.sleep(self._pause)

    def _look_around(self) -> None:
        """Ask now and then whether we are still a member, of the same topic, and whether ticks are left lying.

        Who neither reads nor commits hears of none of it. A broker that is away is no reason to end, and no lag.
        """
        now = self._clock.monotonic()
        if now < self._look_due:
            return
        self._look_due = now + LOOK_SECONDS
        lag = 0
        try:
            with self._health.allowing(LOOK_SECONDS, "an answer of the cluster"):
                self._source.confirm()
                if now - self._committed_at >= LOOK_SECONDS:
                    lag = self._readable_lag()
        except BrokerUnavailable as error:
            log.warning("the cluster does not answer", extra=facts(error=str(error)))
        self._health.lagging(lag)

    def _readable_lag(self) -> int:
        """Count the ticks that the cluster would give us; what an open transaction of a producer hides is none."""
        positions = self._source.positions()
        bounds = self._source.bounds(tuple(positions))
        return sum(max(0, bounds[partition][1] - at) for partition, at in positions.items())

    def _waiting_for(self) -> str | None:
        """Say why we are not ready, None where we are."""
        if not self._source.joined:
            return "the consumer group"
        pinned = None if self._switching is None else self._switching.waiting_for
        return self._recovery.waiting_for or pinned

    def _set_gauges(self) -> None:
        now = self._clock.monotonic()
        if now < self._gauges_due:
            return
        self._gauges_due = now + GAUGES_SECONDS
        metrics, pipeline, partitions = self._metrics, self._pipeline, self._source.assignment()
        self._health.waiting_for = self._waiting_for()
        metrics.last_progress.set(self._clock.time())
        metrics.assigned_partitions.set(len(partitions))
        metrics.lags(self._source.lags())
        metrics.restoring(self._recovery.remaining_ticks, self._recovery.replayed_count)
        metrics.active_instruments.set(pipeline.instrument_count)
        metrics.instruments_in_two_partitions.set(pipeline.instruments_in_two_partitions)
        metrics.state_bytes.set(pipeline.state_bytes)
        metrics.confluent_framed.set(pipeline.framed_count)
        metrics.beyond_calendar.set(pipeline.beyond_calendar_count)


class DeadLetterRatio:
    """Stops the daemon when too many of the last ticks were dead letters; 1 never stops.

    It looks before the commit, so that a schema accident does not drain the topic, restart after restart.
    """

    def __init__(self, ratio_max: float) -> None:
        self._ratio_max = ratio_max
        self._window: deque[tuple[int, int]] = deque()
        self._ticks = 0
        self._bad = 0

    def check(self, batch: Batch) -> None:
        """Take a batch's counts.

        Raises
        ------
        TooManyDeadLetters : the share over the last `RATIO_WINDOW` ticks, at least, is above the bound
        """
        bad = len(batch.dead_letters)
        ticks = bad + len(batch.forecasts)
        self._window.append((ticks, bad))
        self._ticks += ticks
        self._bad += bad
        while self._ticks - self._window[0][0] >= RATIO_WINDOW:
            old_ticks, old_bad = self._window.popleft()
            self._ticks -= old_ticks
            self._bad -= old_bad
        if self._ticks >= RATIO_WINDOW and self._bad > self._ratio_max * self._ticks:
            reason, count = batch.reasons.most_common(1)[0] if batch.reasons else ("none in this batch", 0)
            raise TooManyDeadLetters(
                f"{self._bad} of the last {self._ticks} ticks were dead letters (in this batch: {count} {reason}); "
                "mend the producer or [ticks.map], or raise pipeline.dead_letter_ratio_max"
            )
