"""Which client carries ticks and outcomes: kafka-python, which is always there, or librdkafka, which is an extra.

Both keep the contract of `port`, the same group protocol and the same ids, so either goes on where the other stopped.
All other questions to the cluster go through kafka-python.
"""

from __future__ import annotations

from importlib.util import find_spec

from daemon.config import Settings
from daemon.errors import SettingsError
from daemon.transport.connection import Connection
from daemon.transport.port import Readable, Reader, Role, Sink, Source


def require_client(settings: Settings) -> None:
    """Make sure that the client is installed.

    Raises
    ------
    SettingsError : it is not
    """
    if settings.kafka.client == "librdkafka" and find_spec("confluent_kafka") is None:
        raise SettingsError(
            'kafka.client = "librdkafka" needs the extra of that name: pip install "tickcast[librdkafka]"; '
            "or leave the key out"
        )


def open_source(connection: Connection, settings: Settings) -> Source:
    """Join the group.

    Raises
    ------
    BrokerUnavailable, AccessDenied, TopicError
    """
    kafka, ticks = settings.kafka, settings.topics.ticks
    names = {"topic": ticks, "group_id": kafka.group_id, "instance_id": kafka.instance_id}
    if kafka.client == "librdkafka":
        from daemon.transport.librd_source import LibrdSource

        return LibrdSource(connection, timeout_seconds=kafka.broker_timeout_seconds, **names)
    from daemon.transport.kafka_source import KafkaSource

    return KafkaSource(connection, timeout_seconds=kafka.broker_timeout_seconds, **names)


def make_sink(connection: Connection, settings: Settings) -> Sink:
    """Return what writes outcomes; `Sink.open` connects it."""
    kafka, topics = settings.kafka, settings.topics
    written: dict[Role, str] = {
        "forecasts": topics.forecasts,
        "dead_letters": topics.dead_letters,
        "state": topics.state,
    }
    if topics.scores:
        written["scores"] = topics.scores
    names = {"ticks_topic": topics.ticks, "group_id": kafka.group_id, "instance_id": kafka.instance_id}
    if kafka.client == "librdkafka":
        from daemon.transport.librd_sink import LibrdSink

        return LibrdSink(connection, topics=written, timeout_seconds=kafka.broker_timeout_seconds, **names)
    from daemon.transport.kafka_sink import KafkaSink

    return KafkaSink(connection, topics=written, timeout_seconds=kafka.broker_timeout_seconds, **names)


def make_reader(connection: Connection, settings: Settings) -> Reader:
    """Return what recovery reads with; it connects with its first call."""
    # Its own short patience: recovery asks again, and the loop must not wait for one answer as long as for a cluster.
    topics: dict[Readable, str] = {"ticks": settings.topics.ticks, "state": settings.topics.state}
    if settings.kafka.client == "librdkafka":
        from daemon.transport.librd_reader import LibrdReader

        return LibrdReader(connection, topics, group_id=settings.kafka.group_id)
    from daemon.transport.kafka_reader import KafkaReader

    return KafkaReader(connection, topics)
