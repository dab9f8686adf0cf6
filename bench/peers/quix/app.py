"""The model in Quix Streams, as its documentation advises: one function over a stateful dataframe.

The framework hands over one message at a time. What is kept of an instrument lives in its state (RocksDB, with a
changelog topic), as bytes: JSON, the default of `state.set`, would write the model's 256 floats as text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from quixstreams import Application, State, message_context  # type: ignore[import-not-found]

from bench.peers.one_tick import OneTick, pack, unpack
from bench.peers.run_settings import read_settings

#: Beside a `transactional.id` of our own: with a random one, the default, a restart waits until the transaction of the
#: process before it times out, 60 s. At its default of 100 ms this makes every transaction take as long.
TRANSACTIONS = {"retry.backoff.ms": 5}


def main() -> None:
    """Run until stopped."""
    told = read_settings()
    exactly_once = told.options["exactly_once"]
    work = OneTick(Path(told.bundle))

    def forecast(value: bytes, key: str, timestamp: int, headers: Any, state: State) -> bytes:
        packed = state.get_bytes("held")
        held = work.new(key) if packed is None else unpack(key, packed)
        at = message_context()
        payload, held = work.forecast(
            value, held, topic=at.topic, partition=at.partition, offset=at.offset, timestamp=timestamp
        )
        state.set_bytes("held", pack(held))
        return payload

    app = Application(
        broker_address=told.bootstrap,
        consumer_group=told.group,
        auto_offset_reset="earliest",
        state_dir=Path(told.directory) / "state",
        # Without it a killed process would be waited for until its session ends, 45 s.
        consumer_extra_config={"group.instance.id": told.group},
        producer_extra_config=TRANSACTIONS | {"transactional.id": told.group} if exactly_once else {},
        processing_guarantee="exactly-once" if exactly_once else "at-least-once",
        commit_interval=told.options["commit_interval"],
        # A commit that is due waits for the next message or for this; 1 s by default.
        consumer_poll_timeout=min(1.0, told.options["commit_interval"]),
        loglevel="WARNING",
    )
    ticks = app.topic(told.ticks, key_deserializer="str", value_deserializer="bytes")
    forecasts = app.topic(told.forecasts, key_serializer="str", value_serializer="bytes")
    stream = app.dataframe(ticks)
    stream = stream.apply(forecast, stateful=True, metadata=True)
    stream.to_topic(forecasts)
    app.run()


if __name__ == "__main__":
    main()
