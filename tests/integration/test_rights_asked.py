"""Asking for rights changes nothing, and is answered whatever the transactions of the id are up to."""

from __future__ import annotations

from threading import Event, Thread

import pytest
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from daemon.transport.kafka_rights import may_write_as
from tests.kafka_fixture import make_topics

pytestmark = pytest.mark.kafka

ASKED = 300


def test_a_writer_in_the_middle_of_its_transactions_is_no_reason_to_doubt_our_right(kafka: str) -> None:
    topic = make_topics(kafka, "rights-asked", partitions=1).ticks
    writer = KafkaProducer(bootstrap_servers=kafka, transactional_id="group/writer", linger_ms=0, retry_backoff_ms=2)
    writer.init_transactions()
    stop, committed = Event(), []

    def write() -> None:
        while not stop.is_set():
            writer.begin_transaction()
            writer.send(topic, b"x", partition=0)
            writer.commit_transaction()
            committed.append(1)

    thread = Thread(target=write)
    thread.start()
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    try:
        assert all(may_write_as(admin, "group/writer", "group") for _ in range(ASKED))
    finally:
        stop.set()
        thread.join()
        admin.close()
        writer.close()
    assert len(committed) > 10  # nobody was fenced, and there was something to be in the middle of
