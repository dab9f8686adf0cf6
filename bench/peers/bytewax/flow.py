"""The model in Bytewax: `stateful_batch`, which hands over all queued messages of one key.

What is kept of an instrument is an object in the worker's memory; snapshots of it go into the recovery store (SQLite)
with the offsets of the source at every snapshot interval. There is no transactional sink: at least once. Batches of the
source keep their default of 1,000: it waits 1 ms for them, and smaller ones gain nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import bytewax.operators as op  # type: ignore[import-not-found]
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage  # type: ignore[import-not-found]
from bytewax.dataflow import Dataflow  # type: ignore[import-not-found]
from bytewax.operators import StatefulBatchLogic  # type: ignore[import-not-found]

from bench.peers.one_tick import OneTick, pack, unpack
from bench.peers.run_settings import read_settings

told = read_settings()
work = OneTick(Path(told.bundle))


class Forecasting(StatefulBatchLogic):  # type: ignore[misc]
    """One instrument."""

    def __init__(self, snapshot: tuple[str, bytes] | None) -> None:
        self._held = None if snapshot is None else unpack(*snapshot)

    def on_batch(self, values: list[KafkaSourceMessage]) -> tuple[Iterable[KafkaSinkMessage], bool]:
        """Forecast after each of the messages."""
        out = []
        held = self._held or work.new(values[0].key.decode())
        for tick in values:
            payload, held = work.forecast(
                tick.value,
                held,
                topic=told.ticks,
                partition=tick.partition,
                offset=tick.offset,
                timestamp=tick.timestamp[1],
            )
            out.append(KafkaSinkMessage(tick.key, payload))
        self._held = held
        return out, StatefulBatchLogic.RETAIN

    def snapshot(self) -> tuple[str, bytes]:
        """Return what is kept; bytes, since the object goes on changing."""
        assert self._held is not None
        return self._held.instrument.name, pack(self._held)


flow = Dataflow("forecasts")
ticks = op.input("ticks", flow, KafkaSource([told.bootstrap], [told.ticks]))
by_instrument = op.key_on("instrument", ticks, lambda tick: tick.key.decode())
forecasts = op.stateful_batch("forecast", by_instrument, Forecasting)
op.output("forecasts", op.key_rm("values", forecasts), KafkaSink([told.bootstrap], told.forecasts))
