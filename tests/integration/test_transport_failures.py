"""A broker that freezes, refuses or is not there: every call ends in time, and with the right error."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType

from daemon.dev.broker import Broker, free_port, start_broker
from daemon.errors import AccessDenied, BrokerUnavailable, TopicError, TransactionFailed
from daemon.transport.connection import Connection
from daemon.transport.kafka_sink import KafkaSink
from daemon.transport.kafka_source import KafkaSource
from tests.contract.members import Member, forecast, owning, settled, ticks, turn_until
from tests.contract.worlds import CLIENTS, KafkaWorld, real_world
from tests.integration.freezing import frozen, seconds_of

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


@pytest.fixture(params=CLIENTS)
def world(broker: Broker, request: pytest.FixtureRequest) -> Iterator[KafkaWorld]:
    """The broker by each client."""
    world = real_world(request.param, broker.bootstrap)
    yield world
    world.close()


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
    reader = world.reader(timeout_seconds=1)
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
    while threading.active_count() > before + 3 * 2:  # the three fencing sinks are open still: two threads each
        assert time.monotonic() < deadline, threading.enumerate()
        source.poll(0.05, 1)


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
    with pytest.raises(AccessDenied, match=r"TransactionalId|TRANSACTIONAL_ID"):
        again(sink.open)


def test_no_right_to_write_forecasts(broker: Broker, world: KafkaWorld) -> None:
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    deny(broker, ResourceType.TOPIC, world.topics.forecasts, ACLOperation.WRITE)
    with pytest.raises(AccessDenied, match=r"TopicAuthorization|TOPIC_AUTHORIZATION"):
        again(lambda: sink.commit(forecast("a"), {0: 1}, source.group_metadata()))


def test_no_right_to_read_ticks(broker: Broker, world: KafkaWorld) -> None:
    deny(broker, ResourceType.TOPIC, world.topics.ticks, ACLOperation.READ)
    member = Member(world.source())
    with pytest.raises(AccessDenied, match=r"TopicAuthorization|TOPIC_AUTHORIZATION"):
        again(member.turn)


def test_no_right_to_read_the_state(broker: Broker, world: KafkaWorld) -> None:
    reader = world.reader()
    world.begin("state", ticks(0, "a"))(committed=True)
    deny(broker, ResourceType.TOPIC, world.topics.state, ACLOperation.READ)
    with pytest.raises(AccessDenied, match=r"TopicAuthorization|TOPIC_AUTHORIZATION"):
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
    with pytest.raises(AccessDenied, match=r"GroupAuthorization|GROUP_AUTHORIZATION"):
        again(lambda: source.committed([0]))


def test_no_right_to_the_group(broker: Broker, world: KafkaWorld) -> None:
    deny(broker, ResourceType.GROUP, world.group, ACLOperation.READ)
    with pytest.raises(AccessDenied, match=r"GroupAuthorization|GROUP_AUTHORIZATION"):
        again(lambda: Member(world.source()).turn())  # a member that had joined before would not hear of it
