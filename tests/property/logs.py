"""Logs of ticks in which everything happens: sessions by every rule, late, duplicate and bad ticks, overflows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import Any

from hypothesis import strategies as st

from daemon.core.instrument import FIELDS
from daemon.core.intake import OrderLimits
from daemon.core.kept_scores import pack
from daemon.core.pipeline import Batch, Pipeline
from daemon.core.records import InputRecord
from daemon.core.sessions import Boundaries, Field, Gap, Never, Rules, Table
from daemon.core.spec import Column, Output
from tests import ticks
from tests.ticks import SECOND, at, model, raw, record

#: Sessions of 60 s, every 100 s, of which the first starts after the logs do and the last ends before they do.
BOUNDARIES = Boundaries(
    [at(30 + 100 * n) for n in range(3)], [at(90 + 100 * n) for n in range(3)], [f"day {n}" for n in range(3)]
)
GAP_SECONDS = 20
LIMITS = OrderLimits(future_skew_ns=60 * SECOND, max_lateness_ns=2 * SECOND, seq_restart_ns=30 * SECOND)
SPEC = model(
    [
        Column("return", "running", std=1e-4),
        Column("spread"),
        Column("field:flow"),
        Column("field:flow", "running"),
        Column("ema:4:return:field:volume"),
        Column("session_time"),
    ],
    [Output(1, volatile=True, residual_variance=1.0), Output(5, "price", mean=100.0, scale=0.1, residual_variance=2.0)],
)

INSTRUMENTS = ("A.gap", "B.own", "C.attach", "D.refuse", "E.field", "F.never")
#: Seconds from one tick to the next: mostly few, sometimes beyond a gap or a session.
WAITS = (0.0, 0.001, 0.25, 1.0, 1.0, 3.0, 15.0, 21.0, 70.0)
#: What is special about a tick; the empty string is nothing.
TWISTS = (
    *[""] * 8,
    "overflow",  # infinite once it is float32: non_finite at once
    "overflow",
    "swell",  # two of them overflow the carried state
    "swell",
    "surge",  # state and output are finite, the price that follows from them is not
    "outlier",  # finite for running scales, not for float32
    "late",
    "tolerated",
    "duplicate",
    "restart",
    "no json",
    "no field",
    "no logarithm",
    "crossed",
    "future",
    "open",
    "open",
    "reopen",
)

events = st.tuples(
    st.sampled_from(INSTRUMENTS),
    st.sampled_from((0, 0, 0, 1)),  # partition
    st.sampled_from(WAITS),
    st.sampled_from(("trade", "quote", "both")),
    st.sampled_from(TWISTS),
    st.integers(-3, 3),  # what moves prices and fields
)
logs = st.lists(events, min_size=1, max_size=60).map(lambda drawn: build(drawn))
#: Lengths of batches, repeated as long as there are records.
cuts = st.lists(st.integers(1, 25), min_size=1, max_size=6)


def build(drawn: Sequence[tuple[str, int, float, str, str, int]]) -> list[InputRecord]:
    """Return the log of two partitions in the order of time."""
    clock, made = 0.0, []
    offsets: Counter[int] = Counter()
    seqs: Counter[str] = Counter()
    for number, (instrument, partition, wait, kind, twist, move) in enumerate(drawn):
        clock += wait
        seqs[instrument] += 1
        tick = raw(clock, instrument, seq=seqs[instrument], **_prices(kind, move))
        tick["fields"] = {"flow": move / 2, "volume": 3.5 + move}
        value = _twisted(tick, twist, number)
        timestamp = (at(clock) - 3600 * SECOND if twist == "future" else at(clock)) // 10**6
        made.append(record(value, offsets[partition], partition, key=instrument.encode(), timestamp=timestamp))
        offsets[partition] += 1
    return made


def _prices(kind: str, move: int) -> dict[str, float]:
    price = 100 + move / 100
    trade = {"price": price, "size": 2.0 + move / 2}
    quote = {"bid": price - 0.01, "ask": price + 0.02 + move / 1000, "bid_size": 4.0 + move}
    return {"trade": trade, "quote": quote, "both": trade | quote}[kind]


def _twisted(tick: dict[str, Any], twist: str, number: int) -> bytes:
    if twist in ("overflow", "swell", "surge", "outlier"):
        tick["fields"]["flow"] = {"overflow": 1e39, "swell": 2e38, "surge": 1e30, "outlier": -1e300}[twist]
    elif twist in ("late", "tolerated"):
        tick["ts"] -= {"late": 60, "tolerated": 1}[twist] * SECOND
    elif twist in ("duplicate", "restart"):
        tick["seq"] = tick["seq"] - 1 if twist == "duplicate" else 0
    elif twist == "no field":
        del tick["fields"]
    elif twist == "no logarithm":
        tick["fields"]["volume"] = -1.0
    elif twist == "crossed":
        tick |= {"bid": 101.0, "ask": 100.0}
    elif twist in ("open", "reopen"):
        tick["session"] = f"session {number}" if twist == "open" else "session"
    text = json.dumps(tick)
    return (text[:-2] if twist == "no json" else text).encode()


def rules() -> Rules:
    """Return every session rule, one per instrument."""
    gap = Gap(GAP_SECONDS)
    return Rules(
        [
            ("*.gap", gap),
            ("*.own", Table(BOUNDARIES, "own", gap)),
            ("*.attach", Table(BOUNDARIES, "attach", gap)),
            ("*.refuse", Table(BOUNDARIES, "dead_letter", gap)),
            ("*.field", Field()),
        ],
        Never(),
    )


def pipeline(**options: Any) -> Pipeline:
    """Return a pipeline for these logs."""
    return ticks.pipeline(**{"spec": SPEC, "rules": rules(), "limits": LIMITS, "partitions": (0, 1), **options})


def batches(log: Sequence[InputRecord], cut: Sequence[int]) -> Iterator[Sequence[InputRecord]]:
    """Cut a log."""
    lengths, start = cycle(cut), 0
    while start < len(log):
        end = start + next(lengths)
        yield log[start:end]
        start = end


def run(made: Pipeline, log: Sequence[InputRecord], cut: Sequence[int]) -> list[Batch]:
    """Advance a pipeline over a log in these batches."""
    return [made.advance(batch) for batch in batches(log, cut)]


def remembered(made: Pipeline) -> list[Any]:
    """Return all that a pipeline keeps of its instruments, least recently accepted first."""
    kept = []
    for partition in made.partitions:
        for instrument in made._partitions[partition]:
            names = set(FIELDS) - {"slot", "scores", "packed_scores"}
            facts = {name: getattr(instrument, name) for name in sorted(names)}
            facts["scores"] = pack(instrument.scores) if instrument.scores else instrument.packed_scores
            kept.append((partition, facts, made._table._rows[instrument.slot].tobytes()))
    return kept
