"""A broker that freezes, refuses or is not there: every call ends in time, and with the right error."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from kafka.net.manager import KafkaConnectionManager

from daemon.core.records import Message
from daemon.dev.broker import Broker, free_port, start_broker
from daemon.errors import AccessDenied, BrokerUnavailable, TopicError, TransactionFailed
from daemon.transport.connection import Connection
from daemon.transport.kafka_producer import TransactionalProducer
from daemon.transport.kafka_reader import KafkaReader
from daemon.transport.kafka_sink import KafkaSink
from daemon.transport.kafka_source import KafkaSource
from daemon.transport.port import Outgoing
from tests.contract.members import Member, forecast, owning, settled, ticks, turn_until
from tests.contract.worlds import KafkaWorld

pytestmark = pytest.mark.kafka

#: With an authorizer, and open until a rule for a resource exists.
AUTHORIZED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that only these tests use, since they freeze it and give it rules."""
    with start_broker(None, Path(tmp_path_factory.mktemp("kafka")), properties=AUTHORIZED) as broker:
        yield broker


@pytest.fixture
def world(broker: Broker) -> Iterator[KafkaWorld]:
    world = KafkaWorld(broker.bootstrap)
    yield world
    world.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds of a second or two instead of ten."""
    for name, seconds in {
        "kafka_sink.TRANSACTION_TIMEOUT_SECONDS": 3.0,
        "kafka_sink.REQUEST_TIMEOUT_SECONDS": 1.0,
        "kafka_sink.ABORT_TIMEOUT_SECONDS": 1.0,
        "kafka_sink.CLOSE_TIMEOUT_SECONDS": 1.0,
        "kafka_source.REQUEST_TIMEOUT_SECONDS": 1.0,
        "kafka_source.CLOSE_TIMEOUT_SECONDS": 1.0,
    }.items():
        monkeypatch.setattr(f"daemon.transport.{name}", seconds)


def freeze(broker: Broker) -> None:
    """Return once every thread of the broker stands still; one that ran on could answer a whole transaction."""
    psutil.Process(broker.pid).send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 60
    threads = [Path(f"/proc/{each.id}/stat") for each in psutil.Process(broker.pid).threads()]
    while any(each.read_text().rpartition(")")[2].split()[0] != "T" for each in threads if each.exists()):
        assert time.monotonic() < deadline


@contextmanager
def frozen(broker: Broker) -> Iterator[None]:
    freeze(broker)
    try:
        yield
    finally:
        psutil.Process(broker.pid).send_signal(signal.SIGCONT)


def seconds_of(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


@pytest.mark.usefixtures("impatient")
def test_a_record_that_cannot_be_delivered_fails_the_transaction_and_nothing_of_it_appears(
    broker: Broker, world: KafkaWorld
) -> None:
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    sink.commit(forecast("first"), {0: 1}, source.group_metadata())

    def fail() -> None:
        with pytest.raises(TransactionFailed):
            sink.commit(forecast("lost"), {0: 2}, source.group_metadata())

    with frozen(broker):
        assert seconds_of(fail) < 8
    sink.commit(forecast("second"), {0: 3}, source.group_metadata())
    assert [record.value for record in world.read("forecasts")] == [b"first", b"second"]
    assert settled(source, [0]) == {0: 3}


STEPS = ["_add_partitions", "_write_records", "_add_group", "_write_offsets", "_end"]


@contextmanager
def freezing_at(step: str, broker: Broker) -> Iterator[threading.Event]:
    """Let the broker stand still before a step of the next transaction; the event says that it does."""
    original, frozen = getattr(TransactionalProducer, step), threading.Event()

    async def freeze_then_go_on(*arguments: object, **named: object) -> None:
        if not frozen.is_set():
            freeze(broker)
            frozen.set()
        await original(*arguments, **named)

    setattr(TransactionalProducer, step, freeze_then_go_on)
    try:
        yield frozen
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
    with freezing_at(step, broker) as frozen:

        def thaw() -> None:
            frozen.wait(60)
            time.sleep(2.5)  # two requests have been given up by then
            psutil.Process(broker.pid).send_signal(signal.SIGCONT)

        thawing = threading.Thread(target=thaw)
        thawing.start()
        sink.commit(both, {0: 1}, source.group_metadata())
        thawing.join()
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


#: What belongs to one transaction.
TRANSACTIONAL = {
    *("AddPartitionsToTxnRequest", "ProduceRequest", "AddOffsetsToTxnRequest", "TxnOffsetCommitRequest"),
    "EndTxnRequest",
}


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


@pytest.mark.usefixtures("impatient")
def test_a_frozen_broker_holds_up_no_call_of_a_source(broker: Broker, world: KafkaWorld) -> None:
    member = owning(world.source())
    world.produce(ticks(0, "a"))
    turn_until(lambda: bool(member.records), member)
    with frozen(broker):
        assert seconds_of(member.turn) < 2
        committed: dict[int, int | None] = {}
        assert seconds_of(lambda: committed.update(member.source.committed([0, 1]))) < 1
        assert committed == {}, "not settled, so left out"
        with pytest.raises(BrokerUnavailable):
            member.source.bounds([0])
        with pytest.raises(BrokerUnavailable, match="group"):
            member.source.confirm()
    world.produce(ticks(0, "b"))
    turn_until(lambda: len(member.records) == 2, member)
    assert not member.lost
    assert settled(member.source, [0]) == {0: None}
    member.source.confirm()


@pytest.mark.usefixtures("impatient")
def test_a_frozen_broker_holds_up_no_reader_and_the_next_call_goes_on(broker: Broker, world: KafkaWorld) -> None:
    world.produce(ticks(0, "a"))
    reader = KafkaReader(Connection(broker.bootstrap), {"ticks": world.topics.ticks}, timeout_seconds=1)
    assert [record.value for record in reader.read("ticks", 0, 0, 10, 10)[0]] == [b"a"]
    before = threading.active_count()

    def fail() -> None:
        with pytest.raises(BrokerUnavailable):
            reader.bounds("ticks", 0)
        with pytest.raises(BrokerUnavailable):
            again(lambda: reader.read("ticks", 0, 1, 0.1, 10))

    with frozen(broker):
        assert seconds_of(fail) < 10
        assert seconds_of(reader.close) < 3
    world.produce(ticks(0, "b"))
    records, offset = reader.read("ticks", 0, 1, 10, 10)
    assert ([record.value for record in records], offset) == ([b"b"], 2)
    reader.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline, threading.enumerate()


@pytest.mark.usefixtures("impatient")
def test_closing_does_not_wait_for_a_frozen_broker(broker: Broker, world: KafkaWorld) -> None:
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    with frozen(broker):
        assert seconds_of(sink.close) < 3
        assert seconds_of(lambda: source.close(leave=True)) < 6


@pytest.mark.usefixtures("impatient")
def test_failed_transactions_leave_no_threads_behind(broker: Broker, world: KafkaWorld) -> None:
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    before = threading.active_count()
    for _ in range(3):
        world.sink().open()  # fences ours
        with pytest.raises(TransactionFailed):
            sink.commit(forecast("a"), {0: 1}, source.group_metadata())
        sink.open()
    deadline = time.monotonic() + 10
    while threading.active_count() > before + 3:  # the three fencing sinks are open still
        assert time.monotonic() < deadline, threading.enumerate()
        source.poll(0.05, 1)


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


def test_an_absent_broker_is_waited_for_and_then_named() -> None:
    absent = Connection(f"127.0.0.1:{free_port()}")

    def fail() -> None:
        with pytest.raises(BrokerUnavailable, match=absent.bootstrap_servers):
            KafkaSource(absent, topic="t", group_id="g", instance_id="0", timeout_seconds=1.5)

    before = threading.active_count()
    assert 1.4 < seconds_of(fail) < 4
    sink = KafkaSink(absent, topics={}, ticks_topic="t", group_id="g", instance_id="0", timeout_seconds=0.5)
    with pytest.raises(BrokerUnavailable):
        sink.open()
    deadline = time.monotonic() + 5
    while threading.active_count() > before:
        assert time.monotonic() < deadline, threading.enumerate()


def deny(broker: Broker, kind: ResourceType, name: str, operation: ACLOperation) -> None:
    """Take a right from everybody."""
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    rule = ACL("User:*", "*", operation, ACLPermissionType.DENY, ResourcePattern(kind, name))
    allow = ACL("User:*", "*", ACLOperation.ALL, ACLPermissionType.ALLOW, ResourcePattern(kind, name))
    admin.create_acls([rule, allow])
    admin.close()


def again(call: Callable[[], object]) -> None:
    """Call until it raises: what was changed takes a moment to be noticed."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        call()


def test_no_right_to_the_transactional_id(broker: Broker, world: KafkaWorld) -> None:
    deny(broker, ResourceType.TRANSACTIONAL_ID, f"{world.group}/0", ACLOperation.WRITE)
    sink = world.sink()
    with pytest.raises(AccessDenied, match="TransactionalId"):
        again(sink.open)


def test_no_right_to_write_forecasts(broker: Broker, world: KafkaWorld) -> None:
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    deny(broker, ResourceType.TOPIC, world.topics.forecasts, ACLOperation.WRITE)
    with pytest.raises(AccessDenied, match="TopicAuthorization"):
        again(lambda: sink.commit(forecast("a"), {0: 1}, source.group_metadata()))


def test_no_right_to_read_ticks(broker: Broker, world: KafkaWorld) -> None:
    deny(broker, ResourceType.TOPIC, world.topics.ticks, ACLOperation.READ)
    member = Member(world.source())
    with pytest.raises(AccessDenied, match="TopicAuthorization"):
        again(member.turn)


def test_no_right_to_read_the_state(broker: Broker, world: KafkaWorld) -> None:
    reader = world.reader()
    world.begin("state", ticks(0, "a"))(committed=True)
    deny(broker, ResourceType.TOPIC, world.topics.state, ACLOperation.READ)
    with pytest.raises(AccessDenied, match="TopicAuthorization"):
        again(lambda: reader.read("state", 0, 0, 0.2, 1))


def test_no_right_to_see_the_state(broker: Broker, world: KafkaWorld) -> None:
    reader = world.reader()
    deny(broker, ResourceType.TOPIC, world.topics.state, ACLOperation.DESCRIBE)
    with pytest.raises((AccessDenied, TopicError), match="right"):
        again(lambda: reader.bounds("state", 0))


def test_no_right_to_committed_offsets(broker: Broker, world: KafkaWorld) -> None:
    source = owning(world.source()).source
    deny(broker, ResourceType.GROUP, world.group, ACLOperation.DESCRIBE)
    deny(broker, ResourceType.GROUP, world.group, ACLOperation.READ)
    with pytest.raises(AccessDenied, match="GroupAuthorization"):
        again(lambda: source.committed([0]))


def test_no_right_to_the_group(broker: Broker, world: KafkaWorld) -> None:
    deny(broker, ResourceType.GROUP, world.group, ACLOperation.READ)
    with pytest.raises(AccessDenied, match="GroupAuthorization"):
        again(lambda: Member(world.source()).turn())  # a member that had joined before would not hear of it
