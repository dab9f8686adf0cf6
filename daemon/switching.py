"""Another model takes over while ticks flow: the pin is followed, its bundle loaded, its states warmed up.

                a pin names another bundle            it is proven
    SETTLED -----------------------------> LOADING ----------------> WARMING
     ^   ^                                  |    ^                      |
     |   |                        it is not |    | again, after a pause | its ticks are dead letters to it
     |   |                                  v    |                      |
     |   |                                  REFUSED <-------------------+
     |   '--- the pin names what runs -------'                          |
     '-------- it stands where we stand, and takes over ----------------'

A newer pin begins anew from any of them. Until the switch the model that runs goes on and knows nothing of the other.

Why no switch can lose or double a tick: it is decided between two batches, where everything polled is committed. From
there on this process is of the new revision. What follows is one transaction with a checkpoint of every partition it
owns; if that fails, or the process dies, the partitions are recovered as after any failure, under the new revision.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from threading import Thread
from typing import Protocol, TypeVar

from daemon.core.pin import Pin, newest
from daemon.core.pipeline import Pipeline
from daemon.core.records import Message, Record
from daemon.errors import TickcastError, TopicError
from daemon.logs import facts, log
from daemon.recovery import Recovery
from daemon.warming import Warming
from daemon.watched import Watch

#: How often the state topic is looked at; also about how long a pin takes to be noticed.
LOOK_SECONDS = 1.0
#: A bundle that is missing or damaged may have been mended after this.
RETRY_SECONDS = 10.0
#: A warm-up that could not go on begins anew after this.
ANEW_SECONDS = 1.0
#: From so many ticks on the share of them that a model cannot use says something.
JUDGED_TICKS = 1000

Value = TypeVar("Value")


class Stage(StrEnum):
    """Where a switch stands."""

    SETTLED = "settled"
    LOADING = "loading"
    WARMING = "warming"
    REFUSED = "refused"


TRANSITIONS: dict[Stage, frozenset[Stage]] = {
    Stage.SETTLED: frozenset({Stage.LOADING}),
    Stage.LOADING: frozenset({Stage.WARMING, Stage.REFUSED, Stage.LOADING, Stage.SETTLED}),
    Stage.WARMING: frozenset({Stage.SETTLED, Stage.REFUSED, Stage.LOADING}),
    Stage.REFUSED: frozenset({Stage.LOADING, Stage.SETTLED}),
}


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle that is loaded, proven and ready to run: nothing of it depends on a transport."""

    #: The bundle's id.
    id: str
    revision: str
    pipeline: Pipeline
    watch: Watch


class Aside(Protocol):
    """Makes calls that may take long off the loop."""

    def __call__(self, call: Callable[[], Value], /) -> Future[Value]: ...


def aside(call: Callable[[], Value]) -> Future[Value]:
    """Make a call on a thread of its own, which holds nobody up at exit."""
    future: Future[Value] = Future()

    def make() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # handed to who asks for the result, whatever it is
            future.set_exception(error)

    Thread(target=make, name="tickcast-aside", daemon=True).start()
    return future


class Switching:
    """What runs, what shall run, and how far the one is from the other.

    Parameters
    ----------
    running : id of the bundle that runs
    look : returns the newest pin of the group; may block
    load : returns the model of a bundle's id, proven; may take long; raises `BundleError` where there is none
    pin : the newest one so far
    dead_letter_ratio_max : a model that refuses a larger share of the ticks is refused itself
    off_the_loop : makes calls of `look` and `load`
    """

    def __init__(
        self,
        running: str,
        look: Callable[[], Pin | None],
        load: Callable[[str], Model],
        *,
        pin: Pin | None = None,
        dead_letter_ratio_max: float = 1.0,
        off_the_loop: Aside = aside,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._load = load
        self._ratio_max = dead_letter_ratio_max
        self._aside = off_the_loop
        self._monotonic = monotonic
        self.running = running
        #: The newest pin.
        self.pin = pin
        self.stage = Stage.SETTLED
        self._looking: Future[Pin | None] | None = None
        self._look_due = monotonic()
        self._loading: Future[Model] | None = None
        #: The one that is warmed up.
        self._model: Model | None = None
        self._warming: Warming | None = None
        self._anew_due = monotonic()
        #: Why the pinned bundle does not run; None where nothing is wrong with it.
        self._refusal: str | None = None
        self._retry_due: float | None = None
        #: What happened since the loop asked last.
        self.refused_count = 0
        self._pursue()

    @property
    def waiting_for(self) -> str | None:
        """Why we are not what the group is to be, in words; None where nothing is wrong."""
        return self._refusal

    @property
    def warms(self) -> bool:
        """True while there is a warm-up to work on."""
        return self.stage is Stage.WARMING and self._monotonic() >= self._anew_due

    def notice(self, pin: Pin | None) -> None:
        """Take a pin that was met elsewhere, or again."""
        found = newest(self.pin, pin)
        if found is not None and found is not self.pin and found != self.pin:
            log.info("another bundle is pinned", extra=facts(model=found.bundle, number=found.number, at=found.at))
            self.pin = found
            self._pursue()

    def turn(self) -> None:
        """Take what has come back from off the loop, and send what is due; never waits."""
        now = self._monotonic()
        if self._looking is not None and self._looking.done():
            future, self._looking = self._looking, None
            self._look_due = now + LOOK_SECONDS
            try:
                self.notice(future.result())
            except TickcastError as error:
                log.debug("the pin cannot be looked at", extra=facts(error=str(error)))
        if self._looking is None and now >= self._look_due:
            self._looking = self._aside(self._look)
        if self._loading is not None and self._loading.done():
            self._take_model()
        if self._retry_due is not None and now >= self._retry_due:
            self._pursue()

    def abandon(self) -> None:
        """Give the warm-up up, e.g. since the partitions changed; another one begins when it is worked on again."""
        if self._model is not None:
            for partition in self._model.pipeline.partitions:
                self._model.pipeline.drop(partition)
        self._warming = None

    def committed(self, records: Sequence[Record], state: Sequence[Message]) -> None:
        """Follow a transaction of the live model: what it answered, and what it wrote to the state topic."""
        if self._warming is not None:
            self._warming.committed(records, state)

    def work(self, recovery: Recovery, positions: Mapping[int, int], seconds: float) -> tuple[Model, Warming] | None:
        """Get on with the warm-up for about so long; return it with its model once that can take over at `positions`.

        Parameters
        ----------
        recovery : that of the live model, at rest
        positions : next offset of each partition that is ours, all answered before it
        """
        model = self._model
        assert model is not None
        if self._warming is None or self._warming.partitions != tuple(sorted(positions)):
            self.abandon()
            self._warming = Warming(recovery.restore_of(model.pipeline, model.revision), positions, self._monotonic)
        try:
            if not self._warming.work(seconds, positions):
                return None
        except TopicError as error:
            log.warning("the warm-up begins anew", extra=facts(model=model.id, error=str(error)))
            self.abandon()
            self._anew_due = self._monotonic() + ANEW_SECONDS
            return None
        restore = self._warming.restore
        useless = unusable(restore.replayed_count, restore.accepted_count, self._ratio_max, recovery.instrument_count)
        if useless is not None:
            self._refuse(f"{useless}; promote one that fits the ticks, or `tickcast bundle rollback`", retry=False)
            return None
        return model, self._warming

    def taken_over(self) -> None:
        """Note that the model runs from here on."""
        assert self._model is not None
        self.running = self._model.id
        self._model = self._warming = None
        self._move(Stage.SETTLED)

    def _pursue(self) -> None:
        """Begin anew towards what is pinned."""
        self.abandon()
        self._model = self._loading = self._retry_due = None
        if self.pin is None or self.pin.bundle == self.running:
            self._refusal = None
            if self.stage is not Stage.SETTLED:
                if self.stage is Stage.WARMING:
                    log.info("the switch is called off", extra=facts(model=self.running))
                self._move(Stage.SETTLED)
            return
        self._move(Stage.LOADING)
        wanted = self.pin.bundle
        self._loading = self._aside(lambda: self._load(wanted))

    def _take_model(self) -> None:
        assert self._loading is not None
        future, self._loading = self._loading, None
        try:
            self._model = future.result()
        except Exception as error:  # whatever is wrong with it, what runs goes on
            self._refuse(str(error) if isinstance(error, TickcastError) else repr(error), retry=True)
            return
        log.info("the pinned bundle is loaded and proven", extra=facts(model=self._model.id))
        self._refusal = None
        self._move(Stage.WARMING)

    def _refuse(self, reason: str, *, retry: bool) -> None:
        assert self.pin is not None
        refusal = f"the pinned bundle {self.pin.bundle}, {self.running} goes on: {reason}"
        if refusal != self._refusal:
            self.refused_count += 1
            log.error("the pinned bundle is refused", extra=facts(model=self.pin.bundle, reason=reason))
        self._refusal = refusal
        self.abandon()
        self._model = None
        self._retry_due = self._monotonic() + RETRY_SECONDS if retry else None
        self._move(Stage.REFUSED)

    def _move(self, to: Stage) -> None:
        assert to in TRANSITIONS[self.stage], f"{self.stage} -> {to}"
        self.stage = to


def unusable(replayed: int, accepted: int, ratio_max: float, live_instruments: int) -> str | None:
    """Say why a model cannot use the ticks that it was warmed up with, None where it can.

    Parameters
    ----------
    replayed, accepted : ticks
    ratio_max : the share of dead letters at which the loop stops
    live_instruments : how many the live model knows
    """
    refused = replayed - accepted
    if (replayed >= JUDGED_TICKS and refused > ratio_max * replayed) or (
        replayed and live_instruments and not accepted
    ):
        return f"it cannot use {refused} of the last {replayed} ticks, which would be dead letters"
    return None
