"""Builders of ticks, records and pipelines, and a reader of what comes out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from daemon.core.instrument import Instrument
from daemon.core.intake import OrderLimits
from daemon.core.pipeline import Batch, Pipeline, PipelineOptions
from daemon.core.records import InputRecord, Message
from daemon.core.sessions import Never, Rules
from daemon.core.spec import Column, ModelSpec, Output
from daemon.core.step import Step
from schemas import HEADER_PREFIX, ResetCause, Tick, TickDecoder
from tests.steps import RandomStep

SECOND = 10**9
#: 2024-01-02T15:00:00Z.
START = 1_704_207_600 * SECOND

COLUMNS = (Column("return", "running", std=1e-4), Column("imbalance"), Column("wait"))
OUTPUTS = (Output(1, scale=1e-4), Output(5, scale=1e-4))
LIMITS = OrderLimits(future_skew_ns=60 * SECOND, max_lateness_ns=0, seq_restart_ns=300 * SECOND)


def at(seconds: float) -> int:
    """Return the event time so many seconds after START."""
    return START + round(seconds * SECOND)


def raw(seconds: float = 0, instrument: str = "A", **facts: Any) -> dict[str, Any]:
    """Return a tick as a producer writes it; a trade at 100 unless it says otherwise."""
    facts = facts if "price" in facts or "bid" in facts else {"price": 100.0, **facts}
    return {"instrument": instrument, "ts": at(seconds), **facts}


def tick(seconds: float = 0, instrument: str = "A", **facts: Any) -> Tick:
    """Return a decoded tick; a trade at 100 unless it says otherwise."""
    return TickDecoder().decode(json.dumps(raw(seconds, instrument, **facts)).encode())


def record(value: Mapping[str, Any] | bytes | None, offset: int = 0, partition: int = 0, **facts: Any) -> InputRecord:
    """Return one record of the ticks topic; its Kafka timestamp is unknown unless given."""
    if isinstance(value, Mapping):
        value = json.dumps(value).encode()
    return InputRecord(
        **{"topic": "ticks", "timestamp": -1, "key": b"A", **facts}, partition=partition, offset=offset, value=value
    )


def records(
    values: Iterable[Mapping[str, Any] | bytes | None], start: int = 0, partition: int = 0
) -> list[InputRecord]:
    """Return records of one partition in offset order."""
    return [record(value, offset, partition) for offset, value in enumerate(values, start)]


def newcomer(cells: Sequence[float] = (1e-8,), name: str = "A") -> Instrument:
    """Return an instrument that has seen no tick."""
    return Instrument(name, 0, list(cells), ResetCause.FIRST)


def model(columns: Sequence[Column] = COLUMNS, outputs: Sequence[Output] = OUTPUTS) -> ModelSpec:
    """Return what the core knows about a model."""
    return ModelSpec("m", tuple(columns), tuple(outputs))


def pipeline(
    spec: ModelSpec | None = None,
    *,
    step: Step | None = None,
    rules: Rules | None = None,
    limits: OrderLimits = LIMITS,
    partitions: Sequence[int] = (0,),
    decoder: TickDecoder | None = None,
    canary_ticks: Sequence[bytes] = (),
    origin: ResetCause = ResetCause.FIRST,
    scores: bool = False,
    **options: Any,
) -> Pipeline:
    """Return a pipeline that holds its partitions, with a `RandomStep` unless given."""
    spec = spec or model()
    step = step or RandomStep(len(spec.columns), len(spec.outputs))
    rules = rules or Rules((), Never())
    shaping = PipelineOptions(limits, **options)
    made = Pipeline(spec, step, rules, shaping, decoder=decoder, canary_ticks=canary_ticks, scores=scores)
    for partition in partitions:
        made.assign(partition, origin)
    return made


@contextmanager
def dense_scores() -> Iterator[None]:
    """Let pipelines made in here score every forecast of short horizons."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daemon.core.scores.STRIDE_MIN", 1)
        yield


def payloads(batch: Batch) -> list[dict[str, Any]]:
    """Return the forecasts of a batch, decoded."""
    return [json.loads(message.value or b"") for message in batch.forecasts]


def headers(letter: Message) -> dict[str, str]:
    """Return a dead letter's headers by their short names."""
    return {name.removeprefix(HEADER_PREFIX): value.decode() for name, value in letter.headers}


def reasons(batch: Batch) -> list[str]:
    """Return the reason of each dead letter of a batch."""
    return [headers(letter)["reason"] for letter in batch.dead_letters]


def outcomes(batches: Iterable[Batch]) -> dict[tuple[int, int], Message]:
    """Return the outcome of every record by partition and offset; fails where a record has two."""
    found: dict[tuple[int, int], Message] = {}
    for message in itertools.chain.from_iterable((*batch.forecasts, *batch.dead_letters) for batch in batches):
        offset = int(
            headers(message)["offset"] if message.headers else json.loads(message.value or b"")["id"].rpartition("-")[2]
        )
        assert (message.partition, offset) not in found
        found[message.partition, offset] = message
    return found
