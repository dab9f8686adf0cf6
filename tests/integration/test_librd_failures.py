"""librdkafka on a broker that stands still in the middle of a transaction."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from threading import Timer

import psutil
import pytest

from daemon.dev.broker import Broker
from daemon.errors import TransactionFailed
from daemon.transport.port import Outgoing
from tests.contract.members import forecast, owning, settled
from tests.contract.worlds import KafkaWorld, real_world
from tests.integration.freezing import DELIVERY_SECONDS, freeze, seconds_of
from tests.integration.interrupted import Interrupted, wait_for_end

pytestmark = pytest.mark.kafka


@pytest.fixture
def world(broker: Broker) -> Iterator[KafkaWorld]:
    """The broker by librdkafka."""
    world = real_world("librdkafka", broker.bootstrap)
    yield world
    world.close()


@pytest.mark.usefixtures("impatient")
def test_a_record_that_expired_fails_the_transaction_although_the_client_would_commit_without_it(
    broker: Broker, world: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.patch(monkeypatch, "sink", TRANSACTION_TIMEOUT_SECONDS=20.0)
    thawing = Timer(2 * DELIVERY_SECONDS, lambda: psutil.Process(broker.pid).send_signal(signal.SIGCONT))

    def expire() -> None:
        wait_for_end(broker.bootstrap, world.topics.forecasts, 1)  # the partition is part of the transaction now
        freeze(broker)
        thawing.start()  # then the coordinator is well again, and the second record has expired

    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    try:
        with pytest.raises(TransactionFailed, match=r"passed since batch creation|timed out on"):
            sink.commit(Outgoing({"forecasts": Interrupted(expire)}), {0: 1}, source.group_metadata())
    finally:
        thawing.join()
    monkeypatch.undo()
    sink.open()
    assert world.read("forecasts") == []
    assert settled(source, [0]) == {0: None}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", ["send_offsets_to_transaction", "commit_transaction"])
def test_a_call_that_never_returns_is_abandoned(
    broker: Broker, world: KafkaWorld, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    # Nothing may fail before the transaction does, and librdkafka lets nothing outlive it.
    world.patch(monkeypatch, "sink", REQUEST_TIMEOUT_SECONDS=3.0, DELIVERY_TIMEOUT_SECONDS=3.0)
    from daemon.transport import librd_sink  # of an extra

    original = getattr(librd_sink.Producer, step)
    healthy = True

    def freeze_then_call(producer: object, *args: object) -> None:
        if not healthy:
            freeze(broker)
        original(producer, *args)

    monkeypatch.setattr(librd_sink, "Producer", type("Patched", (librd_sink.Producer,), {step: freeze_then_call}))
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    healthy = False

    def fail() -> None:
        with pytest.raises(TransactionFailed, match=r"no answer within|_TIMED_OUT"):
            sink.commit(forecast("unknown"), {0: 2}, source.group_metadata())

    try:
        assert seconds_of(fail) < 8
    finally:
        psutil.Process(broker.pid).send_signal(signal.SIGCONT)
    healthy = True
    sink.open()  # settles it: the request that was on its way is answered or fenced
    survived = [record.value for record in world.read("forecasts")]
    assert survived in ([], [b"unknown"])
    assert settled(source, [0]) == {0: 2 if survived else None}
    try:
        sink.commit(forecast("good"), {0: 3}, source.group_metadata())
    except TransactionFailed as error:  # once in 50: the coordinator, too, has just ended what had timed out
        if "_FENCED" not in str(error):
            raise
        sink.open()
        sink.commit(forecast("good"), {0: 3}, source.group_metadata())
    assert [record.value for record in world.read("forecasts")] == [*survived, b"good"]


def test_a_transaction_that_outlived_its_timeout_fails_and_the_next_one_succeeds(
    broker: Broker, world: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.patch(monkeypatch, "sink", TRANSACTION_TIMEOUT_SECONDS=1.0, REQUEST_TIMEOUT_SECONDS=0.5)
    world.patch(monkeypatch, "sink", DELIVERY_TIMEOUT_SECONDS=0.9)
    source, sink = owning(world.source()).source, world.sink()
    sink.open()

    def outlive() -> None:
        wait_for_end(broker.bootstrap, world.topics.forecasts, 2)  # a record, and the coordinator's abort marker

    with pytest.raises(TransactionFailed):
        sink.commit(Outgoing({"forecasts": Interrupted(outlive)}), {0: 1}, source.group_metadata())
    assert world.read("forecasts") == []
    monkeypatch.undo()
    sink.commit(forecast("good"), {0: 1}, source.group_metadata())
    assert [record.value for record in world.read("forecasts")] == [b"good"]
