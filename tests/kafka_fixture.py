"""A real Apache Kafka for a test session, and topics of its own for each test."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from daemon.config import TopicSettings
from daemon.dev.broker import start_broker

_numbers = itertools.count(1)

#: Everybody may do everything, until a test adds a rule about a topic or group of its own.
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@contextmanager
def running_kafka() -> Iterator[str]:
    """Run one broker in a directory of its own on a free port; yields `host:port`."""
    with (
        tempfile.TemporaryDirectory(prefix="tickcast-kafka-", ignore_cleanup_errors=True) as directory,
        start_broker(None, Path(directory), properties=AUTHORIZER) as broker,
    ):
        yield broker.bootstrap


def topic_names(prefix: str) -> TopicSettings:
    """Return names that nobody else uses, so that tests share one broker and nothing on it."""
    stem = f"{prefix}-{next(_numbers)}"
    return TopicSettings(
        ticks=f"{stem}-ticks",
        forecasts=f"{stem}-forecasts",
        state=f"{stem}-state",
        dead_letters=f"{stem}-dead-letters",
    )


def make_topics(bootstrap: str, prefix: str, partitions: int = 4) -> TopicSettings:
    """Create the four topics under new names; they are ready for use on return."""
    from daemon.transport.admin import create_topics
    from daemon.transport.connection import Connection

    topics = topic_names(prefix)
    create_topics(Connection(bootstrap), topics, partitions=partitions)
    return topics
