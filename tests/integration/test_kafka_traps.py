"""What the clients would do to us on a real broker if the transport let them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import MessageSizeTooLargeError

from daemon.core.records import Message
from daemon.errors import TopicError, TransactionFailed
from daemon.transport.kafka_source import KafkaSource
from daemon.transport.port import Outgoing
from daemon.transport.topics import DEFAULT_MESSAGE_BYTES
from tests.contract.members import PATIENCE_SECONDS, Member, forecast, owning, settle, settled, turn_until
from tests.contract.test_reader_contract import read_until
from tests.contract.worlds import CLIENTS, PARTITIONS, KafkaWorld, real_world

pytestmark = pytest.mark.kafka


@pytest.fixture(params=CLIENTS)
def world(kafka: str, request: pytest.FixtureRequest) -> Iterator[KafkaWorld]:
    """The broker by each client."""
    world = real_world(request.param, kafka)
    yield world
    world.close()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_ticks_are_read_whatever_codec_their_producer_chose(kafka: str, world: KafkaWorld, codec: str) -> None:
    producer = KafkaProducer(bootstrap_servers=kafka, compression_type=codec, linger_ms=50)
    for number in range(100):
        producer.send(world.topics.ticks, b"%d " % number * 20, b"key", partition=0)
    producer.close(timeout=10)
    member = owning(world.source())
    turn_until(lambda: len(member.records) == 100, member)
    assert [record.value for record in member.records] == [b"%d " % number * 20 for number in range(100)]


def test_poison_does_not_stop_the_records_around_it(world: KafkaWorld) -> None:
    poison = [b"\xff\xfe", b"", None, b"{", b"\x00" * 100_000]
    world.produce([Message(0, b"key", value) for value in [b"before", *poison, b"after"]])
    member = owning(world.source())
    turn_until(lambda: len(member.records) == 7, member)
    assert [record.value for record in member.records] == [b"before", *poison, b"after"]


def test_a_partition_set_aside_by_the_client_delivers_again_after_it_was_taken_away(world: KafkaWorld) -> None:
    world.produce([Message(0, b"key", b"%d" % n) for n in range(10)])
    member = owning(world.source())
    turn_until(lambda: len(member.records) >= 3, member, max_records=3)
    member.source.stop(0)
    world.produce([Message(1, b"key", b"other")])
    turn_until(lambda: (1, b"other") in member.values, member)
    world.expel("0")
    turn_until(lambda: bool(member.lost) and len(member.assigned) == 8, member)
    member.records.clear()
    turn_until(lambda: len(member.records) == 11, member)


def test_a_new_member_is_given_its_partitions_at_once(world: KafkaWorld) -> None:
    for instance in "01234":  # a leader that does not know the topic's partitions yet shares out none
        member = Member(world.source(instance))
        turn_until(lambda member=member: bool(member.assigned), member)  # type: ignore[misc]
        assert member.source.assignment() == (0, 1, 2, 3)
        assert not member.revoked
        member.source.close(leave=True)


def test_offsets_of_an_aborted_transaction_do_not_leak_into_the_next(world: KafkaWorld) -> None:
    first, sink = owning(world.source()), world.sink()
    sink.open()
    stale = first.source.group_metadata()
    settle(first, Member(world.source("1")))
    with pytest.raises(TransactionFailed):
        sink.commit(forecast("stale"), {0: 5, 1: 5}, stale)
    sink.commit(forecast("good"), {1: 7}, first.source.group_metadata())
    assert settled(first.source, [0, 1]) == {0: None, 1: 7}
    assert [record.value for record in world.read("forecasts")] == [b"good"]


def test_a_record_too_large_for_its_topic_fails_the_whole_transaction_for_good(world: KafkaWorld) -> None:
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    large = Message(1, b"key", os.urandom(2_000_000))
    with pytest.raises(TopicError, match=r"MessageSizeTooLarge|MSG_SIZE_TOO_LARGE"):
        sink.commit(
            Outgoing({"forecasts": [Message(0, b"key", b"small"), large]}), {0: 1, 1: 1}, source.group_metadata()
        )
    assert world.read("forecasts") == []
    assert settled(source, [0, 1]) == {0: None, 1: None}
    sink.commit(forecast("good"), {0: 2}, source.group_metadata())
    assert [record.value for record in world.read("forecasts")] == [b"good"]


def test_a_record_larger_than_the_clients_default_request_is_written_where_the_topic_takes_it(
    kafka: str, world: KafkaWorld
) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    limit = {"max.message.bytes": "4000000"}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, world.topics.dead_letters, configs=limit)])
    admin.close()
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    letter = Message(0, b"key", os.urandom(3_000_000))
    sink.commit(Outgoing({"dead_letters": [letter]}), {0: 1}, source.group_metadata())
    assert [record.value for record in world.read("dead_letters")] == [letter.value]


def test_a_batch_that_the_topic_finds_too_large_is_cut_until_it_fits(kafka: str, world: KafkaWorld) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka)
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


def write_tick(kafka: str, world: KafkaWorld, value: bytes) -> None:
    """Write one large tick, by a producer of its own: after a refusal the client's next record is refused too."""
    producer = KafkaProducer(bootstrap_servers=kafka, max_request_size=2 * DEFAULT_MESSAGE_BYTES)
    try:
        producer.send(world.topics.ticks, value, b"key", partition=0).get(30)
    finally:
        producer.close(timeout=5)


def test_the_largest_value_that_the_ticks_take_fits_into_the_dead_letters_with_its_headers(
    kafka: str, world: KafkaWorld
) -> None:
    value = os.urandom(DEFAULT_MESSAGE_BYTES - 75)  # the rest: the key, and what batch and record say of themselves
    with pytest.raises(MessageSizeTooLargeError):
        write_tick(kafka, world, value + b"!")
    write_tick(kafka, world, value)
    member, sink = owning(world.source()), world.sink()
    sink.open()
    turn_until(lambda: bool(member.records), member)
    headers = [(name, b"x" * 100) for name in ("topic", "partition", "offset", "timestamp", "reason", "detail")]
    letter = Message(0, member.records[0].key, member.records[0].value, headers)
    sink.commit(Outgoing({"dead_letters": [letter]}), {0: 1}, member.source.group_metadata())
    assert [record.value for record in world.read("dead_letters")] == [value]


def test_a_message_without_key_and_value_is_written_as_an_empty_value(world: KafkaWorld) -> None:
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    letter = Message(0, None, None, (("reason", b"empty"),))
    sink.commit(Outgoing({"dead_letters": [letter]}), {0: 1}, source.group_metadata())
    [record] = world.read("dead_letters")
    assert (record.key, record.value) == (None, b"")


def test_a_partition_that_the_output_topic_lacks_is_a_fault_of_the_topic(world: KafkaWorld) -> None:
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    with pytest.raises(TopicError, match="partition 7"):
        sink.commit(forecast("a", partition=7), {0: 1}, source.group_metadata())
    assert world.read("forecasts") == []


def test_partitions_added_after_a_sink_was_opened_are_written_at_once(world: KafkaWorld) -> None:
    source, sink = owning(world.source()).source, world.sink()
    sink.open()
    sink.commit(forecast("before"), {0: 1}, source.group_metadata())
    world.grow(PARTITIONS + 2)
    sink.commit(forecast("new", partition=5), {5: 1}, source.group_metadata())
    assert settled(source, [5]) == {5: 1}
    assert [record.value for record in world.read("forecasts")] == [b"before", b"new"]


def test_an_answer_of_the_group_that_arrives_between_two_polls_is_not_lost(world: KafkaWorld) -> None:
    source = world.source()
    if not isinstance(source, KafkaSource):
        return  # librdkafka takes answers on a thread of its own
    member = owning(source)
    world.grow(PARTITIONS + 2)
    coordinator = source._consumer._coordinator
    await_that(coordinator.need_rejoin)  # the growth has been noticed
    coordinator.poll(timeout_ms=0)  # asks to join, and does not wait
    await_that(lambda: coordinator._join_task.is_done)
    turn_until(lambda: len(source.assignment()) == PARTITIONS + 2, member)
    assert source.joined
    assert not member.revoked
    assert not member.lost


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline


def test_a_deleted_topic_is_said_in_one_line_and_nothing_spins(world: KafkaWorld) -> None:
    member = owning(world.source())
    world.produce([Message(0, b"key", b"tick")])
    turn_until(lambda: bool(member.records), member)
    world.delete_ticks()
    cpu_seconds = time.process_time()
    with pytest.raises(TopicError, match=rf"{world.topics.ticks} was deleted; .*topics create") as raised:
        turn_until(lambda: False, member)
    assert time.process_time() - cpu_seconds < 1
    assert "\n" not in str(raised.value)
    with pytest.raises(TopicError, match=rf"{world.topics.ticks} was deleted"):
        member.source.confirm()
    with pytest.raises(TopicError, match=rf"no {world.topics.ticks}-0"):
        world.reader().read("ticks", 0, 0, 10, 10)


def test_a_reader_hears_that_its_topic_was_deleted_while_it_waited(world: KafkaWorld) -> None:
    reader = world.reader()
    reader.read("ticks", 0, 0, 0.1, 10)
    world.delete_ticks()
    with pytest.raises(TopicError, match=rf"no {world.topics.ticks}-0"):
        read_until(reader, "ticks", 0, 0, 1)


def test_a_topic_created_anew_while_the_loop_was_busy_is_not_read_on(world: KafkaWorld) -> None:
    member = owning(world.source())
    world.produce([Message(0, b"key", b"old %d" % n) for n in range(100)])
    turn_until(lambda: len(member.records) >= 40, member, max_records=40)  # the client has the rest already
    world.recreate()
    world.produce([Message(0, b"key", b"new %d" % n) for n in range(200)])
    with pytest.raises(TopicError, match="created anew"):
        turn_until(lambda: False, member)
    assert not [record for record in member.records if (record.value or b"").startswith(b"new")]


def test_a_missing_topic_is_named_and_not_created(
    kafka: str, world: KafkaWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.patch(monkeypatch, "sink", TRANSACTION_TIMEOUT_SECONDS=2.0, REQUEST_TIMEOUT_SECONDS=1.0)
    world.patch(monkeypatch, "sink", DELIVERY_TIMEOUT_SECONDS=1.5)
    missing = f"{world.topics.ticks}-typo"
    world.topics = world.topics.model_copy(update={"ticks": missing})
    world.written["forecasts"] = missing
    with pytest.raises(TopicError, match=missing):
        world.source()
    sink = world.sink()
    with pytest.raises(TopicError, match=missing):
        sink.open()
    sink.close()
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    assert missing not in admin.list_topics()
    admin.close()
