"""From a decoded tick to a row of features: order, session, features, in this order, tick by tick.

This is the sequential part of the pipeline, the part where an instrument's own past decides. Training runs it over
files, the daemon over records. All verdicts come before the first change: a rejected tick touches nothing.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass

from daemon.core.features import FeatureTable
from daemon.core.instrument import Instrument
from daemon.core.moment import Moment
from daemon.core.sessions import Rules, Session
from schemas import Reason, Rejected, ResetCause, Tick


@dataclass(frozen=True, slots=True)
class OrderLimits:
    """What order of ticks is tolerated; nanoseconds of event time."""

    future_skew_ns: int
    max_lateness_ns: int
    seq_restart_ns: int


class Row:
    """One accepted tick on its way through the pipeline."""

    __slots__ = (
        "features",
        "instrument",
        "offset",
        "price",
        "reset",
        "session",
        "step",
        "ts",
        "untold",
        "volatility",
    )

    def __init__(
        self,
        ts: int,
        offset: int,
        instrument: Instrument,
        features: array[float],
        price: float,
        volatility: float,
        reset: ResetCause | None,
    ) -> None:
        #: Event time of the tick, ns.
        self.ts = ts
        self.offset = offset
        self.instrument = instrument
        #: As `FeatureTable.update` returned them; `FeatureTable.inputs` makes the model's input of them.
        self.features = features
        #: Reference price after this tick.
        self.price = price
        #: Running standard deviation of one-tick log returns after this tick.
        self.volatility = volatility
        self.session = instrument.session
        #: Ticks since the reset, the first is 0.
        self.step = instrument.step
        #: Why the state starts anew at this tick; None where it continues.
        self.reset = reset
        #: Why it started anew at an earlier tick whose forecast was not published.
        self.untold = instrument.untold_reset


class Intake:
    """Accepts ticks into instruments.

    Parameters
    ----------
    features : the model's columns
    rules : the session rules
    limits : what order is tolerated
    prices_may_be_negative : true for models that work on absolute differences only
    """

    def __init__(
        self, features: FeatureTable, rules: Rules, limits: OrderLimits, *, prices_may_be_negative: bool = False
    ) -> None:
        self.features = features
        self._rules = rules
        self._limits = limits
        self._prices_may_be_negative = prices_may_be_negative

    def accept(self, tick: Tick, instrument: Instrument, *, offset: int, timestamp: int) -> Row:
        """Judge a tick against its instrument and, if it is accepted, move the instrument on.

        Parameters
        ----------
        offset : of the tick's record; kept as the start of a state that begins here
        timestamp : the record's Kafka timestamp, ms; negative where unknown, then `ts` is not held against it

        Raises
        ------
        Rejected : the instrument is as before
        """
        self._check_values(tick)
        if timestamp >= 0 and tick.ts - timestamp * 1_000_000 > self._limits.future_skew_ns:
            raise Rejected(Reason.FUTURE_TIME, f"ts {tick.ts} is ahead of the record's timestamp {timestamp} ms")
        opened = self._session(tick, instrument)
        self._check_sequence(tick, instrument, opened)
        moment = Moment(tick, instrument, opened is not None)
        row, packed, volatility = self.features.update(moment, instrument.packed_cells)

        instrument.packed_cells = packed
        reset = self._move(tick, instrument, opened, offset)
        instrument.bid, instrument.ask = moment.bid, moment.ask
        instrument.bid_size, instrument.ask_size = moment.bid_size, moment.ask_size
        instrument.price = moment.price
        accepted = Row(tick.ts, offset, instrument, row, moment.price, volatility, reset)
        instrument.step += 1
        instrument.untold_reset = None
        instrument.last_offset = offset
        return accepted

    def _check_values(self, tick: Tick) -> None:
        if self._prices_may_be_negative:
            return
        if (tick.price is not None and tick.price <= 0) or (tick.bid is not None and tick.bid <= 0):
            raise Rejected(Reason.PRICE_NOT_POSITIVE, f"price {tick.price!r}, bid {tick.bid!r}, ask {tick.ask!r}")

    def _session(self, tick: Tick, instrument: Instrument) -> Session | None:
        """Return the session that the tick opens; refuse a tick that is late."""
        rule = self._rules.rule_for(tick.instrument)
        if instrument.price is None:
            return rule.first(tick)
        opened = rule.opened_by(tick, instrument)
        behind = instrument.last_ts - tick.ts
        if behind > self._limits.max_lateness_ns or (behind > 0 and tick.ts < instrument.session_start):
            raise Rejected(Reason.LATE, f"ts {tick.ts} is {behind / 1e9:.3f} s behind the instrument's last tick")
        return opened

    def _check_sequence(self, tick: Tick, instrument: Instrument, opened: Session | None) -> None:
        if tick.seq is None or instrument.seq is None or opened is not None or tick.seq > instrument.seq:
            return
        if tick.ts - instrument.last_ts <= self._limits.seq_restart_ns:
            raise Rejected(Reason.DUPLICATE, f"seq {tick.seq} does not grow, the last was {instrument.seq}")

    def _move(self, tick: Tick, instrument: Instrument, opened: Session | None, offset: int) -> ResetCause | None:
        """Write times, sequence and session of an accepted tick; return why its state starts anew, if it does."""
        reset = instrument.pending_reset
        if opened is not None:
            instrument.session, instrument.session_start, instrument.session_end, instrument.session_since = opened
            if reset is None or reset is ResetCause.NON_FINITE:  # the session would have reset it anyway
                reset = ResetCause.SESSION
            instrument.seq = None
        if tick.session is not None:
            instrument.spoken_session = tick.session
        if tick.seq is not None:
            instrument.seq = tick.seq
        instrument.last_ts = max(instrument.last_ts, tick.ts)
        if reset is not None:
            instrument.pending_reset = None
            instrument.step = 0
            instrument.reset_offset = offset
        return reset
