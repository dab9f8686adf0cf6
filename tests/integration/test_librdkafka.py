"""What librdkafka would do to us on a real broker if the transport let it; what both clients do is proven for both."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from daemon.core.records import Message
from daemon.transport.port import Outgoing
from tests.contract.members import PATIENCE_SECONDS, Member, forecast, owning, settled
from tests.contract.worlds import KafkaWorld, real_world

pytestmark = pytest.mark.kafka


@pytest.fixture
def world(kafka: str) -> Iterator[KafkaWorld]:
    world = real_world("librdkafka", kafka)
    yield world
    world.close()


def test_a_batch_larger_than_the_clients_queue_is_written_whole(
    world: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemon.transport.librd_sink.QUEUE_RECORDS", 100)
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    many = [Message(n % 4, b"key", b"%d" % n, (("name", b"value"),)) for n in range(1000)]
    sink.commit(Outgoing({"forecasts": many}), {0: 1}, source.group_metadata())
    assert sorted(int(record.value or b"") for record in world.read("forecasts")) == list(range(1000))


def test_a_generation_that_moves_while_a_transaction_is_written_costs_no_recovery(
    world: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, sink = owning(world.source()), world.sink()
    sink.open()
    membership = first.source.group_metadata()
    before = membership.metadata()  # type: ignore[attr-defined]
    Member(world.source("1")).turn()  # librdkafka joins anew with it, on a thread of its own
    deadline = time.monotonic() + PATIENCE_SECONDS
    while membership.metadata() == before:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
    given = iter([before])
    now = membership.metadata  # type: ignore[attr-defined]
    monkeypatch.setattr(type(membership), "metadata", lambda _: next(given, None) or now())

    sink.commit(forecast("once"), {0: 1}, membership)
    assert next(given, None) is None, "the first attempt was under the old generation"
    assert [record.value for record in world.read("forecasts")] == [b"once"]
    assert settled(first.source, [0]) == {0: 1}
