"""Retrial of dead letters: which of them can be ticks again, and putting those back, exactly once.

A letter is put back as a new record at the end of its partition of the ticks, so an instrument's order is kept: what is
older than the instrument's last tick stays a letter. It carries its attempt count, which its next failure counts on.
A running group is a little ahead of the snapshots that are asked here: a tick that it has overtaken is refused by its
order rules and becomes a letter again, with one attempt more.

The place of the retrials is the committed offset of a group of its own, `<group>.deadletters`, and moves in the
transaction that puts ticks back. It stands behind the last letter put back of each partition, so letters that would be
rejected now are heard again next time, unless later ones were put back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from daemon.assembly import pipeline_options
from daemon.boundaries import resolve_rules
from daemon.config import Settings
from daemon.core.features import FeatureTable
from daemon.core.instrument import Instrument
from daemon.core.intake import Intake
from daemon.core.letters import ATTEMPT_HEADER
from daemon.core.marker import MarkerError
from daemon.core.records import Message
from daemon.core.snapshot import Snapshot
from daemon.core.spec import ModelSpec
from daemon.stored import Stored
from daemon.tools.dead_letters import FOREIGN, Letter
from daemon.tools.state_view import snapshot_of
from schemas import Reason, Rejected, ResetCause, Tick, TickDecoder

#: Ticks and bytes of one transaction.
BATCH_TICKS = 1000
BATCH_BYTES = 8 * 1024 * 1024
#: Verdicts on letters that the daemon itself has no word for.
TRUNCATED = "truncated"
OTHER_TOPIC = "other_topic"


class Refused(Exception):
    """The letter would only be rejected again."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Outbox(Protocol):
    """Where ticks are put back."""

    def put_back(self, ticks: Iterable[Message], partition: int, next_letter: int) -> None:
        """Write ticks, and the place of the retrials in one partition of the letters: both or nothing."""
        ...


@dataclass
class Outcome:
    """What became of the letters heard."""

    put_back: int = 0
    #: Reason -> letters that would only be rejected again.
    refused: Counter[str] = field(default_factory=Counter)
    #: Reason -> one of them, and why.
    examples: dict[str, tuple[Letter, str]] = field(default_factory=dict)


class Court:
    """Hears the letters of one partition, in order, before the instruments as their snapshots hold them.

    Parameters
    ----------
    ticks : the topic that letters can go back to
    decoder, intake : as the daemon has them
    stored : what the state topic holds of the partition
    now_ms : the clock, for ticks ahead of their time
    """

    def __init__(
        self,
        ticks: str,
        decoder: TickDecoder,
        intake: Intake,
        stored: Stored,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._ticks = ticks
        self._decoder = decoder
        self._intake = intake
        self._stored = stored
        self._now_ms = now_ms
        #: Instruments as they are after the letters that were accepted.
        self._instruments: dict[str, Instrument] = {}

    def hear(self, letter: Letter) -> Message:
        """Return the tick to put back.

        Raises
        ------
        Refused : it would only be rejected again
        """
        self._check_letter(letter)
        try:
            if letter.key is not None:
                letter.key.decode()
            tick = self._decoder.decode(letter.value)
            self._accept(tick, letter)
        except UnicodeDecodeError as error:
            raise Refused(Reason.KEY_NOT_UTF8, "the key is not UTF-8") from error
        except Rejected as error:
            raise Refused(error.reason.value, error.detail) from error
        return Message(letter.partition, letter.key, letter.value, [(ATTEMPT_HEADER, str(letter.attempt).encode())])

    def _check_letter(self, letter: Letter) -> None:
        if letter.reason == FOREIGN or letter.tick_partition != letter.partition:
            raise Refused(FOREIGN, "its headers are not those of a dead letter")
        if letter.tick_topic != self._ticks:
            raise Refused(OTHER_TOPIC, f"its tick stood in {letter.tick_topic}")
        if letter.truncated:
            raise Refused(TRUNCATED, "only the beginning of its value was kept")

    def _accept(self, tick: Tick, letter: Letter) -> None:
        instrument = self._instruments.get(tick.instrument)
        if instrument is None:
            instrument = self._before(tick.instrument)
        if instrument.price is not None and tick.ts < instrument.last_ts:
            # Also where the daemon would tolerate it: what was refused once must not stand behind what came after it.
            behind = (instrument.last_ts - tick.ts) / 1e9
            raise Rejected(Reason.LATE, f"ts {tick.ts} is {behind:.3f} s behind the instrument's last tick")
        self._intake.accept(tick, instrument, offset=letter.offset, timestamp=self._now_ms())
        self._instruments[tick.instrument] = instrument

    def _before(self, name: str) -> Instrument:
        """Return the instrument as its snapshot holds it, or a new one; with the cells of the present model."""
        instrument = Instrument(name, -1, [], ResetCause.COLD)
        key = name.encode()
        try:
            marker = self._stored.marker()
        except MarkerError:
            marker = None
        if marker is not None and key in self._stored.values:
            found = snapshot_of(self._stored, key, marker)
            if isinstance(found, Snapshot):
                instrument = found.instrument
        instrument.cells = list(self._intake.features.start)
        return instrument


def intake_of(settings: Settings, spec: ModelSpec) -> Intake:
    """Return the daemon's own judge of decoded ticks.

    Raises
    ------
    SettingsError : a session rule names what does not exist
    """
    return Intake(
        FeatureTable(spec.columns, spec.volatility_prior, spec.missing),
        resolve_rules(settings.session),
        pipeline_options(settings).limits,
        prices_may_be_negative=spec.prices_may_be_negative,
    )


def retry(letters: Iterable[Letter], court: Court, outbox: Outbox | None, outcome: Outcome) -> None:
    """Hear the letters of one partition and put back those that can be ticks; without an outbox only count.

    Raises
    ------
    TickcastError : the outbox's; what was put back before counts, the rest is heard again next time
    """
    for batch, next_letter, partition in _batches(_heard(letters, court, outcome)):
        if outbox is not None:
            outbox.put_back(batch, partition, next_letter)
        outcome.put_back += len(batch)


def _heard(letters: Iterable[Letter], court: Court, outcome: Outcome) -> Iterator[tuple[Letter, Message]]:
    for letter in letters:
        try:
            yield letter, court.hear(letter)
        except Refused as refused:
            outcome.refused[refused.reason] += 1
            outcome.examples.setdefault(refused.reason, (letter, refused.detail))


def _batches(heard: Iterable[tuple[Letter, Message]]) -> Iterator[tuple[list[Message], int, int]]:
    """Cut into transactions: ticks, the letter after their last one, and their partition."""
    batch: list[Message] = []
    size, last = 0, None
    for letter, message in heard:
        batch.append(message)
        size += len(message.value or b"") + len(message.key or b"")
        last = letter
        if len(batch) >= BATCH_TICKS or size >= BATCH_BYTES:
            yield batch, last.offset + 1, last.partition
            batch, size = [], 0
    if batch and last is not None:
        yield batch, last.offset + 1, last.partition
