"""Our own producer on a broker that stands still in the middle of a transaction, or refuses it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import RetriableError
from kafka.net.manager import KafkaConnectionManager

from daemon.core.records import Message
from daemon.dev.broker import Broker, start_broker
from daemon.errors import TransactionFailed
from daemon.transport.kafka_nodes import Nodes
from daemon.transport.kafka_producer import TransactionalProducer
from daemon.transport.port import Outgoing
from tests.contract.members import forecast, owning, settled
from tests.contract.worlds import KafkaWorld, real_world
from tests.integration.freezing import freeze, seconds_of
from tests.integration.interrupted import wait_for_end

pytestmark = pytest.mark.kafka


@pytest.fixture
def world(broker: Broker) -> Iterator[KafkaWorld]:
    """The broker by kafka-python."""
    world = real_world("kafka-python", broker.bootstrap)
    yield world
    world.close()


TRANSACTIONAL = {
    *("AddPartitionsToTxnRequest", "ProduceRequest", "AddOffsetsToTxnRequest", "TxnOffsetCommitRequest"),
    "EndTxnRequest",
}
STEPS = ["_add_partitions", "_write_records", "_add_group", "_write_offsets", "_end"]


@contextmanager
def freezing_at(step: str, broker: Broker) -> Iterator[None]:
    """Let the broker stand still before a step of the next transaction."""
    original, healthy = getattr(TransactionalProducer, step), True

    async def freeze_then_go_on(*arguments: object, **named: object) -> None:
        nonlocal healthy
        if healthy:
            freeze(broker)
            healthy = False
        await original(*arguments, **named)

    setattr(TransactionalProducer, step, freeze_then_go_on)
    try:
        yield
    finally:
        setattr(TransactionalProducer, step, original)
        psutil.Process(broker.pid).send_signal(signal.SIGCONT)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", STEPS)
def test_what_is_not_answered_in_time_is_sent_again_and_counts_once(
    broker: Broker, world: KafkaWorld, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr("daemon.transport.kafka_sink.TRANSACTION_TIMEOUT_SECONDS", 60.0)
    both = Outgoing({"forecasts": [Message(0, b"key", b"a"), Message(1, b"key", b"b")]})
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    ask, lost = Nodes.ask, []

    async def ask_and_thaw(*arguments: Any) -> Any:
        try:
            return await ask(*arguments)
        except RetriableError as error:
            lost.append(error)
            if len(lost) == 2:
                psutil.Process(broker.pid).send_signal(signal.SIGCONT)
            raise

    monkeypatch.setattr(Nodes, "ask", ask_and_thaw)
    with freezing_at(step, broker):
        sink.commit(both, {0: 1}, source.group_metadata())
    assert len(lost) >= 2
    sink.commit(forecast("d"), {0: 2}, source.group_metadata())
    assert [record.value for record in world.read("forecasts")] == [b"a", b"d", b"b"]
    assert settled(source, [0]) == {0: 2}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", STEPS)
def test_a_transaction_that_gets_no_answer_is_abandoned(
    broker: Broker, world: KafkaWorld, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr("daemon.transport.kafka_sink.REQUEST_TIMEOUT_SECONDS", 10.0)
    source, sink = owning(world.source()).source, world.sink()
    sink.open()

    def fail() -> None:
        with pytest.raises(TransactionFailed, match="no answer within"):
            sink.commit(forecast("unknown"), {0: 2}, source.group_metadata())

    with freezing_at(step, broker):
        assert seconds_of(fail) < 8
    sink.open()  # settles it: the request that was on its way is answered or fenced
    survived = [record.value for record in world.read("forecasts")]
    assert survived in ([], [b"unknown"])
    assert settled(source, [0]) == {0: 2 if survived else None}
    sink.commit(forecast("good"), {0: 3}, source.group_metadata())
    assert [record.value for record in world.read("forecasts")] == [*survived, b"good"]


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("step", STEPS[:-1])
def test_a_transaction_that_was_given_up_does_not_go_on_when_the_broker_is_back(
    broker: Broker, world: KafkaWorld, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    for name, seconds in (("REQUEST", 60.0), ("ABORT", 60.0)):
        monkeypatch.setattr(f"daemon.transport.kafka_sink.{name}_TIMEOUT_SECONDS", seconds)
    abort, send = TransactionalProducer.abort, KafkaConnectionManager.send
    asked: list[str] = []

    def thaw_then_abort(producer: TransactionalProducer, seconds: float) -> None:
        asked.clear()
        psutil.Process(broker.pid).send_signal(signal.SIGCONT)
        abort(producer, seconds)

    def note_then_send(manager: KafkaConnectionManager, request: Any, *arguments: Any, **named: Any) -> Any:
        if manager.config["client_id"] == "tickcast-0":
            asked.append(type(request).__name__)
        return send(manager, request, *arguments, **named)

    monkeypatch.setattr(TransactionalProducer, "abort", thaw_then_abort)
    monkeypatch.setattr(KafkaConnectionManager, "send", note_then_send)
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    with freezing_at(step, broker), pytest.raises(TransactionFailed, match="no answer within"):
        sink.commit(forecast("never"), {0: 2}, source.group_metadata())
    assert TRANSACTIONAL & {*asked} == {"EndTxnRequest"}
    sink.commit(forecast("good"), {0: 3}, source.group_metadata())
    assert [record.value for record in world.read("forecasts")] == [b"good"]
    assert settled(source, [0]) == {0: 3}


def test_connections_that_a_broker_has_closed_meanwhile_are_made_anew(tmp_path: Path) -> None:
    with start_broker(None, tmp_path, properties={"connections.max.idle.ms": "1000"}) as broker:
        world = KafkaWorld(broker.bootstrap)
        source, sink = owning(world.source()).source, world.sink()
        sink.open()
        sink.commit(forecast("before"), {0: 1}, source.group_metadata())
        deadline = time.monotonic() + 60
        while sum(each.status == psutil.CONN_CLOSE_WAIT for each in connections_to(broker)) < 2:
            assert time.monotonic() < deadline, connections_to(broker)
            source.poll(0.1, 1)
        sink.commit(forecast("after"), {0: 2}, source.group_metadata())
        assert [record.value for record in world.read("forecasts")] == [b"before", b"after"]
        world.close()


def connections_to(broker: Broker) -> list[Any]:
    port = int(broker.bootstrap.rpartition(":")[2])
    return [each for each in psutil.Process().net_connections() if each.raddr and each.raddr.port == port]


def test_a_transaction_that_outlived_its_timeout_fails_and_the_next_one_succeeds(
    broker: Broker, world: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, sink = owning(world.source()).source, world.sink()
    with monkeypatch.context() as patient:
        patient.setattr("daemon.transport.kafka_sink.TRANSACTION_TIMEOUT_SECONDS", 1.0)
        sink.open()
    end = TransactionalProducer._end

    async def outlive_then_end(producer: TransactionalProducer, *arguments: Any, **named: Any) -> None:
        if named["committed"]:
            wait_for_end(broker.bootstrap, world.topics.forecasts, 2)  # the record, and the coordinator's abort marker
        await end(producer, *arguments, **named)

    monkeypatch.setattr(TransactionalProducer, "_end", outlive_then_end)
    with pytest.raises(TransactionFailed, match="ProducerFenced"):
        sink.commit(forecast("never"), {0: 1}, source.group_metadata())
    assert world.read("forecasts") == []
    monkeypatch.undo()
    sink.commit(forecast("good"), {0: 1}, source.group_metadata())
    assert [record.value for record in world.read("forecasts")] == [b"good"]


def test_a_batch_that_the_topic_finds_too_large_is_cut_until_it_fits(broker: Broker, world: KafkaWorld) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    limit = {"max.message.bytes": "20000"}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, world.topics.forecasts, configs=limit)])
    admin.close()
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    messages = [Message(n % 2, b"%d" % n, os.urandom(1000)) for n in range(1000)]
    sink.commit(Outgoing({"forecasts": messages}), {0: 1}, source.group_metadata())
    sink.commit(forecast("next"), {0: 2}, source.group_metadata())
    expected = [message.value for message in messages]
    assert [record.value for record in world.read("forecasts")] == [*expected[::2], b"next", *expected[1::2]]
